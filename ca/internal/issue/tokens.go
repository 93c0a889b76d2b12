package issue

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	caclient "twinkey/ca/client"
	"twinkey/ca/internal/ledger"
	"twinkey/pkg/twincert"
)

// Bounds of tokens.
const (
	maxTokenTTL  = 30 * 24 * time.Hour
	maxPrefixes  = 64
	maxScope     = 64
	maxHosts     = 16
	secretLen    = 20               // 160 bits
	keepTokenFor = 24 * time.Hour   // after expiry, so that lists show what became of it
	retryWindow  = 10 * time.Minute // after use, in which the same request gets the same answer
)

// TokenRequest says what a token lets its bearer have.
type TokenRequest struct {
	Role, Name string
	Group      string         // users: tunnel group
	Prefixes   []netip.Prefix // routers: that it may announce
	Scope      []string       // routers: whose keys it may ask for
	Hosts      []string       // names and addresses in its TLS certificate
	TTL        time.Duration
	Overlap    bool // whether a prefix may overlap with another router's
}

// CheckHost says whether h may stand in a TLS certificate: a name in lower case or an
// address.
func CheckHost(h string) error {
	if _, err := netip.ParseAddr(h); err == nil {
		return nil
	}
	other := func(r rune) bool { return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789.-", r) }
	if h == "" || len(h) > 253 || strings.ContainsFunc(h, other) {
		return fmt.Errorf("%q is neither a name in lower case nor an address", h)
	}
	return nil
}

func (r *TokenRequest) check() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
	}
	if r.TTL <= 0 || r.TTL > maxTokenTTL {
		return bad("a token lives longer than 0 and at most %s", maxTokenTTL)
	}
	if len(r.Prefixes) > maxPrefixes || len(r.Scope) > maxScope || len(r.Hosts) > maxHosts {
		return bad("at most %d prefixes, %d scope elements, %d hosts", maxPrefixes, maxScope, maxHosts)
	}
	for _, h := range r.Hosts {
		if err := CheckHost(h); err != nil {
			return fmt.Errorf("%w: %w", ErrInvalid, err)
		}
	}
	if r.Group != "" && r.Role != RoleUser {
		return bad("a %s has no group", r.Role)
	}
	switch r.Role {
	case RoleUser:
		if len(r.Prefixes) > 0 || len(r.Scope) > 0 || len(r.Hosts) > 0 {
			return bad("a user has neither prefixes nor scope nor hosts")
		}
		if err := twincert.CheckName(r.Name); err != nil {
			return fmt.Errorf("user %q: %w: %w", r.Name, ErrInvalid, err)
		}
		if err := twincert.CheckName(r.Group); err != nil {
			return fmt.Errorf("group %q: %w: %w", r.Group, ErrInvalid, err)
		}
		return nil
	case RoleDirectory:
		if len(r.Prefixes) > 0 || len(r.Scope) > 0 {
			return bad("a directory has neither prefixes nor scope")
		}
		return nil
	case RoleRouter:
		if err := twincert.CheckName(r.Name); err != nil {
			return fmt.Errorf("router %q: %w: %w", r.Name, ErrInvalid, err)
		}
	default:
		return bad("role %q", r.Role)
	}
	for _, p := range r.Prefixes {
		if !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() {
			return bad("prefix %s has host bits set", p)
		}
	}
	for _, s := range r.Scope {
		if err := twincert.CheckScope(s); err != nil {
			return fmt.Errorf("scope %q: %w: %w", s, ErrInvalid, err)
		}
	}
	return nil
}

// Token makes a one-time token. It is returned once; the ledger keeps a hash.
func (d *Desk) Token(r TokenRequest) (string, ledger.Token, error) {
	if err := r.check(); err != nil {
		return "", ledger.Token{}, err
	}
	if err := d.CheckClock(); err != nil {
		return "", ledger.Token{}, err
	}
	raw := make([]byte, secretLen)
	if _, err := rand.Read(raw); err != nil {
		return "", ledger.Token{}, fmt.Errorf("drawing a token: %w", err)
	}
	encode := base32.StdEncoding.WithPadding(base32.NoPadding)
	id, sec := strings.ToLower(rand.Text()[:10]), strings.ToLower(encode.EncodeToString(raw))
	hash := sha256.Sum256([]byte(sec))
	now := d.now()
	t := ledger.Token{ID: id, Hash: hash[:], Role: r.Role, Name: r.Name, Group: r.Group, Prefixes: r.Prefixes, Scope: r.Scope, Hosts: r.Hosts,
		Profile: d.cfg.Profile.String(), Created: now, Expires: now.Add(r.TTL)}
	err := d.cfg.Ledger.Update(func(tx *ledger.Tx) error {
		if err := d.checkName(tx, r); err != nil {
			return err
		}
		if err := dropOldTokens(tx, now); err != nil {
			return err
		}
		if err := tx.PutToken(t); err != nil {
			return err
		}
		return d.note(tx)
	})
	if err != nil {
		return "", ledger.Token{}, err
	}
	return caclient.TokenPrefix + r.Role + "." + id + "." + sec, t, nil
}

// checkName refuses a user or router that is there, and prefixes that another router has.
func (d *Desk) checkName(tx *ledger.Tx, r TokenRequest) error {
	if r.Role == RoleUser {
		return noUser(tx, r.Name)
	}
	routers, err := tx.Routers()
	if err != nil || r.Role != RoleRouter {
		return err
	}
	for _, o := range routers {
		if !o.Active() {
			continue
		}
		if o.Name == r.Name {
			return fmt.Errorf("router %s %w", r.Name, ErrExists)
		}
		for _, p := range r.Prefixes {
			if !r.Overlap && slices.ContainsFunc(o.Prefixes, p.Overlaps) {
				return fmt.Errorf("prefix %s of router %s: a prefix of router %s that overlaps with it %w", p, r.Name, o.Name, ErrExists)
			}
		}
	}
	return nil
}

func dropOldTokens(tx *ledger.Tx, now time.Time) error {
	tokens, err := tx.Tokens()
	if err != nil {
		return err
	}
	for _, t := range tokens {
		if t.Intent == 0 && now.After(t.Expires.Add(keepTokenFor)) {
			if err := tx.DeleteToken(t.ID); err != nil {
				return err
			}
		}
	}
	return nil
}

func splitToken(s string) (id, sec string, ok bool) {
	rest, ok := strings.CutPrefix(strings.TrimSpace(s), caclient.TokenPrefix)
	if !ok {
		return "", "", false
	}
	parts := strings.Split(rest, ".")
	if len(parts) != 3 {
		return "", "", false
	}
	return parts[1], parts[2], true
}

// redeem looks a token up. If it was used for the same keys a moment ago it returns what
// was issued then.
func (d *Desk) redeem(id, sec string, k Keys) (t ledger.Token, again *Issued, err error) {
	hash := sha256.Sum256([]byte(sec))
	err = d.View(func(tx *ledger.Tx) error {
		var ok bool
		if t, ok, err = tx.Token(id); err != nil {
			return err
		}
		// Compared also if it is not known, so that both take as long.
		match := subtle.ConstantTimeCompare(hash[:], t.Hash) == 1
		now := d.now()
		switch {
		case !ok || !match:
			return ErrToken
		case t.Used == nil:
			if now.After(t.Expires) {
				return ErrToken
			}
			return d.checkActive(tx, t)
		case now.After(t.Used.Time.Add(retryWindow)) || !bytes.Equal(t.Used.Request, k.digest()):
			return ErrToken
		}
		again, err = d.reissue(tx, t.Used)
		return err
	})
	return t, again, err
}

// noUser refuses a user who is there, or barred: a token would make them another user.
func noUser(tx *ledger.Tx, uid string) error {
	u, _, err := tx.User(uid)
	switch {
	case err != nil || u.UID == "":
		return err
	case u.Active():
		return fmt.Errorf("user %s %w", uid, ErrExists)
	case u.Barred:
		return fmt.Errorf("user %s %w and barred: twinkey-ca user allow %s first", uid, ErrRevoked, uid)
	}
	return nil
}

// dropTokens forgets the tokens for a bearer that are not used yet, since what was promised to whoever is revoked now holds
// no longer. Also one that an undecided intent uses: it must not come free again.
func dropTokens(tx *ledger.Tx, role, name string) error {
	tokens, err := tx.Tokens()
	if err != nil {
		return err
	}
	for _, t := range tokens {
		if t.Role != role || t.Name != name || t.Used != nil {
			continue
		}
		if err := tx.DeleteToken(t.ID); err != nil {
			return err
		}
	}
	return nil
}

// checkActive refuses a token for a router or a user that has been enrolled by another one, or added, meanwhile.
func (d *Desk) checkActive(tx *ledger.Tx, t ledger.Token) error {
	if t.Role == RoleUser {
		return noUser(tx, t.Name)
	}
	if t.Role != RoleRouter {
		return nil
	}
	r, ok, err := tx.Router(t.Name)
	if err == nil && ok && r.Active() {
		return fmt.Errorf("router %s %w", t.Name, ErrExists)
	}
	return err
}
