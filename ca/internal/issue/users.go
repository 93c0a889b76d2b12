package issue

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"fmt"
	"io"

	"golang.org/x/crypto/chacha20poly1305"

	"twinkey/ca/internal/ledger"
	"twinkey/directory/client"
	"twinkey/pkg/keybundle"
	"twinkey/pkg/twincert"
	"twinkey/proto/secret"
)

// UserRequest says who is to get a certificate. What the password yields was derived by
// whoever asks: neither it nor Auth comes here.
type UserRequest struct {
	UID, Group string
	Source     string // that has just accepted the password; empty: a local user
	Params     keybundle.Params
	Verifier   []byte     // keybundle.Verifier of the proof
	Seal       secret.Key // the caller's to wipe
}

const keyLen = 32

func (r *UserRequest) check() error {
	if err := twincert.CheckName(r.UID); err != nil {
		return fmt.Errorf("user %q: %w: %w", r.UID, ErrInvalid, err)
	}
	if err := twincert.CheckName(r.Group); err != nil {
		return fmt.Errorf("group %q: %w: %w", r.Group, ErrInvalid, err)
	}
	if err := twincert.CheckName(r.Source); r.Source != "" && err != nil {
		return fmt.Errorf("source %q: %w: %w", r.Source, ErrInvalid, err)
	}
	if err := r.Params.Check(); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if len(r.Verifier) != keyLen || r.Seal.Len() != keyLen {
		return fmt.Errorf("%w: verifier and sealing key have %d bytes", ErrInvalid, keyLen)
	}
	return nil
}

// AddUser gives a new or formerly revoked user keys and a certificate. The first user of a
// group makes the group. A source adds no user whom the operator has barred, nor one of
// another source.
func (d *Desk) AddUser(ctx context.Context, actor string, r UserRequest) (ledger.Cert, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.certifyUser(ctx, actor, "adding user "+r.UID, r, func(old ledger.User, known bool) error {
		switch {
		case known && old.Active():
			return fmt.Errorf("user %s %w", r.UID, ErrExists)
		case known && r.Source != "" && old.Source != r.Source:
			return fmt.Errorf("user %s %w, not of source %s", r.UID, ErrExists, r.Source)
		case known && r.Source != "" && old.Barred:
			return fmt.Errorf("user %s %w", r.UID, ErrRevoked)
		}
		return nil
	})
}

// RenewUser gives a user new keys and a new certificate under a new password, or the old
// one again. The old certificate is not revoked; its sealed keys are replaced.
func (d *Desk) RenewUser(ctx context.Context, actor string, r UserRequest) (ledger.Cert, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.certifyUser(ctx, actor, "renewing user "+r.UID, r, func(old ledger.User, known bool) error {
		switch {
		case !known:
			return fmt.Errorf("user %s %w", r.UID, ErrUnknown)
		case !old.Active():
			return fmt.Errorf("user %s %w", r.UID, ErrRevoked)
		case old.Own:
			return fmt.Errorf("%w: user %s has keys of their own and renews them with twinkey-router client renew; for keys that this CA makes, revoke the user and add them again", ErrInvalid, r.UID)
		case r.Source != old.Source:
			return fmt.Errorf("%w: user %s is of source %s and renewed by logging in", ErrInvalid, r.UID, old.Source)
		case r.Group != old.Group:
			return fmt.Errorf("%w: user %s is of group %s", ErrInvalid, r.UID, old.Group)
		}
		return nil
	})
}

func (d *Desk) certifyUser(ctx context.Context, actor, what string, r UserRequest, allow func(old ledger.User, known bool) error) (ledger.Cert, error) {
	if err := r.check(); err != nil {
		return ledger.Cert{}, err
	}
	ctx, cancel, err := d.begin(ctx)
	if err != nil {
		return ledger.Cert{}, err
	}
	defer cancel()
	err = d.View(func(tx *ledger.Tx) error {
		old, known, err := tx.User(r.UID)
		if err != nil {
			return err
		}
		return allow(old, known)
	})
	if err != nil {
		return ledger.Cert{}, err
	}
	in := &ledger.Intent{Kind: ledger.KindIssue, What: what, Change: &client.Change{Actor: actor}}
	group, err := d.groupOf(in, r.Group)
	if err != nil {
		return ledger.Cert{}, err
	}
	// Also if it has it: after a rotation one that was restored from an older copy has another key.
	in.Change.Groups = []client.GroupRecord{{Name: group.Name, Control: group.Control}}
	cert, sealed, err := d.userKeys(r, group)
	if err != nil {
		return ledger.Cert{}, fmt.Errorf("%s: %w", what, err)
	}
	u := ledger.User{UID: r.UID, Group: r.Group, Serial: cert.Serial, Source: r.Source, Created: d.now()}
	if r.Source != "" {
		u.Accepted = &ledger.Accepted{Params: r.Params, Verifier: r.Verifier}
	}
	in.Effects.Users = []ledger.User{u}
	in.Effects.Certs = []ledger.Cert{cert}
	in.Change.Certificates = d.certRecords(cert)
	in.Change.Users = []client.UserRecord{{UID: r.UID, Group: r.Group, Params: r.Params, Verifier: r.Verifier, Source: r.Source}}
	in.Change.Bundles = []client.BundleRecord{{UID: r.UID, ID: d.id(cert.Serial), Sealed: sealed}}
	return cert, d.commit(ctx, in)
}

// groupOf is the tunnel group of that name, which in makes if it is not there.
func (d *Desk) groupOf(in *ledger.Intent, name string) (g ledger.Group, err error) {
	var known bool
	err = d.View(func(tx *ledger.Tx) (err error) {
		g, known, err = tx.Group(name)
		return err
	})
	if err != nil || known {
		return g, err
	}
	if g, err = d.newGroup(name); err != nil {
		return g, err
	}
	in.Effects.Groups = []ledger.Group{g}
	in.Change.Groups = []client.GroupRecord{{Name: g.Name, Control: g.Control}}
	return g, nil
}

// userKeys makes a user's data key, certifies it beside the group's control key, and seals
// both private keys for the user.
func (d *Desk) userKeys(r UserRequest, g ledger.Group) (cert ledger.Cert, sealed []byte, err error) {
	control, err := d.openGroup(g)
	if err != nil {
		return cert, nil, err
	}
	defer control.Wipe()
	data, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return cert, nil, fmt.Errorf("making a data key: %w", err)
	}
	private := keybundle.Private{Control: control, Data: secret.New(data.Bytes())}
	defer private.Data.Wipe()
	t := twincert.Template{Profile: d.cfg.Profile, Role: twincert.User, Name: r.UID, Group: r.Group,
		Keys: twincert.Keys{Control: [keyLen]byte(g.Control), Data: [keyLen]byte(data.PublicKey().Bytes())}}
	c, err := d.twin(t, d.cfg.Terms.User)
	if err != nil {
		return cert, nil, err
	}
	sealed, err = keybundle.Seal(rand.Reader, private, r.Seal, c.Raw)
	return twinRecord(c), sealed, err
}

var errGroupKey = errors.New("the group's control key does not open with this CA's group key")

// newGroup makes a tunnel group's control key pair. The CA keeps the private key, because
// every user of the group carries it; it reads no call.
func (d *Desk) newGroup(name string) (ledger.Group, error) {
	k, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return ledger.Group{}, fmt.Errorf("making a control key: %w", err)
	}
	aead, err := chacha20poly1305.NewX(d.cfg.GroupKey.Bytes())
	if err != nil {
		return ledger.Group{}, fmt.Errorf("sealing a control key: %w", err)
	}
	nonce := make([]byte, aead.NonceSize(), aead.NonceSize()+keyLen+aead.Overhead())
	if _, err := io.ReadFull(rand.Reader, nonce); err != nil {
		return ledger.Group{}, fmt.Errorf("sealing a control key: %w", err)
	}
	private := k.Bytes()
	defer clear(private)
	g := ledger.Group{Name: name, Control: k.PublicKey().Bytes(), Created: d.now()}
	g.Sealed = aead.Seal(nonce, nonce, private, groupAD(g))
	return g, nil
}

func (d *Desk) openGroup(g ledger.Group) (secret.Key, error) {
	aead, err := chacha20poly1305.NewX(d.cfg.GroupKey.Bytes())
	if err != nil {
		return secret.Key{}, fmt.Errorf("opening a control key: %w", err)
	}
	if len(g.Control) != keyLen || len(g.Sealed) != aead.NonceSize()+keyLen+aead.Overhead() {
		return secret.Key{}, fmt.Errorf("group %s: %w", g.Name, ledger.ErrDamaged)
	}
	n := aead.NonceSize()
	b, err := aead.Open(nil, g.Sealed[:n], g.Sealed[n:], groupAD(g))
	if err != nil {
		return secret.Key{}, fmt.Errorf("group %s: %w", g.Name, errGroupKey)
	}
	return secret.New(b), nil
}

func groupAD(g ledger.Group) []byte {
	return append([]byte("twinkey tunnel group\x00"+g.Name+"\x00"), g.Control...)
}
