package store_test

import (
	"bytes"
	"context"
	"errors"
	"math/big"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"twinkey/directory/client"
	"twinkey/directory/internal/store"
	"twinkey/directory/internal/store/boltstore"
	"twinkey/directory/internal/store/storetest"
	"twinkey/pkg/twincert"
)

const ca = "twinkey://ca"

// book is a register with a clock that is moved by hand.
type book struct {
	*store.Register
	t       *testing.T
	now     time.Time
	company *storetest.Company
}

func newBook(t *testing.T) *book {
	t.Helper()
	s, err := boltstore.Open(filepath.Join(t.TempDir(), "directory.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	b := &book{t: t, now: time.Now()}
	b.company = storetest.NewCompany(t, b.now)
	if b.Register, err = store.Open(t.Context(), s, func() time.Time { return b.now }); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *book) apply(cs ...client.Change) {
	b.t.Helper()
	for _, c := range cs {
		if _, err := b.Apply(b.t.Context(), ca, c); err != nil {
			b.t.Fatal(err)
		}
	}
}

func (b *book) refuses(c client.Change, want error, words string) {
	b.t.Helper()
	before := b.audit(store.AuditQuery{})
	_, err := b.Apply(b.t.Context(), ca, c)
	if !errors.Is(err, want) || !strings.Contains(err.Error(), words) {
		b.t.Errorf("got %v, want %v: ...%s...", err, want, words)
	}
	if after := b.audit(store.AuditQuery{}); len(after) != len(before) {
		b.t.Errorf("a refused change left %d audit records", len(after)-len(before))
	}
}

func (b *book) read(f func(*store.Reader) error) {
	b.t.Helper()
	if err := b.Read(b.t.Context(), f); err != nil {
		b.t.Fatal(err)
	}
}

func (b *book) revision() (rev client.Revision) {
	b.t.Helper()
	b.read(func(r *store.Reader) (err error) { rev, err = r.Revision(); return err })
	return rev
}

func (b *book) sites() (s []client.Site) {
	b.t.Helper()
	b.read(func(r *store.Reader) (err error) { s, err = r.Sites(); return err })
	return s
}

func (b *book) audit(q store.AuditQuery) (out []string) {
	b.t.Helper()
	b.read(func(r *store.Reader) error {
		for a, err := range r.Audit(q) {
			if err != nil {
				return err
			}
			out = append(out, a.Kind+" "+a.Subject)
		}
		return nil
	})
	return out
}

// events are "revision kind subject", and "+" where more of the revision follow.
func (b *book) events(since client.Revision, limit int) (out []string, known bool) {
	b.t.Helper()
	b.read(func(r *store.Reader) error {
		es, _, ok, err := r.Events(since, limit)
		known = ok
		for _, e := range es {
			s := big.NewInt(int64(e.Revision)).String() + " " + string(e.Kind) //nolint:gosec // small
			switch {
			case e.Site != nil:
				s += " " + e.Site.Name
			case e.Revoked != nil:
				s += " " + e.Revoked.Name
			case e.Certificate != nil:
				s += " " + e.Certificate.Name
			}
			if e.More {
				s += " +"
			}
			out = append(out, s)
		}
		return err
	})
	return out, known
}

func TestAChangeHappensOnce(t *testing.T) {
	b := newBook(t)
	r := b.company.NewRouter("berlin", []string{"group:staff"}, "10.1.0.0/16")
	c := r.Change()
	for range 3 {
		rev, err := b.Apply(t.Context(), ca, c)
		if err != nil || rev != 1 {
			t.Fatalf("revision %d, %v", rev, err)
		}
	}
	if rev, ok, err := b.Applied(t.Context(), c.ChangeID); rev != 1 || !ok || err != nil {
		t.Errorf("Applied: %d %v %v", rev, ok, err)
	}
	if _, ok, _ := b.Applied(t.Context(), "other"); ok {
		t.Error("a change that nobody made was applied")
	}
	c.Actor = "somebody else"
	b.refuses(c, client.ErrConflict, "other content")
	if got := b.revision(); got != 1 {
		t.Errorf("revision %d", got)
	}
	want := []string{"certificate berlin", "router berlin"}
	if got := b.audit(store.AuditQuery{}); !slices.Equal(got, want) {
		t.Errorf("audit %q, want %q", got, want)
	}
}

// Each row is a change of a user or router, spoilt in one place.
func TestWhatIsNotStored(t *testing.T) {
	b := newBook(t)
	other := b.company.NewRouter("paris", []string{"*"}, "10.2.0.0/16")
	stranger := b.company.NewUser("eve", "sales", "x")
	for _, c := range []struct {
		name  string
		spoil func(c *client.Change)
		want  error
		words string
	}{
		{"no change id", func(c *client.Change) { c.ChangeID = "" }, client.ErrInvalid, "change_id"},
		{"change id that is no text", func(c *client.Change) { c.ChangeID = "a\nb" }, client.ErrInvalid, "change_id"},
		{"long actor", func(c *client.Change) { c.Actor = strings.Repeat("x", 1000) }, client.ErrInvalid, "actor"},
		{"certificate under another number", func(c *client.Change) { c.Certificates[0].ID.Serial = "999" }, client.ErrInvalid, "is in fact"},
		{"certificate of another kind", func(c *client.Change) { c.Certificates[0].Kind = "ssh" }, client.ErrInvalid, "neither"},
		{"twin certificate as TLS", func(c *client.Change) { c.Certificates[0].Kind = client.KindTLS }, client.ErrInvalid, ""},
		{"TLS certificate as twin", func(c *client.Change) {
			l := b.company.TLS("twinkey://router/berlin").Leaf
			c.Certificates[0] = client.CertRecord{ID: twincert.IDOf(l), DER: l.Raw, Kind: client.KindTwin}
		}, client.ErrInvalid, ""},
		{"certificate with a byte behind it", func(c *client.Change) {
			c.Certificates[0].DER = append(bytes.Clone(c.Certificates[0].DER), 0)
		}, client.ErrInvalid, "certificate"},
		{"bad name", func(c *client.Change) { c.Users[0].UID = "Alice Smith" }, client.ErrInvalid, "user"},
		{"cheap password", func(c *client.Change) { c.Users[0].Params.MemoryKiB = 1 }, client.ErrInvalid, "alice"},
		{"dear password", func(c *client.Change) { c.Users[0].Params.MemoryKiB = 100 << 20 }, client.ErrInvalid, "alice"},
		{"no verifier", func(c *client.Change) { c.Users[0].Verifier = nil }, client.ErrInvalid, "verifier"},
		{"password of somebody whose keys are elsewhere", func(c *client.Change) { c.Users[0].Own = true }, client.ErrInvalid, "whose keys are not here"},
		{"sealed keys of somebody whose keys are elsewhere", func(c *client.Change) {
			c.Users[0] = client.UserRecord{UID: "alice", Group: "staff", Own: true}
		}, client.ErrConflict, "keys of their own"},
		{"no sealed keys", func(c *client.Change) { c.Bundles[0].Sealed = nil }, client.ErrInvalid, "bundle"},
		{"endless sealed keys", func(c *client.Change) { c.Bundles[0].Sealed = make([]byte, 1<<20) }, client.ErrInvalid, "bundle"},
		{"short group key", func(c *client.Change) { c.Groups[0].Control = []byte{1} }, client.ErrInvalid, "control key"},
		{"another group key", func(c *client.Change) { c.Groups[0].Control = bytes.Repeat([]byte{9}, 32) }, client.ErrConflict, "control key is not that of group"},
		{"no group", func(c *client.Change) { c.Groups = nil }, client.ErrConflict, "staff is not known"},
		{"user of another group than the certificate's", func(c *client.Change) { c.Users[0].Group = "" }, client.ErrConflict, "says group"},
		{"keys without certificate", func(c *client.Change) { c.Certificates = nil }, client.ErrConflict, "not known"},
		{"keys without user", func(c *client.Change) { c.Users = nil }, client.ErrConflict, "not known"},
		{"keys of another's certificate", func(c *client.Change) {
			c.Certificates = append(c.Certificates, stranger.Change().Certificates...)
			c.Bundles[0].ID = stranger.Twin.ID()
		}, client.ErrConflict, "no twin certificate of user alice"},
		{"router with a user's certificate", func(c *client.Change) {
			c.Routers = []client.RouterRecord{{Name: "alice", ID: c.Bundles[0].ID}}
		}, client.ErrConflict, "no twin certificate of router"},
		{"router with another's certificate", func(c *client.Change) {
			c.Certificates = append(c.Certificates, other.Change().Certificates...)
			c.Routers = []client.RouterRecord{{Name: "berlin", ID: other.Twin.ID()}}
		}, client.ErrConflict, "no twin certificate of router berlin"},
		{"a login closed of nobody", func(c *client.Change) { c.Disable = []string{"A b"} }, client.ErrInvalid, "user"},
		{"revocation of nothing", func(c *client.Change) { c.Revocations = []client.Revocation{{Name: "x"}} }, client.ErrInvalid, "revocation"},
		{"CRL that is none", func(c *client.Change) { c.CRL = []byte("x") }, client.ErrInvalid, "CRL"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ch := b.company.NewUser("alice", "staff", "secret").Change()
			c.spoil(&ch)
			b.refuses(ch, c.want, c.words)
		})
	}
	if got := b.revision(); got != 0 {
		t.Errorf("revision %d after nothing but refusals", got)
	}
}

// Somebody who has keys of their own from now on leaves none here.
func TestOwnKeysLeaveNoneHere(t *testing.T) {
	b := newBook(t)
	alice := b.company.NewUser("alice", "staff", "secret")
	b.apply(alice.Change(), client.Change{ChangeID: "own", Users: []client.UserRecord{{UID: "alice", Group: "staff", Own: true}}})
	b.read(func(r *store.Reader) error {
		_, sealed, err := r.Bundle("alice")
		u, ok, uerr := r.User("alice")
		if err != nil || uerr != nil || sealed || !ok || !u.Own || len(u.Verifier) > 0 {
			t.Errorf("sealed keys: %v, %+v, %v %v", sealed, u, err, uerr)
		}
		return nil
	})
}

// A closed login keeps all else that is known of the user: the password above all, which only the directory knows.
func TestDisable(t *testing.T) {
	b := newBook(t)
	alice := b.company.NewUser("alice", "staff", "secret")
	b.apply(alice.Change(), client.Change{ChangeID: "close", Disable: []string{"alice", "nobody"}})
	b.read(func(r *store.Reader) error {
		was := alice.Change().Users[0]
		u, ok, err := r.User("alice")
		if err != nil || !ok || !u.Disabled || !bytes.Equal(u.Verifier, was.Verifier) || !bytes.Equal(u.Params.Salt, was.Params.Salt) || u.Group != "staff" {
			t.Errorf("%+v, %v", u, err)
		}
		if _, ok, err := r.User("nobody"); ok || err != nil {
			t.Errorf("nobody is known now: %v", err)
		}
		return nil
	})
	if got := b.audit(store.AuditQuery{Kind: store.AuditUser}); !slices.Equal(got, []string{"user alice", "user alice"}) {
		t.Errorf("audit %q", got)
	}
	b.apply(client.Change{ChangeID: "close again", Disable: []string{"alice"}})
	if got := b.audit(store.AuditQuery{Kind: store.AuditUser}); len(got) != 2 {
		t.Errorf("closing twice: audit %q", got)
	}
}

func TestRevocationTakesTheKeysAway(t *testing.T) {
	b := newBook(t)
	alice := b.company.NewUser("alice", "staff", "secret")
	router := b.company.NewRouter("berlin", []string{"*"}, "10.1.0.0/16")
	b.apply(alice.Change(), router.Change())
	b.apply(b.company.Revoke("alice", twincert.User, alice.Twin.ID()), b.company.Revoke("berlin", twincert.Router, router.Twin.ID()))
	b.read(func(r *store.Reader) error {
		if _, ok, err := r.Bundle("alice"); ok || err != nil {
			t.Errorf("the sealed keys are still there: %v %v", ok, err)
		}
		if !r.Revoked(alice.Twin.ID()) || r.Revoked(twincert.ID{Issuer: alice.Twin.ID().Issuer, Serial: "99"}) {
			t.Error("Revoked")
		}
		return nil
	})
	if s := b.sites(); len(s) != 0 {
		t.Errorf("site of a revoked router: %v", s)
	}
	again := alice.Change()
	again.ChangeID = "again"
	b.refuses(again, client.ErrConflict, "revoked")
	again = router.Change()
	again.ChangeID = "again"
	b.refuses(again, client.ErrConflict, "revoked")

	// A revocation that is told twice happens once.
	n := len(b.audit(store.AuditQuery{Kind: store.AuditRevoked}))
	b.apply(b.company.Revoke("alice", twincert.User, alice.Twin.ID()))
	if got := len(b.audit(store.AuditQuery{Kind: store.AuditRevoked})); got != n {
		t.Errorf("%d audit records of %d revocations", got, n)
	}
	// Within one change revocation wins over whatever the change adds.
	both := b.company.NewUser("bob", "staff", "x").Change()
	both.Revocations = []client.Revocation{{ID: both.Certificates[0].ID, Name: "bob", Role: twincert.User, Time: b.now.UTC()}}
	b.apply(both)
	b.read(func(r *store.Reader) error {
		if _, ok, _ := r.Bundle("bob"); ok {
			t.Error("bob's keys outlived their revocation")
		}
		return nil
	})
}

func TestCRL(t *testing.T) {
	b := newBook(t)
	alice := b.company.NewUser("alice", "staff", "secret")
	b.apply(alice.Change())
	older, newer := b.company.CRL(), b.company.CRL(alice.Twin.Serial, big.NewInt(4711))
	b.apply(client.Change{ChangeID: "newer", CRL: newer}, client.Change{ChangeID: "older", CRL: older})
	b.read(func(r *store.Reader) error {
		if !bytes.Equal(r.CRL(), newer) {
			t.Error("an older CRL took the place of a newer one")
		}
		if _, ok, _ := r.Bundle("alice"); ok || !r.Revoked(alice.Twin.ID()) {
			t.Error("what the CRL lists is not revoked")
		}
		revs, err := r.Revocations()
		if len(revs) != 2 {
			t.Errorf("%d revocations", len(revs))
		}
		return err
	})
	want := []string{"2 revoked alice +", "2 revoked  +", "2 crl"}
	if got, _ := b.events(1, 10); !slices.Equal(got, want) {
		t.Errorf("events %q, want %q", got, want)
	}
}

func trust(*twincert.Certificate, twincert.Role, func(twincert.ID) bool) error { return nil }

func TestAnnounce(t *testing.T) {
	b := newBook(t)
	r := b.company.NewRouter("berlin", []string{"*"}, "10.1.0.0/16", "fd01::/48")
	b.apply(r.Change())
	announce := func(endpoint string, prefixes ...string) error {
		var ps []netip.Prefix
		for _, p := range prefixes {
			ps = append(ps, netip.MustParsePrefix(p))
		}
		return b.Announce(t.Context(), "twinkey://router/berlin", "berlin", endpoint, ps, trust)
	}
	if err := announce("192.0.2.1:1701", "fd01::/64", "10.1.2.0/24", "10.1.0.0/24", "10.1.2.0/24"); err != nil {
		t.Fatal(err)
	}
	want := []client.Site{{Name: "berlin", Endpoint: "192.0.2.1:1701", Certificate: r.Twin.Raw, ID: r.Twin.ID(), Updated: b.now,
		Prefixes: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24"), netip.MustParsePrefix("10.1.2.0/24"), netip.MustParsePrefix("fd01::/64")}}}
	if diff := cmp.Diff(want, b.sites(), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmp.Comparer(time.Time.Equal)); diff != "" {
		t.Error(diff)
	}
	if err := announce("192.0.2.1:1701", "10.1.0.0/24", "10.1.2.0/24", "fd01::/64"); err != nil || b.revision() != 2 {
		t.Errorf("the same again made revision %d, %v", b.revision(), err)
	}
	for _, c := range []struct {
		endpoint, prefix string
		want             error
	}{
		{"192.0.2.1:1701", "10.2.0.0/24", client.ErrDenied},
		{"192.0.2.1:1701", "10.0.0.0/8", client.ErrDenied}, // more than the certificate has
		{"192.0.2.1:1701", "0.0.0.0/0", client.ErrDenied},
		{"192.0.2.1:1701", "10.1.2.3/24", client.ErrInvalid},
		{"192.0.2.1:1701", "::ffff:10.1.0.0/120", client.ErrInvalid},
		{"192.0.2.1", "10.1.0.0/24", client.ErrInvalid},
		{"192.0.2.1:0", "10.1.0.0/24", client.ErrInvalid},
		{"0.0.0.0:1701", "10.1.0.0/24", client.ErrInvalid},
		{"[::]:1701", "10.1.0.0/24", client.ErrInvalid},
		{"224.0.0.1:1701", "10.1.0.0/24", client.ErrInvalid},
		{"[fe80::1%eth0]:1701", "10.1.0.0/24", client.ErrInvalid},
		{"example.org:1701", "10.1.0.0/24", client.ErrInvalid},
	} {
		if err := announce(c.endpoint, c.prefix); !errors.Is(err, c.want) {
			t.Errorf("%s behind %s: %v, want %v", c.prefix, c.endpoint, err, c.want)
		}
	}
	if err := b.Announce(t.Context(), "x", "paris", "", nil, trust); !errors.Is(err, client.ErrDenied) {
		t.Errorf("a router that nobody knows: %v", err)
	}

	// A new certificate that covers less withdraws the rest.
	less := b.company.NewRouter("berlin", []string{"*"}, "10.1.2.0/24")
	b.apply(less.Change())
	s := b.sites()
	if len(s) != 1 || s[0].ID != less.Twin.ID() || !slices.Equal(s[0].Prefixes, []netip.Prefix{netip.MustParsePrefix("10.1.2.0/24")}) || s[0].Endpoint != "192.0.2.1:1701" {
		t.Errorf("after the new certificate: %+v", s)
	}
}

func TestEventsAreKeptByRevision(t *testing.T) {
	b := newBook(t)
	b.apply(b.company.NewRouter("berlin", nil, "10.1.0.0/16").Change(), b.company.NewRouter("paris", nil, "10.2.0.0/16").Change())
	all := []string{"1 certificate berlin +", "1 site berlin", "2 certificate paris +", "2 site paris"}
	for since, want := range map[client.Revision][]string{0: all, 1: all[2:], 2: nil} {
		if got, known := b.events(since, 100); !known || !slices.Equal(got, want) {
			t.Errorf("since %d: %q %v", since, got, known)
		}
	}
	if got, _ := b.events(0, 1); !slices.Equal(got, all[:2]) {
		t.Errorf("a revision was cut in two: %q", got)
	}
	if _, known := b.events(3, 1); known {
		t.Error("a future is known")
	}
}

func TestOldEventsAreForgotten(t *testing.T) {
	b := newBook(t)
	for range 3 {
		b.apply(client.Change{ChangeID: b.company.Revoke("", 0).ChangeID, CRL: b.company.CRL()})
	}
	var serials []*big.Int
	for n := range int64(2000) { // more than one revision may have
		serials = append(serials, big.NewInt(100_000+n))
	}
	b.apply(client.Change{ChangeID: "huge", CRL: b.company.CRL(serials...)})
	for since := range client.Revision(4) {
		if _, known := b.events(since, 1); known {
			t.Errorf("since %d is known still", since)
		}
	}
	if got, known := b.events(4, 1); !known || got != nil {
		t.Errorf("since 4: %q %v", got, known)
	}
	b.apply(client.Change{ChangeID: "next", CRL: b.company.CRL()})
	if got, known := b.events(4, 9); !known || !slices.Equal(got, []string{"5 crl"}) {
		t.Errorf("since 4: %q %v", got, known)
	}
}

func TestSupersede(t *testing.T) {
	old, fresh := newBook(t), newBook(t)
	fresh.company = old.company
	alice, bob := old.company.NewUser("alice", "staff", "a"), old.company.NewUser("bob", "staff", "b")
	changes := []client.Change{alice.Change(), bob.Change()}
	old.apply(changes...)
	fresh.apply(changes...) // the copy, as it was
	old.apply(old.company.Revoke("alice", twincert.User, alice.Twin.ID()), old.company.NewRouter("berlin", nil, "10.1.0.0/16").Change())

	carried, err := fresh.Supersede(t.Context(), "operator", old.Register)
	if err != nil || carried != 1 || fresh.revision() != old.revision()+1 {
		t.Errorf("carried %d, revision %d after %d, %v", carried, fresh.revision(), old.revision(), err)
	}
	for since := range old.revision() + 1 {
		if _, known := fresh.events(since, 1); known {
			t.Errorf("a watcher at %d would not notice", since)
		}
	}
	fresh.read(func(r *store.Reader) error {
		if _, ok, _ := r.Bundle("alice"); ok || !r.Revoked(alice.Twin.ID()) {
			t.Error("the restored copy gives a revoked user's keys out")
		}
		if _, ok, _ := r.Bundle("bob"); !ok {
			t.Error("bob's keys are gone")
		}
		return nil
	})
	if _, err := fresh.Supersede(t.Context(), "operator", nil); err != nil || fresh.revision() < 1<<20 {
		t.Errorf("revision %d in place of one that nobody can read, %v", fresh.revision(), err)
	}
}

// A clock that jumps changes no order and loses nothing.
func TestClockJumps(t *testing.T) {
	b := newBook(t)
	for i, jump := range []time.Duration{0, 1000 * time.Hour, -5000 * time.Hour, 24 * 365 * 50 * time.Hour, -24 * 365 * 50 * time.Hour} {
		b.now = b.now.Add(jump)
		b.apply(client.Change{ChangeID: b.company.Revoke("", 0).ChangeID, CRL: b.company.CRL()})
		if got := b.revision(); got != client.Revision(i)+1 {
			t.Errorf("revision %d after %d changes", got, i+1)
		}
	}
	if got := b.audit(store.AuditQuery{}); !slices.Equal(got, []string{"crl number 1", "crl number 2", "crl number 3", "crl number 4", "crl number 5"}) {
		t.Errorf("audit in the order %q", got)
	}
	if got, known := b.events(0, 100); !known || len(got) != 5 {
		t.Errorf("events %q %v", got, known)
	}
}

func TestAuditQuery(t *testing.T) {
	b := newBook(t)
	b.apply(b.company.NewUser("alice", "staff", "x").Change())
	half := b.now.Add(time.Minute)
	b.now = b.now.Add(time.Hour)
	b.apply(b.company.NewRouter("berlin", nil, "10.1.0.0/16").Change())
	for _, c := range []struct {
		q    store.AuditQuery
		want []string
	}{
		{store.AuditQuery{}, []string{"certificate alice", "group staff", "user alice", "bundle alice", "certificate berlin", "router berlin"}},
		{store.AuditQuery{Since: half}, []string{"certificate berlin", "router berlin"}},
		{store.AuditQuery{Kind: store.AuditCertificate}, []string{"certificate alice", "certificate berlin"}},
		{store.AuditQuery{Subject: "alice", After: 1}, []string{"user alice", "bundle alice"}},
		{store.AuditQuery{Actor: "operator", Kind: store.AuditGroup}, []string{"group staff"}},
		{store.AuditQuery{Actor: ca, Kind: store.AuditRouter}, []string{"router berlin"}},
		{store.AuditQuery{Actor: "nobody"}, nil},
	} {
		if got := b.audit(c.q); !slices.Equal(got, c.want) {
			t.Errorf("%+v: %q, want %q", c.q, got, c.want)
		}
	}
}

func TestRegisterOfAnotherFormat(t *testing.T) {
	s, err := boltstore.Open(filepath.Join(t.TempDir(), "directory.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if err := store.Known(t.Context(), s); !errors.Is(err, store.ErrDamaged) {
		t.Errorf("an empty database is known: %v", err)
	}
	if err := s.Update(context.Background(), func(tx store.Tx) error {
		return tx.Put(store.Meta, []byte("schema"), []byte{0, 0, 0, 0, 0, 0, 0, 9})
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Open(t.Context(), s, time.Now); !errors.Is(err, store.ErrDamaged) || !strings.Contains(err.Error(), "format 9") {
		t.Errorf("got %v", err)
	}
}
