package access_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"twinkey/directory/client"
	"twinkey/directory/internal/store"
	"twinkey/pkg/lockout"
)

func (d *desk) unlock(u client.Unlock) []lockout.Lock {
	d.t.Helper()
	released, err := d.reg.Unlock(d.t.Context(), "twinkey://ca", u)
	if err != nil {
		d.t.Fatal(err)
	}
	return released
}

func (d *desk) locks() (out []lockout.Lock) {
	d.t.Helper()
	err := d.reg.Read(d.t.Context(), func(r *store.Reader) (err error) {
		out, err = r.Locks(d.now)
		return err
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return out
}

func TestUnlockAUser(t *testing.T) {
	d := newDesk(t)
	d.wrong(10, "berlin", "alice")
	d.wrong(10, "berlin", "bob") // who is none of berlin's users
	d.wrong(3, "berlin", "carol")
	if got := d.locks(); len(got) != 2 || got[0].String() != "user bob at router berlin" || got[1].String() != "user alice" || !got[1].Until.Equal(d.now.Add(time.Minute)) {
		t.Fatalf("locked: %+v", got)
	}
	released := d.unlock(client.Unlock{UID: "alice", Actor: "operator:root"})
	if len(released) != 1 || released[0].Subject != (lockout.Subject{UID: "alice"}) {
		t.Errorf("released: %+v", released)
	}
	if err := d.release("berlin", "alice", true); err != nil {
		t.Errorf("after the release: %v", err)
	}
	d.locked("berlin", "bob", time.Minute) // nobody else was let go
	a := d.audit(store.AuditUnlocked)
	if len(a) != 1 || a[0].Actor != "twinkey://ca" || a[0].For != "operator:root" || a[0].Subject != "alice" || !strings.Contains(a[0].Detail, "user alice; it would have lasted until "+d.now.Add(time.Minute).UTC().Format("2006-01-02 15:04:05Z")) {
		t.Errorf("audit: %+v", a)
	}

	// Counts that lock nothing stay, and nothing is written down of what was not done.
	if released := d.unlock(client.Unlock{UID: "carol"}); len(released) != 0 {
		t.Errorf("released: %+v", released)
	}
	if a := d.audit(store.AuditUnlocked); len(a) != 1 {
		t.Errorf("audit: %+v", a)
	}
	d.wrong(7, "berlin", "carol")
	d.locked("berlin", "carol", time.Minute)

	// The next lock is as short as the first, as after a right password.
	d.wrong(10, "berlin", "alice")
	d.locked("berlin", "alice", time.Minute)
}

func TestUnlockARouter(t *testing.T) {
	d := newDesk(t)
	for i := range 100 {
		d.wrong(1, "berlin", fmt.Sprintf("guess%d", i))
	}
	d.locked("berlin", "alice", time.Minute)
	if released := d.unlock(client.Unlock{UID: "alice"}); len(released) != 0 {
		t.Errorf("with the user: %+v", released)
	}
	d.locked("berlin", "alice", time.Minute)
	if released := d.unlock(client.Unlock{UID: "alice", Router: "paris"}); len(released) != 0 {
		t.Errorf("with another router: %+v", released)
	}
	if released := d.unlock(client.Unlock{Router: "berlin"}); len(released) != 1 || released[0].String() != "all logins at router berlin" {
		t.Errorf("released: %+v", released)
	}
	if err := d.release("berlin", "alice", true); err != nil {
		t.Errorf("after the release: %v", err)
	}
}

func TestWhatTheCAReleasedIsNoted(t *testing.T) {
	d := newDesk(t)
	until := d.now.Add(time.Hour)
	at := func(s lockout.Subject) lockout.Lock { return lockout.Lock{Subject: s, Until: until} }
	d.unlock(client.Unlock{UID: "alice", Router: "berlin", Actor: "operator:root", AtCA: []lockout.Lock{at(lockout.Subject{UID: "alice"}), at(lockout.Subject{Router: "berlin"})}})
	a := d.audit(store.AuditUnlocked)
	if len(a) != 2 || a[0].Subject != "alice" || a[1].Subject != "berlin" || !strings.HasPrefix(a[1].Detail, "at the CA: all logins at router berlin") {
		t.Errorf("audit: %+v", a)
	}
}

func TestUnlockRefused(t *testing.T) {
	d := newDesk(t)
	d.wrong(10, "berlin", "alice")
	bob := lockout.Lock{Subject: lockout.Subject{UID: "bob"}}
	for name, u := range map[string]client.Unlock{
		"nobody":                {},
		"no UserID":             {UID: "../alice"},
		"no router":             {UID: "alice", Router: "Berlin!"},
		"a long actor":          {UID: "alice", Actor: strings.Repeat("x", 1000)},
		"a record of another":   {UID: "alice", AtCA: []lockout.Lock{bob}},
		"a record of nobody":    {UID: "alice", AtCA: []lockout.Lock{{}}},
		"more than can be true": {UID: "bob", AtCA: make([]lockout.Lock, client.MaxLocks+1)},
	} {
		if _, err := d.reg.Unlock(t.Context(), "twinkey://ca", u); !errors.Is(err, client.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	d.locked("berlin", "alice", time.Minute)
	if a := d.audit(store.AuditUnlocked); len(a) != 0 {
		t.Errorf("audit: %+v", a)
	}
}
