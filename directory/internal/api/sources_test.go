package api_test

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"twinkey/directory/client"
	"twinkey/pkg/keybundle"
)

// The way of a user of a source through the directory: ask the CA first, be vouched for, and leave accounts behind.
func TestUserOfASource(t *testing.T) {
	d := newDirectory(t, t.TempDir())
	ctx := t.Context()
	ca, _ := d.as("twinkey://ca")
	berlin := d.company.NewRouter("berlin", []string{"group:staff"}, "10.1.0.0/16")
	alice := d.company.NewUser("alice", "staff", "secret of alice").Of("corp")
	yes := true
	must(t, ca.Apply(ctx, berlin.Change()), ca.Apply(ctx, alice.Change()), ca.Apply(ctx, client.Change{ChangeID: "sources", Sources: &yes}))
	r, _ := d.router(berlin)
	for _, uid := range []string{"alice", "nobody"} {
		if p, err := r.LoginParams(ctx, uid); err != nil || !p.AskCA {
			t.Errorf("%s: %+v, %v", uid, p, err)
		}
	}
	proof, err := keybundle.Derive([]byte("secret of alice"), alice.Params)
	must(t, err)
	if _, err := r.Release(ctx, "alice", proof.Auth); !errors.Is(err, client.ErrDenied) {
		t.Errorf("before the CA has vouched: %v", err)
	}
	v := client.Vouch{UID: "alice", Router: "berlin", Source: "corp", ID: alice.Twin.ID()}
	must(t, ca.Vouch(ctx, v))
	_, err = r.Release(ctx, "alice", proof.Auth)
	must(t, err)

	at := time.Now().UTC().Truncate(time.Second)
	must(t, r.ReportCalls(ctx, "run", []client.CallRecord{{Seq: 1, Time: at, Event: client.CallUp, Call: 7, User: "alice", Peer: "paris", Initiator: true, Address: netip.MustParseAddr("10.1.1.3")}}))
	got, err := ca.UserCalls(ctx, "corp", 0)
	if err != nil || got.Newest != 1 || len(got.Calls) != 1 || got.Calls[0].Router != "berlin" || got.Calls[0].Run != "run" || !got.Calls[0].Record.Time.Equal(at) || got.Calls[0].Record.User != "alice" {
		t.Errorf("%+v, %v", got, err)
	}
	must(t, ca.Refused(ctx, client.Refusal{UID: "alice", Router: "berlin", Cause: "no source accepts her"}))
	for name, c := range map[string]struct {
		err  error
		want error
	}{
		"a router vouches":            {r.Vouch(ctx, v), client.ErrDenied},
		"a router notes refusals":     {r.Refused(ctx, client.Refusal{UID: "alice", Router: "berlin"}), client.ErrDenied},
		"a router reads accounts":     {second(r.UserCalls(ctx, "corp", 0)), client.ErrDenied},
		"for a router that is none":   {ca.Vouch(ctx, client.Vouch{UID: "alice", Router: "../x", Source: "corp", ID: v.ID}), client.ErrInvalid},
		"for a certificate of nobody": {ca.Vouch(ctx, client.Vouch{UID: "alice", Router: "berlin", Source: "corp", ID: berlin.Twin.ID()}), client.ErrConflict},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("%s: %v, want %v", name, c.err, c.want)
		}
	}
}
