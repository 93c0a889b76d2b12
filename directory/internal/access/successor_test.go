package access_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"twinkey/directory/client"
	"twinkey/directory/internal/store"
	"twinkey/pkg/keybundle"
	"twinkey/pkg/twincert"
)

// ask is one holding of a router.
func (d *desk) ask(router, uid string, id twincert.ID) client.Held {
	d.t.Helper()
	out, err := d.Successors(d.t.Context(), caller(router), []client.Holding{{UID: uid, ID: id}})
	if err != nil || len(out) != 1 || out[0].UID != uid || (out[0].Successor != nil) != (out[0].State == client.HoldingSucceeded) {
		d.t.Fatalf("%+v, %v", out, err)
	}
	return out[0]
}

// The password opens the bundle, the data key in it the successor, and that is the certificate that counts: the older one may be revoked.
func TestReleaseWithASuccessor(t *testing.T) {
	d := newDesk(t)
	alice := d.users["alice"]
	d.company.Rotate("staff")
	second, change := d.company.Succeed(alice, d.now.Add(24*time.Hour))
	d.apply(change, d.company.Revoke("alice", twincert.User, alice.Twin.ID()))
	d.now = d.now.Add(13 * time.Hour) // and has expired besides
	p, err := d.LoginParams(t.Context(), caller("berlin"), "alice")
	if err != nil {
		t.Fatal(err)
	}
	proof, err := keybundle.Derive(alice.Password, p.Params)
	if err != nil {
		t.Fatal(err)
	}
	r, err := d.Release(t.Context(), caller("berlin"), "alice", proof.Auth)
	if err != nil || r.Successor == nil {
		t.Fatalf("%+v, %v", r, err)
	}
	k, err := keybundle.Open(r.Sealed, proof.Seal, r.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	c, err := twincert.Parse(r.Successor.Certificate)
	if err != nil || c.ID() != second.ID() || c.Keys.Control == alice.Twin.Keys.Control {
		t.Fatalf("%v", err)
	}
	if _, err := keybundle.OpenControl(r.Successor.Sealed, k.Data, r.Successor.Certificate); err != nil {
		t.Error(err)
	}
	d.apply(d.company.Revoke("alice", twincert.User, second.ID()))
	if err := d.release("berlin", "alice", true); !errors.Is(err, client.ErrDenied) {
		t.Errorf("after the revocation of the successor: %v", err)
	}
}

func TestWhoGetsASuccessor(t *testing.T) {
	d := newDesk(t)
	alice := d.users["alice"]
	if got := d.ask("berlin", "alice", alice.Twin.ID()); got.State != client.HoldingCurrent {
		t.Errorf("before there is one: %+v", got)
	}
	d.company.Rotate("staff")
	second, change := d.company.Succeed(alice, d.now.Add(time.Hour))
	d.apply(change)
	got := d.ask("berlin", "alice", alice.Twin.ID())
	if got.State != client.HoldingSucceeded {
		t.Fatalf("%+v", got)
	}
	if _, err := keybundle.OpenControl(got.Successor.Sealed, alice.Data(), got.Successor.Certificate); err != nil {
		t.Error(err)
	}
	third, change := d.company.Succeed(alice, d.now.Add(2*time.Hour))
	d.apply(change)
	for name, c := range map[string]struct {
		router, uid string
		id          twincert.ID
		want        string
	}{
		"from the first":              {"berlin", "alice", alice.Twin.ID(), client.HoldingSucceeded},
		"from the second":             {"paris", "alice", second.ID(), client.HoldingSucceeded},
		"the present one":             {"berlin", "alice", third.ID(), client.HoldingCurrent},
		"a certificate of nobody":     {"berlin", "alice", twincert.ID{Issuer: second.ID().Issuer, Serial: "4711"}, client.HoldingNone},
		"somebody else's certificate": {"paris", "alice", d.users["bob"].Twin.ID(), client.HoldingNone},
		"nobody":                      {"berlin", "nobody", alice.Twin.ID(), client.HoldingNone},
		"out of scope":                {"berlin", "bob", d.users["bob"].Twin.ID(), client.HoldingNone},
		"in scope":                    {"paris", "bob", d.users["bob"].Twin.ID(), client.HoldingCurrent},
	} {
		if got := d.ask(c.router, c.uid, c.id); got.State != c.want {
			t.Errorf("%s: %+v, want %s", name, got, c.want)
		}
	}

	fresh := d.company.NewUser("alice", "staff", "another") // a new password means new keys
	d.apply(fresh.Change())
	if got := d.ask("berlin", "alice", third.ID()); got.State != client.HoldingReplaced {
		t.Errorf("after a new password: %+v", got)
	}
	_, change = d.company.Succeed(fresh, d.now.Add(time.Hour))
	d.apply(change)
	if got := d.ask("berlin", "alice", third.ID()); got.State != client.HoldingReplaced {
		t.Errorf("and once those have a successor: %+v", got)
	}
	if got := d.ask("berlin", "alice", fresh.Twin.ID()); got.State != client.HoldingSucceeded {
		t.Errorf("and who has logged in anew: %+v", got)
	}
	d.now = d.now.Add(3 * time.Hour)
	if got := d.ask("berlin", "alice", fresh.Twin.ID()); got.State != client.HoldingNone {
		t.Errorf("once it has expired: %+v", got)
	}
	u := d.users["carol"].Change().Users[0]
	u.Disabled = true
	d.apply(client.Change{ChangeID: "disable", Users: []client.UserRecord{u}})
	if got := d.ask("paris", "carol", d.users["carol"].Twin.ID()); got.State != client.HoldingNone {
		t.Errorf("disabled: %+v", got)
	}
}

// Who is put into another group goes on where the router may have that group, without a password and with one; the others have lost them.
func TestSuccessorInAnotherGroup(t *testing.T) {
	d := newDesk(t)
	v := d.sourced("erin", "staff")
	erin := d.users["erin"]
	second, change := d.company.Move(erin.Of("corp"), "sales", d.now.Add(time.Hour), erin.Twin.ID())
	d.apply(change)
	for router, want := range map[string]string{"berlin": client.HoldingNone, "paris": client.HoldingSucceeded} {
		got := d.ask(router, "erin", erin.Twin.ID())
		if got.State != want {
			t.Errorf("%s: %+v, want %s", router, got, want)
		}
		if got.Successor == nil {
			continue
		}
		c, err := twincert.Parse(got.Successor.Certificate)
		if err != nil || c.ID() != second.ID() || c.Group != "sales" {
			t.Errorf("%s: %v", router, err)
		}
		if _, err := keybundle.OpenControl(got.Successor.Sealed, erin.Data(), got.Successor.Certificate); err != nil {
			t.Errorf("%s: %v", router, err)
		}
	}
	v.ID = second.ID()
	d.vouch(v)
	v.Router = "paris"
	d.vouch(v)
	if err := d.release("berlin", "erin", true); !errors.Is(err, client.ErrDenied) {
		t.Errorf("at a router that may not have the group: %v", err)
	}
	if err := d.release("paris", "erin", true); err != nil {
		t.Errorf("at one that may: %v", err)
	}
}

// What is handed out stands in the audit records, what is not costs no record, and no try counts as a login.
func TestSuccessorsAreWrittenDown(t *testing.T) {
	d := newDesk(t)
	alice := d.users["alice"]
	records := func() (all []store.AuditRecord) {
		if err := d.reg.Read(t.Context(), func(r *store.Reader) error {
			for a, err := range r.Audit(store.AuditQuery{}) {
				if err != nil {
					return err
				}
				all = append(all, a)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return all
	}
	before := len(records())
	for range 30 {
		d.ask("berlin", "alice", alice.Twin.ID())
		d.ask("berlin", "nobody", alice.Twin.ID())
	}
	if n := len(records()); n != before {
		t.Errorf("%d records of nothing", n-before)
	}
	second, change := d.company.Succeed(alice, d.now.Add(time.Hour))
	d.apply(change)
	before = len(records())
	d.ask("berlin", "alice", alice.Twin.ID())
	all := records()
	last := all[len(all)-1]
	if len(all) != before+1 || last.Kind != store.AuditRelease || last.Subject != "alice" || last.Actor != "twinkey://router/berlin" || !strings.Contains(last.Detail, second.ID().String()) {
		t.Errorf("%d records, the last %+v", len(all)-before, last)
	}
	if err := d.release("berlin", "alice", true); err != nil {
		t.Errorf("a login afterwards: %v", err)
	}
}

func TestQuestionsThatAreRefused(t *testing.T) {
	d := newDesk(t)
	id := d.users["alice"].Twin.ID()
	many := make([]client.Holding, client.MaxHoldings+1)
	for i := range many {
		many[i] = client.Holding{UID: "alice", ID: id}
	}
	for name, c := range map[string]struct {
		router   string
		holdings []client.Holding
		want     error
	}{
		"none":                       {"berlin", nil, client.ErrInvalid},
		"too many":                   {"berlin", many, client.ErrInvalid},
		"a name that is none":        {"berlin", []client.Holding{{UID: "../x", ID: id}}, client.ErrInvalid},
		"a router that nobody knows": {"rome", many[:1], client.ErrDenied},
	} {
		if out, err := d.Successors(t.Context(), caller(c.router), c.holdings); !errors.Is(err, c.want) || out != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if out, err := d.Successors(t.Context(), caller("berlin"), many[1:]); err != nil || len(out) != client.MaxHoldings {
		t.Errorf("as many as may be: %v", err)
	}
	d.apply(d.company.Revoke("berlin", twincert.Router, d.berlin.Twin.ID()))
	if _, err := d.Successors(t.Context(), caller("berlin"), many[:1]); !errors.Is(err, client.ErrDenied) {
		t.Errorf("a revoked router: %v", err)
	}
}

// The CA vouches for a user of a source by the present certificate, also if the sealed keys are for an older one.
func TestVouchForASuccessor(t *testing.T) {
	d := newDesk(t)
	v := d.sourced("erin", "staff")
	d.company.Rotate("staff")
	next, change := d.company.Succeed(d.users["erin"], d.now.Add(time.Hour))
	d.apply(change)
	if err := d.Vouch(t.Context(), ca, v); !errors.Is(err, client.ErrConflict) {
		t.Errorf("for the certificate before: %v", err)
	}
	v.ID = next.ID()
	d.vouch(v)
	if err := d.release("berlin", "erin", true); err != nil {
		t.Errorf("vouched for: %v", err)
	}
}
