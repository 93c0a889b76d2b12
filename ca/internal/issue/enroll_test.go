package issue_test

import (
	"bytes"
	"crypto/x509"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"twinkey/ca/internal/issue"
	"twinkey/directory/client"
	"twinkey/pkg/twincert"
)

func TestTokenWorksOnce(t *testing.T) {
	w := newWorld(t)
	tok := w.token("berlin")
	keys := w.box()
	first, err := w.desk.Enroll(t.Context(), tok, keys)
	if err != nil {
		t.Fatal(err)
	}
	twin, err := twincert.Parse(first.Twin)
	if err != nil {
		t.Fatal(err)
	}
	if twin.Name != "berlin" || twin.Role != twincert.Router || twin.Keys != keys.Twin || !slices.Equal(twin.Scope, []string{"group:staff"}) || len(twin.Prefixes) != 1 {
		t.Errorf("twin certificate: %+v", twin)
	}
	if w.remote.routers["berlin"] != twin.ID() {
		t.Error("the directory does not have it")
	}
	if got := first.TLS[0].URIs[0].String(); got != "twinkey://router/berlin" {
		t.Errorf("the TLS certificate names %s", got)
	}

	again, err := w.desk.Enroll(t.Context(), tok, keys)
	if err != nil || !bytes.Equal(again.Twin, first.Twin) || !again.TLS[0].Equal(first.TLS[0]) {
		t.Errorf("the same request, whose answer was lost: %v", err)
	}
	if _, err := w.desk.Enroll(t.Context(), tok, w.box()); !errors.Is(err, issue.ErrToken) {
		t.Errorf("other keys: %v", err)
	}
	w.now = w.now.Add(11 * time.Minute)
	if _, err := w.desk.Enroll(t.Context(), tok, keys); !errors.Is(err, issue.ErrToken) {
		t.Errorf("the same request, much later: %v", err)
	}
}

func TestBadTokens(t *testing.T) {
	w := newWorld(t)
	good := w.token("berlin")
	flip := func(s string, i int) string {
		b := []byte(s)
		b[i] ^= 1
		return string(b)
	}
	for name, tok := range map[string]string{
		"empty": "", "no token": "hello", "other secret": flip(good, len(good)-1), "other id": flip(good, len("twinkey-router.")),
		"no secret": good[:strings.LastIndexByte(good, '.')+1], "more parts": good + ".x",
	} {
		if _, err := w.desk.Enroll(t.Context(), tok, w.box()); !errors.Is(err, issue.ErrToken) {
			t.Errorf("%s: %v", name, err)
		}
	}
	keys := w.box()
	keys.Twin = twincert.Keys{}
	if _, err := w.desk.Enroll(t.Context(), good, keys); !errors.Is(err, issue.ErrInvalid) {
		t.Errorf("a router without keys: %v", err)
	}
	w.now = w.now.Add(time.Hour + time.Minute)
	if _, err := w.desk.Enroll(t.Context(), good, w.box()); !errors.Is(err, issue.ErrToken) {
		t.Errorf("expired: %v", err)
	}
}

func TestTokenIsFreeAgainWhenNothingWasIssued(t *testing.T) {
	w := newWorld(t)
	tok := w.token("berlin")
	w.remote.refuse = func(c client.Change) error {
		if len(c.Routers) > 0 {
			return unavailable("timeout")
		}
		return nil
	}
	if _, err := w.desk.Enroll(t.Context(), tok, w.box()); !errors.Is(err, issue.ErrNothingIssued) {
		t.Fatalf("got %v", err)
	}
	w.remote.refuse = nil
	if _, err := w.desk.Enroll(t.Context(), tok, w.box()); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestEnrolmentKilledAnywhereIsAnsweredToTheSameBox(t *testing.T) {
	for _, step := range []string{issue.StepJournalled, issue.StepApplied, issue.StepRecorded, issue.StepDone} {
		t.Run(step, func(t *testing.T) {
			w := newWorld(t)
			tok, keys := w.token("berlin"), w.box()
			w.die("enrolling router berlin: "+step, func() { _, _ = w.desk.Enroll(t.Context(), tok, keys) })
			got, err := w.desk.Enroll(t.Context(), tok, keys)
			if err != nil {
				t.Fatal(err)
			}
			c, err := twincert.Parse(got.Twin)
			if err != nil || w.remote.routers["berlin"] != c.ID() || len(w.remote.certs) != 2 {
				t.Errorf("the directory has %v and %d certificates, the box got %v (%v)", w.remote.routers, len(w.remote.certs), c.ID(), err)
			}
			if _, err := w.desk.Enroll(t.Context(), tok, w.box()); !errors.Is(err, issue.ErrToken) {
				t.Errorf("another box with the same token: %v", err)
			}
		})
	}
}

func TestTokensThatAreNotMade(t *testing.T) {
	w := newWorld(t)
	if _, err := w.desk.Enroll(t.Context(), w.token("berlin"), w.box()); err != nil {
		t.Fatal(err)
	}
	good := issue.TokenRequest{Role: issue.RoleRouter, Name: "rome", TTL: time.Hour}
	for name, change := range map[string]struct {
		f    func(*issue.TokenRequest)
		want error
	}{
		"taken name":    {func(r *issue.TokenRequest) { r.Name = "berlin" }, issue.ErrExists},
		"bad name":      {func(r *issue.TokenRequest) { r.Name = "Rome/.." }, issue.ErrInvalid},
		"no name":       {func(r *issue.TokenRequest) { r.Name = "" }, issue.ErrInvalid},
		"no role":       {func(r *issue.TokenRequest) { r.Role = "ca" }, issue.ErrInvalid},
		"host bits":     {func(r *issue.TokenRequest) { r.Prefixes = prefixes("10.0.0.1/24") }, issue.ErrInvalid},
		"overlap":       {func(r *issue.TokenRequest) { r.Prefixes = prefixes("10.0.0.0/8") }, issue.ErrExists},
		"bad scope":     {func(r *issue.TokenRequest) { r.Scope = []string{"everybody"} }, issue.ErrInvalid},
		"no time":       {func(r *issue.TokenRequest) { r.TTL = 0 }, issue.ErrInvalid},
		"too much time": {func(r *issue.TokenRequest) { r.TTL = 1000 * day }, issue.ErrInvalid},
	} {
		r := good
		change.f(&r)
		if _, _, err := w.desk.Token(r); !errors.Is(err, change.want) {
			t.Errorf("%s: got %v, want %v", name, err, change.want)
		}
	}
	r := good
	r.Prefixes, r.Overlap = prefixes("10.0.0.0/8"), true
	if _, _, err := w.desk.Token(r); err != nil {
		t.Errorf("an overlap that is meant: %v", err)
	}
}

func TestRenewal(t *testing.T) {
	w := newWorld(t)
	first, err := w.desk.Enroll(t.Context(), w.token("berlin"), w.box())
	if err != nil {
		t.Fatal(err)
	}
	w.now = w.now.Add(60 * day)
	keys := w.box()
	second, err := w.desk.Renew(t.Context(), issue.RoleRouter, "berlin", first.TLS[0], keys)
	if err != nil {
		t.Fatal(err)
	}
	c, err := twincert.Parse(second.Twin)
	if err != nil || c.Keys != keys.Twin || w.remote.routers["berlin"] != c.ID() || len(c.Prefixes) != 1 || len(c.Scope) != 1 {
		t.Errorf("%+v, %v", c, err)
	}
	if len(w.remote.revoked) > 0 {
		t.Error("a renewal revokes nothing")
	}
	// The old one is good for another renewal until it has expired for longer than the grace.
	w.now = first.TLS[0].NotAfter.Add(30*day - time.Minute)
	if _, err := w.desk.Renew(t.Context(), issue.RoleRouter, "berlin", first.TLS[0], w.box()); err != nil {
		t.Errorf("within the grace: %v", err)
	}
	w.now = first.TLS[0].NotAfter.Add(30*day + time.Minute)
	if _, err := w.desk.Renew(t.Context(), issue.RoleRouter, "berlin", first.TLS[0], w.box()); !errors.Is(err, issue.ErrRevoked) {
		t.Errorf("after the grace: %v", err)
	}
	if _, err := w.desk.Renew(t.Context(), issue.RoleRouter, "rome", second.TLS[0], w.box()); !errors.Is(err, issue.ErrInvalid) {
		t.Errorf("under another name: %v", err)
	}
	if _, err := w.desk.Renew(t.Context(), "ca", "", second.TLS[0], w.box()); !errors.Is(err, issue.ErrInvalid) {
		t.Errorf("as the CA: %v", err)
	}
	done, err := w.desk.RevokeRouter(t.Context(), "operator:test", "berlin", "stolen")
	if err != nil || !done.Told {
		t.Fatalf("%+v, %v", done, err)
	}
	if _, err := w.desk.Renew(t.Context(), issue.RoleRouter, "berlin", second.TLS[0], w.box()); !errors.Is(err, issue.ErrRevoked) {
		t.Errorf("revoked: %v", err)
	}
	for _, c := range []*x509.Certificate{first.TLS[0], second.TLS[0]} {
		if !w.remote.revoked[twincert.IDOf(c)] {
			t.Errorf("TLS certificate %s, which could still be renewed, is not revoked", c.SerialNumber)
		}
	}
}

func TestDirectoryEnrolsWithoutADirectory(t *testing.T) {
	w := newWorld(t)
	w.remote.down = true
	tok, _, err := w.desk.Token(issue.TokenRequest{Role: issue.RoleDirectory, Hosts: []string{"directory.example", "192.0.2.1"}, TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	keys := w.box()
	if _, err := w.desk.Enroll(t.Context(), tok, keys); !errors.Is(err, issue.ErrInvalid) {
		t.Errorf("with twin keys: %v", err)
	}
	keys.Twin = twincert.Keys{}
	got, err := w.desk.Enroll(t.Context(), tok, keys)
	if err != nil {
		t.Fatal(err)
	}
	leaf := got.TLS[0]
	if leaf.URIs[0].String() != "twinkey://directory" || len(leaf.DNSNames) != 1 || len(leaf.IPAddresses) != 1 || got.Twin != nil {
		t.Errorf("%v %v %v", leaf.URIs, leaf.DNSNames, leaf.IPAddresses)
	}
	renewed, err := w.desk.Renew(t.Context(), issue.RoleDirectory, "", leaf, keys)
	if err != nil || !slices.Equal(renewed.TLS[0].DNSNames, leaf.DNSNames) {
		t.Errorf("renewal: %v", err)
	}
}

func prefixes(ps ...string) []netip.Prefix {
	out := make([]netip.Prefix, 0, len(ps))
	for _, p := range ps {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}
