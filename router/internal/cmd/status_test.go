package cmd

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"twinkey/router/internal/admin"
)

// What goes nowhere is shown on a user's machine, and nothing is said where there is no such thing.
func TestStatusShowsWhatGoesNowhere(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	st := admin.Status{Self: &admin.Self{User: "alice", Router: "ra"}, Directory: admin.Directory{Fresh: true, LastHeard: now}}
	show := func() string {
		var b bytes.Buffer
		if err := writeStatus(&b, st, now); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	if s := show(); strings.Contains(s, "nowhere") {
		t.Errorf("without need:\n%s", s)
	}
	st.Withheld = []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16"), netip.MustParsePrefix("2001:db8::/64")}
	if s := show(); !strings.Contains(s, "Sent nowhere, rather than in the clear\nPREFIX\n10.9.0.0/16\n2001:db8::/64\n") {
		t.Errorf("%s", s)
	}
}

// Connections refused are shown by listener, and nothing is said where there were none.
func TestStatusCountsRefusedConnections(t *testing.T) {
	st := admin.Status{Name: "ra", Directory: admin.Directory{Fresh: true}, Connections: map[string]uint64{"clients": 0, "portal": 0}}
	show := func() string {
		var b bytes.Buffer
		if err := writeStatus(&b, st, time.Now()); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	if s := show(); strings.Contains(s, "Refused") {
		t.Errorf("without need:\n%s", s)
	}
	st.Connections["clients"] = 7
	if s := show(); !strings.Contains(s, "Refused beyond the limits\nLISTENER  CONNECTIONS\nclients   7\n") || strings.Contains(s, "portal") {
		t.Errorf("%s", s)
	}
}

// Calls that end with their certificate are shown with the reason, and nothing is said where there are none.
func TestStatusWarnsOfCertificates(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	st := admin.Status{Name: "ra", Since: now.Add(-time.Hour), Directory: admin.Directory{Fresh: true, LastHeard: now}, Calls: []admin.Call{
		{ID: 1, Kind: "user", User: "alice", Peer: "rb", Since: now, NotAfter: now.Add(5 * time.Minute)},
		{ID: 2, Kind: "user", User: "bob", Peer: "rb", Since: now, NotAfter: now.Add(time.Hour)},
	}}
	show := func() string {
		var b bytes.Buffer
		if err := writeStatus(&b, st, now); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	if s := show(); strings.Contains(s, "WARNING") {
		t.Errorf("without need:\n%s", s)
	}
	st.Calls[0].Ending = "only a new login brings them"
	s := show()
	_, warning, ok := strings.Cut(s, "WARNING: calls that end with their certificate\n")
	if !ok || !strings.Contains(warning, "alice  rb    in 5m 0s           only a new login brings them") || strings.Contains(warning, "bob") {
		t.Errorf("%s", s)
	}
}
