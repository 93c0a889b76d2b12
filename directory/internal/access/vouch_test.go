package access_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"twinkey/directory/client"
	"twinkey/directory/internal/access"
	"twinkey/directory/internal/store"
	"twinkey/pkg/lockout"
	"twinkey/pkg/twincert"
)

var ca = access.Caller{URI: "twinkey://ca"}

// sourced adds a user of the source corp.
func (d *desk) sourced(uid, group string) client.Vouch {
	d.t.Helper()
	d.users[uid] = d.company.NewUser(uid, group, "password of "+uid).Of("corp")
	d.apply(d.users[uid].Change())
	return client.Vouch{UID: uid, Router: "berlin", Source: "corp", ID: d.users[uid].Twin.ID()}
}

func (d *desk) vouch(v client.Vouch) {
	d.t.Helper()
	if err := d.Vouch(d.t.Context(), ca, v); err != nil {
		d.t.Fatal(err)
	}
}

// The keys of a user of a source are released to the router at which the CA has just seen the password accepted, and to
// nobody else, however right the password is.
func TestReleaseNeedsAVouch(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(d *desk, v client.Vouch)
		granted bool
	}{
		"not vouched for":        {func(*desk, client.Vouch) {}, false},
		"vouched for":            {func(d *desk, v client.Vouch) { d.vouch(v) }, true},
		"twice in the minute":    {func(d *desk, v client.Vouch) { d.vouch(v); _ = d.release("berlin", "erin", true) }, true},
		"at the end of it":       {func(d *desk, v client.Vouch) { d.vouch(v); d.now = d.now.Add(client.VouchLife) }, true},
		"too long ago":           {func(d *desk, v client.Vouch) { d.vouch(v); d.now = d.now.Add(client.VouchLife + time.Second) }, false},
		"a clock that went back": {func(d *desk, v client.Vouch) { d.vouch(v); d.now = d.now.Add(-time.Second) }, false},
		"at another router":      {func(d *desk, v client.Vouch) { v.Router = "paris"; d.vouch(v) }, false},
		"somebody else":          {func(d *desk, _ client.Vouch) { d.vouch(d.sourced("frank", "staff")) }, false},
		"for another certificate": {func(d *desk, v client.Vouch) {
			d.vouch(v)
			d.users["erin"] = d.company.NewUser("erin", "staff", "password of erin").Of("corp")
			d.apply(d.users["erin"].Change())
		}, false},
		"and disabled since": {func(d *desk, v client.Vouch) {
			d.vouch(v)
			d.apply(d.company.Revoke("erin", twincert.User, v.ID))
		}, false},
		"before a restart": {func(d *desk, v client.Vouch) {
			d.vouch(v)
			d.Guard = access.New(d.reg, d.company.Anchors, access.Policy{Lockout: lockout.Default()})
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			c.prepare(d, d.sourced("erin", "staff"))
			err := d.release("berlin", "erin", true)
			if c.granted && err != nil || !c.granted && (err == nil || err.Error() != "denied: no such user, or a wrong password") {
				t.Errorf("released: %v", err)
			}
		})
	}
	d := newDesk(t)
	d.vouch(d.sourced("erin", "staff"))
	if err := d.release("berlin", "erin", false); !errors.Is(err, client.ErrDenied) {
		t.Errorf("vouched for, and a wrong password: %v", err)
	}
	for uid, source := range map[string]bool{"alice": false, "erin": true} {
		if out, err := d.Release(t.Context(), caller("berlin"), uid, d.users[uid].Auth); err != nil || out.Source != source {
			t.Errorf("%s, of a source: %v, want %v, %v", uid, out.Source, source, err)
		}
	}
}

// Tries without a vouch count: a router that guesses with the directory alone is locked like any.
func TestUnvouchedTriesLock(t *testing.T) {
	d := newDesk(t)
	v := d.sourced("erin", "staff")
	for range 10 {
		if err := d.release("berlin", "erin", true); !errors.Is(err, client.ErrDenied) {
			t.Fatal(err)
		}
	}
	d.vouch(v)
	d.locked("berlin", "erin", time.Minute)
}

// Of names that it may not have a router learns nothing by whether the CA is to be asked.
func TestWhomTheCAIsAskedAbout(t *testing.T) {
	yes, no := true, false
	for name, c := range map[string]struct {
		sources *bool
		want    map[string]bool
	}{
		"nobody has said": {nil, map[string]bool{"alice": false, "bob": false, "nobody": false, "erin": true, "frank": false}},
		"no sources":      {&no, map[string]bool{"alice": false, "bob": false, "nobody": false, "erin": true, "frank": false}},
		"sources":         {&yes, map[string]bool{"alice": false, "bob": true, "nobody": true, "erin": true, "frank": true}},
	} {
		d := newDesk(t)
		d.sourced("erin", "staff")
		d.sourced("frank", "sales") // out of berlin's scope, as bob is
		d.apply(client.Change{ChangeID: "sources", Sources: c.sources})
		for uid, want := range c.want {
			if p, err := d.LoginParams(t.Context(), caller("berlin"), uid); err != nil || p.AskCA != want {
				t.Errorf("%s, %s: ask the CA %v, want %v (%v)", name, uid, p.AskCA, want, err)
			}
		}
	}
	d := newDesk(t)
	d.apply(client.Change{ChangeID: "yes", Sources: &yes}, client.Change{ChangeID: "no", Sources: &no})
	if p, err := d.LoginParams(t.Context(), caller("berlin"), "nobody"); err != nil || p.AskCA {
		t.Errorf("sources were taken away: %v, %v", p.AskCA, err)
	}
}

// What the CA refuses stands beside what is refused here.
func TestRefusalsAreNoted(t *testing.T) {
	d := newDesk(t)
	for name, r := range map[string]client.Refusal{"uid": {UID: "No Name", Router: "berlin"}, "router": {UID: "alice", Router: ""}} {
		if err := d.Refused(t.Context(), ca, r); !errors.Is(err, client.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := d.Refused(t.Context(), ca, client.Refusal{UID: "alice", Router: "berlin", Cause: "no source accepts her\xff" + strings.Repeat("!", 1000)}); err != nil {
		t.Fatal(err)
	}
	var got []store.AuditRecord
	if err := d.reg.Read(t.Context(), func(r *store.Reader) error {
		for a, err := range r.Audit(store.AuditQuery{Kind: store.AuditDenied}) {
			if err != nil {
				return err
			}
			got = append(got, a)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || got[0].Subject != "alice" || got[0].Actor != ca.URI || !strings.HasPrefix(got[0].Detail, "asked by router berlin: no source accepts her?!!") || len(got[0].Detail) > 300 {
		t.Errorf("%+v", got)
	}
}

func TestVouchRefused(t *testing.T) {
	d := newDesk(t)
	erin := d.sourced("erin", "staff")
	ended := d.sourced("frank", "staff")
	d.apply(d.company.Revoke("frank", twincert.User, ended.ID))
	for name, c := range map[string]struct {
		change func(v *client.Vouch)
		want   error
	}{
		"nobody":                {func(v *client.Vouch) { v.UID = "nobody" }, client.ErrConflict},
		"a local user":          {func(v *client.Vouch) { v.UID, v.ID = "alice", d.users["alice"].Twin.ID() }, client.ErrConflict},
		"of another source":     {func(v *client.Vouch) { v.Source = "other" }, client.ErrConflict},
		"another certificate":   {func(v *client.Vouch) { v.ID = ended.ID }, client.ErrConflict},
		"a user without keys":   {func(v *client.Vouch) { *v = ended }, client.ErrConflict},
		"a router of nobody":    {func(v *client.Vouch) { v.Router = "rome" }, client.ErrConflict},
		"a name that is none":   {func(v *client.Vouch) { v.UID = "../x" }, client.ErrInvalid},
		"a source that is none": {func(v *client.Vouch) { v.Source = "" }, client.ErrInvalid},
	} {
		v := erin
		c.change(&v)
		if err := d.Vouch(t.Context(), ca, v); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if err := d.release("berlin", "erin", true); err == nil {
		t.Error("released after what was refused")
	}
	d.vouch(erin)
	var last store.AuditRecord
	if err := d.reg.Read(t.Context(), func(r *store.Reader) error {
		for a, err := range r.Audit(store.AuditQuery{Kind: store.AuditVouch}) {
			if err != nil {
				return err
			}
			last = a
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if last.Actor != "twinkey://ca" || last.Subject != "erin" || !strings.Contains(last.Detail, "source corp has accepted the password at router berlin") {
		t.Errorf("noted: %+v", last)
	}
}

// The password of a user of a source is not the directory's to change, not even in the minute after a login.
func TestResealOfAUserOfASource(t *testing.T) {
	d := newDesk(t)
	d.vouch(d.sourced("erin", "staff"))
	if err := d.release("berlin", "erin", true); err != nil {
		t.Fatal(err)
	}
	atParis := client.Vouch{UID: "erin", Router: "paris", Source: "corp", ID: d.users["erin"].Twin.ID()}
	d.vouch(atParis)
	r := d.another("erin", "a new password")
	if err := d.Reseal(t.Context(), caller("berlin"), r, d.users["erin"].Auth); !errors.Is(err, client.ErrDenied) {
		t.Errorf("changed here: %v", err)
	}
	if err := d.release("berlin", "erin", true); err != nil {
		t.Errorf("and then: %v", err)
	}
}
