package access_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"twinkey/directory/client"
	"twinkey/directory/internal/access"
	"twinkey/directory/internal/store"
	"twinkey/directory/internal/store/boltstore"
	"twinkey/directory/internal/store/storetest"
	"twinkey/pkg/keybundle"
	"twinkey/pkg/lockout"
	"twinkey/pkg/twincert"
	"twinkey/proto/secret"
)

// desk is a guard over a register, with a clock that is moved by hand: routers berlin
// (scope group:staff and user:carol) and paris (scope *); users alice (staff), bob
// (sales), carol (sales).
type desk struct {
	*access.Guard
	t             *testing.T
	path          string
	db            *boltstore.Store
	reg           *store.Register
	now           time.Time
	company       *storetest.Company
	berlin, paris storetest.Router
	users         map[string]storetest.User
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	d := &desk{t: t, path: filepath.Join(t.TempDir(), "directory.db"), now: time.Now(), users: make(map[string]storetest.User)}
	d.company = storetest.NewCompany(t, d.now)
	d.start()
	d.berlin = d.company.NewRouter("berlin", []string{"group:staff", "user:carol"}, "10.1.0.0/16")
	d.paris = d.company.NewRouter("paris", []string{"*"}, "10.2.0.0/16")
	d.apply(d.berlin.Change(), d.paris.Change())
	for uid, group := range map[string]string{"alice": "staff", "bob": "sales", "carol": "sales"} {
		d.users[uid] = d.company.NewUser(uid, group, "password of "+uid)
		d.apply(d.users[uid].Change())
	}
	return d
}

// start opens the database; again after stop: a restart.
func (d *desk) start() {
	d.t.Helper()
	var err error
	if d.db, err = boltstore.Open(d.path); err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = d.db.Close() })
	if d.reg, err = store.Open(d.t.Context(), d.db, func() time.Time { return d.now }); err != nil {
		d.t.Fatal(err)
	}
	d.Guard = access.New(d.reg, d.company.Anchors, access.Policy{Lockout: lockout.Default()})
}

func (d *desk) stop() {
	d.t.Helper()
	if err := d.db.Close(); err != nil {
		d.t.Fatal(err)
	}
}

func (d *desk) apply(cs ...client.Change) {
	d.t.Helper()
	for _, c := range cs {
		if _, err := d.reg.Apply(d.t.Context(), "twinkey://ca", c); err != nil {
			d.t.Fatal(err)
		}
	}
}

func caller(router string) access.Caller {
	return access.Caller{URI: "twinkey://router/" + router, Router: router}
}

// release asks for uid's keys with uid's own password, or with a wrong one.
func (d *desk) release(router, uid string, right bool) error {
	d.t.Helper()
	auth := d.users[uid].Auth
	if !right || auth.Len() == 0 {
		auth = secret.New(make([]byte, 32))
	}
	_, err := d.Release(d.t.Context(), caller(router), uid, auth)
	return err
}

func (d *desk) wrong(n int, router, uid string) {
	d.t.Helper()
	for i := range n {
		if err := d.release(router, uid, false); !errors.Is(err, client.ErrDenied) {
			d.t.Fatalf("wrong password %d of %d for %s: %v", i+1, n, uid, err)
		}
	}
}

func (d *desk) locked(router, uid string, want time.Duration) {
	d.t.Helper()
	err := d.release(router, uid, true)
	l, ok := errors.AsType[*access.LockedError](err)
	if !ok || l.RetryAfter != want {
		d.t.Errorf("%s at %s: %v (%+v), want locked for %s", uid, router, err, l, want)
	}
}

func TestReleaseOpensWithThePassword(t *testing.T) {
	d := newDesk(t)
	p, err := d.LoginParams(t.Context(), caller("berlin"), "alice")
	if err != nil {
		t.Fatal(err)
	}
	proof, err := keybundle.Derive([]byte("password of alice"), p.Params)
	if err != nil {
		t.Fatal(err)
	}
	r, err := d.Release(t.Context(), caller("berlin"), "alice", proof.Auth)
	if err != nil {
		t.Fatal(err)
	}
	k, err := keybundle.Open(r.Sealed, proof.Seal, r.Certificate)
	if err != nil || k.Control.Len() != 32 || k.Data.Len() != 32 || r.Group != "staff" {
		t.Errorf("%v, group %q", err, r.Group)
	}
}

// Whatever the reason, a router that may not have the keys hears the same words.
func TestEveryRefusalIsTheSame(t *testing.T) {
	for name, c := range map[string]struct {
		uid     string
		prepare func(d *desk)
		cause   string // in the audit record alone
	}{
		"nobody":         {"nobody", nil, "no such user"},
		"out of scope":   {"bob", nil, "no such user"},
		"wrong password": {"alice", func(d *desk) { delete(d.users, "alice") }, "wrong password"},
		"disabled": {"alice", func(d *desk) {
			u := d.users["alice"].Change().Users[0]
			u.Disabled = true
			d.apply(client.Change{ChangeID: "disable", Users: []client.UserRecord{u}})
		}, "disabled"},
		"keys of their own": {"erin", func(d *desk) {
			d.apply(client.Change{ChangeID: "own", Users: []client.UserRecord{{UID: "erin", Group: "staff", Own: true}}})
		}, "keys of their own"},
		"revoked": {"alice", func(d *desk) { d.apply(d.company.Revoke("alice", twincert.User, d.users["alice"].Twin.ID())) }, "no keys, or they were revoked"},
		"expired": {"dave", func(d *desk) {
			d.users["dave"] = d.company.NewUserUntil("dave", "staff", "x", d.now.Add(time.Minute))
			d.apply(d.users["dave"].Change())
			d.now = d.now.Add(time.Hour)
		}, "expired"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			if c.prepare != nil {
				c.prepare(d)
			}
			err := d.release("berlin", c.uid, true)
			if err == nil || err.Error() != "denied: no such user, or a wrong password" {
				t.Errorf("got %v", err)
			}
			var last store.AuditRecord
			if err := d.reg.Read(t.Context(), func(r *store.Reader) error {
				for a, err := range r.Audit(store.AuditQuery{Kind: store.AuditDenied}) {
					if err != nil {
						return err
					}
					last = a
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if last.Subject != c.uid || !strings.Contains(last.Detail, c.cause) || last.Actor != "twinkey://router/berlin" {
				t.Errorf("audit record %+v", last)
			}
		})
	}
}

func TestParamsOfNobody(t *testing.T) {
	d := newDesk(t)
	ask := func(uid string) keybundle.Params {
		p, err := d.LoginParams(t.Context(), caller("berlin"), uid)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Check(); err != nil {
			t.Errorf("params of %s: %v", uid, err)
		}
		if p.AskCA {
			t.Errorf("the CA is to be asked about %s, and has no sources", uid)
		}
		return p.Params
	}
	real, nobody, outOfScope, fake := ask("alice"), ask("nobody"), ask("bob"), ask("erin")
	d.apply(client.Change{ChangeID: "own", Users: []client.UserRecord{{UID: "erin", Group: "staff", Own: true}}})
	if own := ask("erin"); !slices.Equal(own.Salt, fake.Salt) || own.MemoryKiB != fake.MemoryKiB {
		t.Error("somebody whose keys are not here can be told from nobody")
	}
	if !slices.Equal(real.Salt, d.users["alice"].Params.Salt) {
		t.Error("alice has another salt")
	}
	if len(nobody.Salt) != len(real.Salt) || slices.Equal(nobody.Salt, outOfScope.Salt) || slices.Equal(outOfScope.Salt, d.users["bob"].Params.Salt) {
		t.Errorf("salts of nobody %x and of bob %x", nobody.Salt, outOfScope.Salt)
	}
	d.stop()
	d.start()
	if again := ask("nobody"); !slices.Equal(again.Salt, nobody.Salt) {
		t.Error("the fake salt changed with a restart")
	}
	for _, uid := range []string{"", "A", "../x", strings.Repeat("a", 64)} {
		if _, err := d.LoginParams(t.Context(), caller("berlin"), uid); !errors.Is(err, client.ErrInvalid) {
			t.Errorf("uid %q: %v", uid, err)
		}
	}
}

func TestLockOutlivesARestart(t *testing.T) {
	d := newDesk(t)
	d.wrong(10, "berlin", "alice")
	d.locked("berlin", "alice", time.Minute)
	d.locked("paris", "alice", time.Minute) // whichever router asks
	if err := d.release("berlin", "carol", true); err != nil {
		t.Errorf("another user: %v", err)
	}
	d.stop()
	d.start()
	d.locked("berlin", "alice", time.Minute)
	d.now = d.now.Add(time.Minute)
	if err := d.release("berlin", "alice", true); err != nil {
		t.Errorf("after the lock: %v", err)
	}
	d.wrong(10, "berlin", "alice") // a right password cleared the count and the doubling
	d.locked("berlin", "alice", time.Minute)
}

// Nobody and somebody lock alike, and a router cannot lock out users whom it may not ask
// for.
func TestLockTellsNothing(t *testing.T) {
	d := newDesk(t)
	for _, uid := range []string{"nobody", "bob"} {
		d.wrong(10, "berlin", uid)
		d.locked("berlin", uid, time.Minute)
	}
	if err := d.release("paris", "bob", true); err != nil {
		t.Errorf("bob at a router that may ask for him: %v", err)
	}
}

func TestARouterThatGuessesManyUsersLocks(t *testing.T) {
	d := newDesk(t)
	for i := range 100 {
		d.wrong(1, "berlin", "guess"+strings.Repeat("x", i%10)+string(rune('a'+i/10)))
	}
	d.locked("berlin", "alice", time.Minute)
	if err := d.release("paris", "alice", true); err != nil {
		t.Errorf("the same user elsewhere: %v", err)
	}
}

func TestManyTriesAtOnceGiveNoMore(t *testing.T) {
	d := newDesk(t)
	var denied, locked atomic.Int32
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			_, err := d.Release(context.Background(), caller("berlin"), "alice", secret.New(make([]byte, 32)))
			switch {
			case errors.Is(err, client.ErrLocked):
				locked.Add(1)
			case errors.Is(err, client.ErrDenied):
				denied.Add(1)
			}
		})
	}
	wg.Wait()
	if denied.Load() != 10 || locked.Load() != 40 {
		t.Errorf("%d tries were answered, %d locked", denied.Load(), locked.Load())
	}
}

func TestClockGoesBackDuringALock(t *testing.T) {
	d := newDesk(t)
	d.now = d.now.Add(6 * time.Hour)
	d.wrong(10, "berlin", "alice")
	d.now = d.now.Add(-5 * time.Hour)
	d.locked("berlin", "alice", time.Minute)
	d.now = d.now.Add(30 * time.Second)
	d.locked("berlin", "alice", 30*time.Second)
	d.now = d.now.Add(30 * time.Second)
	if err := d.release("berlin", "alice", true); err != nil {
		t.Errorf("after the lock: %v", err)
	}
}

// A clock outside the certificates' life releases nothing and says that the router's
// certificate is the reason; put right, all is as before.
func TestClockOutsideTheCertificates(t *testing.T) {
	d := newDesk(t)
	now := d.now
	for jump, want := range map[time.Duration]string{100 * 24 * time.Hour: "expired", -time.Hour / 2: "not valid yet"} {
		d.now = now.Add(jump)
		if err := d.release("berlin", "alice", true); !errors.Is(err, client.ErrDenied) || !strings.Contains(err.Error(), "router berlin: "+want) {
			t.Errorf("clock moved by %s: %v", jump, err)
		}
	}
	d.now = now
	if err := d.release("berlin", "alice", true); err != nil {
		t.Error(err)
	}
}

func TestWhoMayDoWhat(t *testing.T) {
	d := newDesk(t)
	gone := d.company.NewRouter("gone", []string{"*"}, "10.3.0.0/16")
	d.apply(gone.Change(), d.company.Revoke("gone", twincert.Router, gone.Twin.ID()))
	leaf := func(uri string) *x509.Certificate { return d.company.TLS(uri).Leaf }
	revoked := leaf("twinkey://router/berlin")
	revokedCA := leaf("twinkey://ca")
	d.apply(d.company.Revoke("berlin", twincert.Router, twincert.IDOf(revoked), twincert.IDOf(revokedCA)))
	for _, c := range []struct {
		name string
		leaf *x509.Certificate
		may  []access.Right
	}{
		{"the CA", leaf("twinkey://ca"), []access.Right{access.Read, access.Change}},
		{"the CA with a revoked certificate", revokedCA, nil},
		{"a router", leaf("twinkey://router/berlin"), []access.Right{access.Read, access.Own}},
		{"a router with a revoked TLS certificate", revoked, nil},
		{"a router with a revoked twin certificate", leaf("twinkey://router/gone"), nil},
		{"a router that nobody knows", leaf("twinkey://router/rome"), nil},
		{"an operator", leaf("twinkey://operator/olga"), nil},
		{"another directory", leaf("twinkey://directory"), nil},
	} {
		who, err := access.Who(&tls.ConnectionState{PeerCertificates: []*x509.Certificate{c.leaf}, VerifiedChains: [][]*x509.Certificate{{c.leaf}}})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		for _, right := range []access.Right{access.Read, access.Change, access.Own} {
			err := d.Admit(t.Context(), who, right)
			if may := slices.Contains(c.may, right); may && err != nil || !may && !errors.Is(err, client.ErrDenied) {
				t.Errorf("%s, right %d: %v", c.name, right, err)
			}
		}
	}
	berlin := leaf("twinkey://router/berlin")
	for name, cs := range map[string]*tls.ConnectionState{
		"no TLS":          nil,
		"no certificate":  {},
		"not verified":    {PeerCertificates: []*x509.Certificate{berlin}},
		"no URI":          {PeerCertificates: []*x509.Certificate{d.company.Intermediate}, VerifiedChains: [][]*x509.Certificate{{d.company.Intermediate}}},
		"impossible name": {PeerCertificates: []*x509.Certificate{leaf("twinkey://router/A%2F")}, VerifiedChains: [][]*x509.Certificate{{berlin}}},
	} {
		if who, err := access.Who(cs); !errors.Is(err, client.ErrDenied) {
			t.Errorf("%s: %+v, %v", name, who, err)
		}
	}
}

// A forged certificate in the register (somebody with the CA's TLS key but not its
// signing key) widens nobody's scope.
func TestScopeOfAForgedCertificate(t *testing.T) {
	d := newDesk(t)
	forger := storetest.NewCompany(t, d.now)
	for range 20 { // numbers that are taken would be a conflict
		forger.TLS("twinkey://ca")
	}
	d.apply(forger.NewRouter("mallory", []string{"*"}, "10.9.0.0/16").Change())
	err := d.release("mallory", "alice", true)
	if !errors.Is(err, client.ErrDenied) || !strings.Contains(err.Error(), "authority that we do not know") {
		t.Errorf("got %v", err)
	}
	if _, err := d.LoginParams(t.Context(), caller("mallory"), "alice"); !errors.Is(err, client.ErrDenied) {
		t.Errorf("got %v", err)
	}
}

func TestVisible(t *testing.T) {
	d := newDesk(t)
	notice := func(role twincert.Role, name, group string) client.Event {
		return client.Event{Kind: client.KindCertificate, Certificate: &client.Notice{Role: role, Name: name, Group: group}}
	}
	events := map[string]client.Event{"alice": notice(twincert.User, "alice", "staff"), "bob": notice(twincert.User, "bob", "sales"), "carol": notice(twincert.User, "carol", "sales"),
		"router": notice(twincert.Router, "rome", ""), "revoked": {Kind: client.KindRevoked, Revoked: &client.Revocation{Name: "bob"}}}
	for _, c := range []struct {
		who    access.Caller
		hidden []string
	}{{access.Caller{URI: "twinkey://ca"}, nil}, {caller("paris"), nil}, {caller("berlin"), []string{"bob"}}, {caller("unknown"), []string{"alice", "bob", "carol"}}} {
		visible, err := d.Visible(t.Context(), c.who)
		if err != nil {
			t.Fatal(err)
		}
		for name, e := range events {
			if visible(e) == slices.Contains(c.hidden, name) {
				t.Errorf("%s sees %s: %v", c.who.URI, name, visible(e))
			}
		}
	}
}
