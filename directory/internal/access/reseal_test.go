package access_test

import (
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	"twinkey/directory/client"
	"twinkey/directory/internal/access"
	"twinkey/directory/internal/store"
	"twinkey/pkg/keybundle"
	"twinkey/pkg/lockout"
	"twinkey/pkg/twincert"
	"twinkey/proto/secret"
)

// another is what a router sends when uid changes the password to chosen: the cheapest that is allowed.
func (d *desk) another(uid, chosen string) client.Reseal {
	d.t.Helper()
	u := d.users[uid]
	p := keybundle.Params{Salt: make([]byte, keybundle.SaltLen), Time: 1, MemoryKiB: 8 << 10, Threads: 1}
	if _, err := rand.Read(p.Salt); err != nil {
		d.t.Fatal(err)
	}
	is, err := keybundle.Derive([]byte(chosen), p)
	if err != nil {
		d.t.Fatal(err)
	}
	rel, err := d.Release(d.t.Context(), caller("paris"), uid, u.Auth) // paris may ask for everybody
	if err != nil {
		d.t.Fatal(err)
	}
	was, err := keybundle.Derive(u.Password, u.Params)
	if err != nil {
		d.t.Fatal(err)
	}
	keys, err := keybundle.Open(rel.Sealed, was.Seal, rel.Certificate)
	if err != nil {
		d.t.Fatal(err)
	}
	sealed, err := keybundle.Seal(rand.Reader, keys, is.Seal, rel.Certificate)
	if err != nil {
		d.t.Fatal(err)
	}
	return client.Reseal{UID: uid, ID: u.Twin.ID(), Params: p, Verifier: keybundle.Verifier(is.Auth.Bytes()), Sealed: sealed}
}

// login is the whole of one with a password.
func (d *desk) login(router, uid, password string) error {
	d.t.Helper()
	p, err := d.LoginParams(d.t.Context(), caller(router), uid)
	if err != nil {
		return err
	}
	proof, err := keybundle.Derive([]byte(password), p.Params)
	if err != nil {
		return err
	}
	r, err := d.Release(d.t.Context(), caller(router), uid, proof.Auth)
	if err != nil {
		return err
	}
	_, err = keybundle.Open(r.Sealed, proof.Seal, r.Certificate)
	return err
}

func (d *desk) audit(kind string) (all []store.AuditRecord) {
	d.t.Helper()
	err := d.reg.Read(d.t.Context(), func(r *store.Reader) error {
		for a, err := range r.Audit(store.AuditQuery{Kind: kind}) {
			if err != nil {
				return err
			}
			all = append(all, a)
		}
		return nil
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return all
}

// From the change on the new password opens the same keys at every router, the old one nothing.
func TestReseal(t *testing.T) {
	d := newDesk(t)
	d.wrong(9, "berlin", "alice")
	r := d.another("alice", "a new password")
	if err := d.Reseal(t.Context(), caller("berlin"), r, d.users["alice"].Auth); err != nil {
		t.Fatal(err)
	}
	for _, router := range []string{"berlin", "paris"} {
		if err := d.login(router, "alice", "a new password"); err != nil {
			t.Errorf("the new password at %s: %v", router, err)
		}
		if err := d.login(router, "alice", "password of alice"); !errors.Is(err, client.ErrDenied) {
			t.Errorf("the old one at %s: %v", router, err)
		}
	}
	records := d.audit(store.AuditPassword)
	if len(records) != 1 || records[0].Subject != "alice" || records[0].Actor != "twinkey://router/berlin" || !strings.Contains(records[0].Detail, "at router berlin") {
		t.Errorf("audit records: %+v", records)
	}
	before := d.revision()
	if err := d.Reseal(t.Context(), caller("berlin"), r, d.users["alice"].Auth); !errors.Is(err, client.ErrDenied) {
		t.Errorf("the same again, with the old proof: %v", err)
	}
	if d.revision() != before {
		t.Error("watchers are told of a changed password")
	}
}

func (d *desk) revision() (n client.Revision) {
	d.t.Helper()
	err := d.reg.Read(d.t.Context(), func(r *store.Reader) (err error) {
		n, err = r.Revision()
		return err
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return n
}

// Each row is a change of password that is spoilt in one place; afterwards the old password is as good as before.
func TestResealRefused(t *testing.T) {
	least := keybundle.Params{Time: 1, MemoryKiB: 8 << 10}
	for name, c := range map[string]struct {
		router string
		spoil  func(d *desk, r *client.Reseal, auth *secret.Key)
		want   error
		counts bool // as a failed login
	}{
		"wrong old password": {"berlin", func(_ *desk, _ *client.Reseal, auth *secret.Key) { *auth = secret.New(make([]byte, 32)) }, client.ErrDenied, true},
		"no proof":           {"berlin", func(_ *desk, _ *client.Reseal, auth *secret.Key) { *auth = secret.Key{} }, client.ErrDenied, true},
		"the new proof": {"berlin", func(_ *desk, r *client.Reseal, auth *secret.Key) {
			p, err := keybundle.Derive([]byte("a new password"), r.Params)
			if err == nil {
				*auth = p.Auth
			}
		}, client.ErrDenied, true},
		"nobody":       {"berlin", func(_ *desk, r *client.Reseal, _ *secret.Key) { r.UID = "nobody" }, client.ErrDenied, true},
		"no name":      {"berlin", func(_ *desk, r *client.Reseal, _ *secret.Key) { r.UID = "A b" }, client.ErrInvalid, false},
		"not a router": {"rome", func(*desk, *client.Reseal, *secret.Key) {}, client.ErrDenied, false},
		"disabled": {"berlin", func(d *desk, _ *client.Reseal, _ *secret.Key) {
			d.apply(client.Change{ChangeID: "disable", Disable: []string{"alice"}})
		}, client.ErrDenied, true},
		"revoked": {"berlin", func(d *desk, _ *client.Reseal, _ *secret.Key) {
			d.apply(d.company.Revoke("alice", twincert.User, d.users["alice"].Twin.ID()))
		}, client.ErrDenied, true},
		"renewed meanwhile": {"berlin", func(d *desk, r *client.Reseal, auth *secret.Key) {
			d.users["alice"] = d.company.NewUser("alice", "staff", "password of alice")
			d.apply(d.users["alice"].Change())
			*auth = d.users["alice"].Auth
		}, client.ErrConflict, false},
		"the old salt":     {"berlin", func(d *desk, r *client.Reseal, _ *secret.Key) { r.Params.Salt = d.users["alice"].Params.Salt }, client.ErrInvalid, false},
		"too cheap":        {"berlin", func(_ *desk, r *client.Reseal, _ *secret.Key) { r.Params.MemoryKiB = 1 << 10 }, client.ErrInvalid, false},
		"too dear":         {"berlin", func(_ *desk, r *client.Reseal, _ *secret.Key) { r.Params.MemoryKiB = 1 << 30 }, client.ErrInvalid, false},
		"a short salt":     {"berlin", func(_ *desk, r *client.Reseal, _ *secret.Key) { r.Params.Salt = r.Params.Salt[:8] }, client.ErrInvalid, false},
		"a short verifier": {"berlin", func(_ *desk, r *client.Reseal, _ *secret.Key) { r.Verifier = r.Verifier[1:] }, client.ErrInvalid, false},
		"no keys":          {"berlin", func(_ *desk, r *client.Reseal, _ *secret.Key) { r.Sealed = nil }, client.ErrInvalid, false},
		"endless keys":     {"berlin", func(_ *desk, r *client.Reseal, _ *secret.Key) { r.Sealed = make([]byte, 4000) }, client.ErrInvalid, false},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			d.Guard = access.New(d.reg, d.company.Anchors, access.Policy{Lockout: lockout.Default(), Least: least})
			r, auth := d.another("alice", "a new password"), d.users["alice"].Auth
			c.spoil(d, &r, &auth)
			denied := len(d.audit(store.AuditDenied))
			err := d.Reseal(t.Context(), caller(c.router), r, auth)
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if counted := len(d.audit(store.AuditDenied)) > denied; counted != c.counts {
				t.Errorf("counted as a failed login: %v", counted)
			}
			if len(d.audit(store.AuditPassword)) > 0 {
				t.Error("there is a record of a change")
			}
			if name == "disabled" || name == "revoked" {
				return
			}
			if err := d.login("paris", "alice", "password of alice"); err != nil {
				t.Errorf("the old password afterwards: %v", err)
			}
		})
	}
}

// Bob is not in the scope of berlin, which may not change his password even if it knows it.
func TestResealOutOfScope(t *testing.T) {
	d := newDesk(t)
	r := d.another("bob", "a new password")
	if err := d.Reseal(t.Context(), caller("berlin"), r, d.users["bob"].Auth); err == nil || err.Error() != "denied: no such user, or a wrong password" {
		t.Errorf("got %v", err)
	}
	if err := d.login("paris", "bob", "password of bob"); err != nil {
		t.Error(err)
	}
}

// Guessing at the old password by changes counts with guessing at logins.
func TestResealLocks(t *testing.T) {
	d := newDesk(t)
	r := d.another("alice", "a new password")
	d.wrong(9, "berlin", "alice")
	if err := d.Reseal(t.Context(), caller("berlin"), r, secret.New(make([]byte, 32))); !errors.Is(err, client.ErrDenied) {
		t.Fatal(err)
	}
	d.locked("berlin", "alice", time.Minute)
	if err := d.Reseal(t.Context(), caller("berlin"), r, d.users["alice"].Auth); !errors.Is(err, client.ErrLocked) {
		t.Errorf("with the right one while locked: %v", err)
	}
}

// What this directory asks for at least goes for passwords that users choose.
func TestResealNoWeakerThanConfigured(t *testing.T) {
	d := newDesk(t)
	usual, err := keybundle.DefaultParams(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	d.Guard = access.New(d.reg, d.company.Anchors, access.Policy{Lockout: lockout.Default(), Least: usual})
	r := d.another("alice", "a new password")
	if err := d.Reseal(t.Context(), caller("berlin"), r, d.users["alice"].Auth); !errors.Is(err, client.ErrInvalid) || !strings.Contains(err.Error(), "less than the 3 over 65536 KiB") {
		t.Errorf("got %v", err)
	}
	r.Params.Time, r.Params.MemoryKiB = usual.Time, usual.MemoryKiB // whether it opens is not the directory's to see
	if err := d.Reseal(t.Context(), caller("berlin"), r, d.users["alice"].Auth); err != nil {
		t.Errorf("as dear as asked for: %v", err)
	}
}
