package store_test

import (
	"slices"
	"testing"
	"time"

	"twinkey/directory/client"
	"twinkey/directory/internal/store"
	"twinkey/pkg/twincert"
)

// bundle is the row of alice's keys.
func (b *book) bundle() (row store.BundleRow, ok bool) {
	b.t.Helper()
	b.read(func(r *store.Reader) (err error) { row, ok, err = r.Bundle("alice"); return err })
	return row, ok
}

// A successor lies beside the bundle and is the user's present certificate: the revocation of the one before takes nothing away,
// its own takes all; a new bundle does away with it.
func TestSuccessor(t *testing.T) {
	b := newBook(t)
	until := b.now.Add(12 * time.Hour)
	alice := b.company.NewUser("alice", "staff", "secret")
	b.apply(alice.Change())
	b.company.Rotate("staff")
	second, change := b.company.Succeed(alice, until)
	b.apply(change)
	row, ok := b.bundle()
	if !ok || row.ID != alice.Twin.ID() || row.Current() != second.ID() || len(row.Sealed) == 0 || row.Successor == nil {
		t.Fatalf("%v %+v", ok, row)
	}
	third, change := b.company.Succeed(alice, until)
	b.apply(change, b.company.Revoke("alice", twincert.User, alice.Twin.ID(), second.ID()))
	if row, ok = b.bundle(); !ok || row.ID != alice.Twin.ID() || row.Current() != third.ID() {
		t.Fatalf("after the revocation of older ones: %v %+v", ok, row)
	}
	b.apply(b.company.Revoke("alice", twincert.User, third.ID()))
	if row, ok = b.bundle(); ok {
		t.Errorf("after the revocation of the present one: %+v", row)
	}
	fresh := b.company.NewUser("alice", "staff", "another secret")
	_, change = b.company.Succeed(fresh, until)
	b.apply(fresh.Change(), change)
	last := b.company.NewUser("alice", "staff", "yet another")
	b.apply(last.Change())
	if row, ok = b.bundle(); !ok || row.Current() != last.Twin.ID() || row.Successor != nil {
		t.Errorf("after a new password: %v %+v", ok, row)
	}
}

// A successor in another group comes with the record that says it and with the end of what was before: the sealed keys stay for it to go on
// from, and whoever watches hears of the one before the other.
func TestSuccessorInAnotherGroup(t *testing.T) {
	b := newBook(t)
	until := b.now.Add(12 * time.Hour)
	alice := b.company.NewUser("alice", "staff", "secret")
	b.apply(alice.Change())
	since := b.revision()
	second, change := b.company.Move(alice, "admins", until, alice.Twin.ID())
	b.apply(change)
	row, ok := b.bundle()
	if !ok || row.ID != alice.Twin.ID() || row.Current() != second.ID() {
		t.Fatalf("%v %+v", ok, row)
	}
	var u client.UserRecord
	b.read(func(r *store.Reader) (err error) { u, _, err = r.User("alice"); return err })
	if u.Group != "admins" {
		t.Errorf("the record says group %s", u.Group)
	}
	if heard, _ := b.events(since, 10); !slices.Equal(heard, []string{"2 certificate alice +", "2 revoked alice"}) {
		t.Errorf("watchers hear %q", heard)
	}
	// And back, which a successor of before is not enough for.
	_, stale := b.company.Succeed(alice, until)
	b.refuses(stale, client.ErrConflict, `says group "staff", the user's record "admins"`)
	third, change := b.company.Move(alice, "staff", until, second.ID())
	b.apply(change)
	if row, ok = b.bundle(); !ok || row.Current() != third.ID() {
		t.Errorf("%v %+v", ok, row)
	}
}

// All of a user's certificates at once, in whatever order: nothing is left.
func TestRevocationOfBundleAndSuccessor(t *testing.T) {
	for name, backwards := range map[string]bool{"older first": false, "present first": true} {
		t.Run(name, func(t *testing.T) {
			b := newBook(t)
			alice := b.company.NewUser("alice", "staff", "secret")
			second, change := b.company.Succeed(alice, b.now.Add(time.Hour))
			b.apply(alice.Change(), change)
			ids := []twincert.ID{alice.Twin.ID(), second.ID()}
			if backwards {
				ids[0], ids[1] = ids[1], ids[0]
			}
			b.apply(b.company.Revoke("alice", twincert.User, ids...))
			if row, ok := b.bundle(); ok {
				t.Errorf("%+v", row)
			}
		})
	}
}

func TestWhatIsNoSuccessor(t *testing.T) {
	b := newBook(t)
	until := b.now.Add(time.Hour)
	alice, bob := b.company.NewUser("alice", "staff", "secret"), b.company.NewUser("bob", "staff", "secret")
	gone := b.company.NewUser("gone", "staff", "secret")
	b.apply(alice.Change(), bob.Change(), gone.Change(), b.company.Revoke("gone", twincert.User, gone.Twin.ID()))
	stranger := b.company.NewUser("alice", "staff", "secret") // another data key
	for name, c := range map[string]struct {
		spoil func(c *client.Change)
		want  error
		words string
	}{
		"too short":               {func(c *client.Change) { c.Successors[0].Sealed = c.Successors[0].Sealed[1:] }, client.ErrInvalid, "80 bytes, not 81"},
		"none":                    {func(c *client.Change) { c.Successors[0].Sealed = nil }, client.ErrInvalid, "successor of user alice"},
		"a name that is none":     {func(c *client.Change) { c.Successors[0].UID = "Alice" }, client.ErrInvalid, "successor of user"},
		"without its certificate": {func(c *client.Change) { c.Certificates = nil }, client.ErrConflict, "not known"},
		"somebody else's":         {func(c *client.Change) { c.Successors[0].UID = "bob" }, client.ErrConflict, "no twin certificate of user bob"},
		"no keys to go on from":   {func(c *client.Change) { c.Successors[0].UID = "gone" }, client.ErrConflict, "no sealed keys"},
		"nobody":                  {func(c *client.Change) { c.Successors[0].UID = "nobody" }, client.ErrConflict, "no sealed keys"},
		"another data key": {func(c *client.Change) {
			_, *c = b.company.Succeed(stranger, until)
		}, client.ErrConflict, "has not the data key"},
		"in a group that the user's record does not say": {func(c *client.Change) {
			_, *c = b.company.Move(alice, "admins", until)
			c.Users = nil
		}, client.ErrConflict, `says group "admins", the user's record "staff"`},
		"another data key in another group": {func(c *client.Change) {
			_, *c = b.company.Move(stranger, "admins", until)
		}, client.ErrConflict, "has not the data key"},
		"not the group's control key": {func(c *client.Change) {
			c.Groups = nil // the group keeps the one before
		}, client.ErrConflict, "control key is not that of group"},
		"a revoked certificate": {func(c *client.Change) {
			twin, change := b.company.Succeed(alice, until)
			b.apply(b.company.Revoke("alice", twincert.User, twin.ID()))
			*c = change
		}, client.ErrConflict, "is revoked"},
	} {
		t.Run(name, func(t *testing.T) {
			b.company.Rotate("staff")
			_, change := b.company.Succeed(alice, until)
			c.spoil(&change)
			b.refuses(change, c.want, c.words)
		})
	}
	if row, ok := b.bundle(); !ok || row.Successor != nil {
		t.Errorf("%v %+v", ok, row)
	}
}
