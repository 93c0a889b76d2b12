package cmd

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"twinkey/router/internal/admin"
)

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
