package store

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"math/big"
	"time"

	"twinkey/directory/client"
	"twinkey/pkg/identity"
	"twinkey/pkg/keybundle"
	"twinkey/pkg/twincert"
)

const (
	maxChangeID = 128
	maxText     = 256      // actor, reason, bearer of a certificate
	maxID       = 4096     // a certificate's identity as text
	maxSealed   = 4096     // a bundle
	maxCRL      = 12 << 20 // some 300,000 entries
	crlKey      = "crl"
)

// checked is a Change whose records are sound in themselves.
type checked struct {
	client.Change
	digest [sha256.Size]byte
	certs  []CertRow // beside Certificates
	crl    *x509.RevocationList
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %w", client.ErrInvalid, fmt.Errorf(format, args...))
}

func conflict(format string, args ...any) error {
	return fmt.Errorf("%w: %s", client.ErrConflict, fmt.Sprintf(format, args...))
}

// check looks at all that can be said of c without the database. Its error is
// client.ErrInvalid.
func check(c client.Change) (*checked, error) {
	k := &checked{Change: c}
	if !printable(c.ChangeID, 1, maxChangeID) {
		return nil, invalid("change_id must be 1 to %d printable ASCII characters", maxChangeID)
	}
	if !printable(c.Actor, 0, maxText) {
		return nil, invalid("actor must be up to %d printable ASCII characters", maxText)
	}
	b, err := json.Marshal(c)
	if err != nil {
		return nil, invalid("encoding the change: %w", err)
	}
	k.digest = sha256.Sum256(b)
	for _, r := range c.Certificates {
		row, err := checkCertificate(r)
		if err != nil {
			return nil, err
		}
		k.certs = append(k.certs, row)
	}
	for _, f := range []func(client.Change) error{checkGroups, checkUsers, checkBundles, checkSuccessors, checkRouters, checkDisable, checkRevocations} {
		if err := f(c); err != nil {
			return nil, err
		}
	}
	if c.CRL != nil {
		if k.crl, err = parseCRL(c.CRL); err != nil {
			return nil, err
		}
	}
	return k, nil
}

func checkCertificate(r client.CertRecord) (CertRow, error) {
	switch r.Kind {
	case client.KindTwin:
		c, err := twincert.Parse(r.DER)
		if err != nil {
			return CertRow{}, invalid("certificate %s: %w", r.ID, err)
		}
		if c.ID() != r.ID {
			return CertRow{}, invalid("certificate %s is in fact %s", r.ID, c.ID())
		}
		return CertRow{DER: r.DER, Kind: r.Kind, Role: c.Role, Name: c.Name, Group: c.Group, Scope: c.Scope, NotBefore: c.NotBefore, NotAfter: c.NotAfter}, nil
	case client.KindTLS:
		c, err := x509.ParseCertificate(r.DER)
		if err != nil {
			return CertRow{}, invalid("certificate %s: %w", r.ID, err)
		}
		if twincert.IDOf(c) != r.ID {
			return CertRow{}, invalid("certificate %s is in fact %s", r.ID, twincert.IDOf(c))
		}
		uri, err := identity.PeerURI(c)
		if err != nil {
			return CertRow{}, invalid("certificate %s: %w", r.ID, err)
		}
		return CertRow{DER: r.DER, Kind: r.Kind, Name: uri, NotBefore: c.NotBefore, NotAfter: c.NotAfter}, nil
	}
	return CertRow{}, invalid("certificate %s: kind %q is neither %q nor %q", r.ID, r.Kind, client.KindTwin, client.KindTLS)
}

func checkGroups(c client.Change) error {
	for _, g := range c.Groups {
		if err := twincert.CheckName(g.Name); err != nil {
			return invalid("group %q: %w", g.Name, err)
		}
		if len(g.Control) != 32 {
			return invalid("group %s: control key of %d bytes", g.Name, len(g.Control))
		}
	}
	return nil
}

func checkUsers(c client.Change) error {
	for _, u := range c.Users {
		if err := twincert.CheckName(u.UID); err != nil {
			return invalid("user %q: %w", u.UID, err)
		}
		if u.Own {
			if len(u.Verifier) > 0 || len(u.Params.Salt) > 0 {
				return invalid("user %s: a password of somebody whose keys are not here", u.UID)
			}
			continue
		}
		if err := u.Params.Check(); err != nil {
			return invalid("user %s: %w", u.UID, err)
		}
		if err := twincert.CheckName(u.Source); u.Source != "" && err != nil {
			return invalid("user %s: source %q: %w", u.UID, u.Source, err)
		}
		if len(u.Verifier) != verifierLen() {
			return invalid("user %s: verifier of %d bytes", u.UID, len(u.Verifier))
		}
	}
	return nil
}

func verifierLen() int { return len(keybundle.Verifier(nil)) }

func checkBundles(c client.Change) error {
	for _, b := range c.Bundles {
		if err := twincert.CheckName(b.UID); err != nil {
			return invalid("bundle of user %q: %w", b.UID, err)
		}
		if len(b.Sealed) == 0 || len(b.Sealed) > maxSealed {
			return invalid("bundle of user %s: %d bytes", b.UID, len(b.Sealed))
		}
	}
	return nil
}

func checkSuccessors(c client.Change) error {
	for _, s := range c.Successors {
		if err := twincert.CheckName(s.UID); err != nil {
			return invalid("successor of user %q: %w", s.UID, err)
		}
		if len(s.Sealed) != keybundle.SuccessorLen {
			return invalid("successor of user %s: %d bytes, not %d", s.UID, len(s.Sealed), keybundle.SuccessorLen)
		}
	}
	return nil
}

func checkRouters(c client.Change) error {
	for _, r := range c.Routers {
		if err := twincert.CheckName(r.Name); err != nil {
			return invalid("router %q: %w", r.Name, err)
		}
	}
	return nil
}

func checkDisable(c client.Change) error {
	for _, uid := range c.Disable {
		if err := twincert.CheckName(uid); err != nil {
			return invalid("user %q: %w", uid, err)
		}
	}
	return nil
}

func checkRevocations(c client.Change) error {
	for _, r := range c.Revocations {
		if r.ID.IsZero() || len(r.ID.String()) > maxID {
			return invalid("revocation without a proper certificate identity")
		}
		if !printable(r.Name, 0, maxText) || len(r.Reason) > maxText {
			return invalid("revocation of %s: name or reason too long or not printable", r.ID)
		}
	}
	return nil
}

func parseCRL(der []byte) (*x509.RevocationList, error) {
	if len(der) > maxCRL {
		return nil, invalid("CRL of %d bytes, at most %d are taken", len(der), maxCRL)
	}
	l, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, invalid("parsing the CRL: %w", err)
	}
	if l.Number == nil {
		return nil, invalid("the CRL has no number")
	}
	return l, nil
}

func printable(s string, least, most int) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return len(s) >= least && len(s) <= most
}

// crlRevocations are the entries of l as revocations; whose they are is not in a CRL.
func crlRevocations(l *x509.RevocationList) []client.Revocation {
	out := make([]client.Revocation, 0, len(l.RevokedCertificateEntries))
	for _, e := range l.RevokedCertificateEntries {
		out = append(out, client.Revocation{ID: idOf(l.RawIssuer, e.SerialNumber), Time: e.RevocationTime.UTC().Truncate(time.Second), Reason: "CRL"})
	}
	return out
}

func idOf(rawIssuer []byte, serial *big.Int) twincert.ID {
	return twincert.IDOf(&x509.Certificate{RawIssuer: rawIssuer, SerialNumber: serial})
}
