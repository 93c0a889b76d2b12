package access_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"twinkey/directory/client"
	"twinkey/directory/internal/store"
	"twinkey/pkg/twincert"
)

// own gives uid keys of their own and returns what a router says to whom they were proved.
func (d *desk) own(uid, group string, until time.Time) client.OwnLogin {
	d.t.Helper()
	u := d.company.NewUserUntil(uid, group, "x", until)
	d.apply(client.Change{ChangeID: "own-" + uid, Certificates: u.Change().Certificates, Users: []client.UserRecord{{UID: uid, Group: group, Own: true}}})
	return client.OwnLogin{UID: uid, ID: u.Twin.ID()}
}

// Who has proved keys of their own is let in, and it is noted. Everybody else hears what who types a wrong password hears, is counted, and
// locked.
func TestLoginOwn(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(d *desk, l *client.OwnLogin)
		cause  string // in the audit record alone; empty: let in
	}{
		"her own":               {nil, ""},
		"nobody":                {func(_ *desk, l *client.OwnLogin) { l.UID = "nobody" }, "no such user"},
		"out of scope":          {func(d *desk, l *client.OwnLogin) { *l = d.own("frank", "sales", d.now.Add(time.Hour)) }, "no such user"},
		"keys that are sealed":  {func(d *desk, l *client.OwnLogin) { *l = client.OwnLogin{UID: "alice", ID: d.users["alice"].Twin.ID()} }, "no keys of their own"},
		"another's certificate": {func(d *desk, l *client.OwnLogin) { l.ID = d.users["alice"].Twin.ID() }, "not the user's"},
		"a router's":            {func(d *desk, l *client.OwnLogin) { l.ID = d.paris.Twin.ID() }, "not the user's"},
		"no certificate":        {func(_ *desk, l *client.OwnLogin) { l.ID.Serial = "4711" }, "not the user's"},
		"of a former group": {func(d *desk, l *client.OwnLogin) {
			*l = d.own("carol", "sales", d.now.Add(time.Hour))
			d.apply(client.Change{ChangeID: "moved", Users: []client.UserRecord{{UID: "carol", Group: "staff", Own: true}}})
		}, "not the user's"},
		"disabled": {func(d *desk, _ *client.OwnLogin) {
			d.apply(client.Change{ChangeID: "disabled", Users: []client.UserRecord{{UID: "erin", Group: "staff", Own: true, Disabled: true}}})
		}, "disabled"},
		"revoked": {func(d *desk, l *client.OwnLogin) { d.apply(d.company.Revoke("erin", twincert.User, l.ID)) }, "revoked"},
		"expired": {func(d *desk, _ *client.OwnLogin) { d.now = d.now.Add(2 * time.Hour) }, "expired"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			l := d.own("erin", "staff", d.now.Add(time.Hour))
			if tt.change != nil {
				tt.change(d, &l)
			}
			err := d.LoginOwn(t.Context(), caller("berlin"), l)
			kind, want := store.AuditLogin, "at router berlin"
			if tt.cause != "" {
				kind, want = store.AuditDenied, tt.cause
				if !errors.Is(err, client.ErrDenied) || err.Error() != "denied: no such user, or a wrong password" {
					t.Errorf("err = %v", err)
				}
			} else if err != nil {
				t.Error(err)
			}
			records := d.audit(kind)
			if len(records) != 1 || records[0].Subject != l.UID || !strings.Contains(records[0].Detail, want) || records[0].Actor != "twinkey://router/berlin" {
				t.Errorf("audit records %+v", records)
			}
		})
	}
	d := newDesk(t)
	l := d.own("erin", "staff", d.now.Add(time.Hour))
	l.ID.Serial = "4711"
	var err error
	for range 20 {
		if err = d.LoginOwn(t.Context(), caller("berlin"), l); !errors.Is(err, client.ErrDenied) {
			break
		}
	}
	if !errors.Is(err, client.ErrLocked) {
		t.Errorf("after many: %v", err)
	}
	if err := d.LoginOwn(t.Context(), caller("berlin"), client.OwnLogin{UID: "no name"}); !errors.Is(err, client.ErrInvalid) {
		t.Errorf("no UserID: %v", err)
	}
}
