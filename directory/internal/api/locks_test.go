package api_test

import (
	"errors"
	"testing"

	"twinkey/directory/client"
	"twinkey/proto/secret"
)

// Only the CA sees what is locked and releases it.
func TestLocksOnTheWire(t *testing.T) {
	d := newDirectory(t, t.TempDir())
	ctx := t.Context()
	ca, _ := d.as("twinkey://ca")
	berlin, alice := d.company.NewRouter("berlin", []string{"*"}, "10.1.0.0/16"), d.company.NewUser("alice", "staff", "x")
	must(t, ca.Apply(ctx, berlin.Change()), ca.Apply(ctx, alice.Change()))
	r, _ := d.router(berlin)
	for range 10 {
		_, _ = r.Release(ctx, "alice", secret.New([]byte("wrong")))
	}
	if _, err := r.Release(ctx, "alice", alice.Auth); !errors.Is(err, client.ErrLocked) {
		t.Fatal(err)
	}
	if _, err := r.Unlock(ctx, client.Unlock{UID: "alice"}); !errors.Is(err, client.ErrDenied) {
		t.Errorf("a router releases: %v", err)
	}
	if _, err := r.Locks(ctx); !errors.Is(err, client.ErrDenied) {
		t.Errorf("a router looks: %v", err)
	}
	locks, err := ca.Locks(ctx)
	if err != nil || len(locks) != 1 || locks[0].UID != "alice" || locks[0].Until.IsZero() {
		t.Fatalf("%+v, %v", locks, err)
	}
	if released, err := ca.Unlock(ctx, client.Unlock{UID: "alice", Actor: "operator:root", AtCA: locks}); err != nil || len(released) != 1 || released[0] != locks[0] {
		t.Errorf("%+v, %v", released, err)
	}
	if _, err := r.Release(ctx, "alice", alice.Auth); err != nil {
		t.Errorf("after the release: %v", err)
	}
	if locks, err := ca.Locks(ctx); err != nil || len(locks) != 0 {
		t.Errorf("%+v, %v", locks, err)
	}
	if _, err := ca.Unlock(ctx, client.Unlock{}); !errors.Is(err, client.ErrInvalid) {
		t.Errorf("nobody: %v", err)
	}
}
