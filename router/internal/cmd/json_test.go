package cmd

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"twinkey/pkg/cli"
	"twinkey/router/internal/admin"
)

// servant is a router that does what it is asked; what it is not asked here it has not.
type servant struct {
	admin.Router
	asked []admin.Hangup
}

func (s *servant) Hangup(_ context.Context, h admin.Hangup) (admin.Ended, error) {
	s.asked = append(s.asked, h)
	if h.User == "" && h.ID == 0 { // a client's logout
		return admin.Ended{}, nil
	}
	return admin.Ended{Calls: []uint64{7}, Clients: 1}, nil
}

func (s *servant) Passwd(context.Context, admin.Passwd) error { return nil }

// What commands say they have done, for people and for programs.
func TestWhatIsDoneIsSaid(t *testing.T) {
	dir := t.TempDir()
	password := filepath.Join(dir, "passwords")
	if err := os.WriteFile(password, []byte("old horse battery\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := admin.Listen(filepath.Join(dir, "control.sock"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- admin.Serve(ctx, l, &servant{}) }()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	for command, want := range map[string][2]string{
		"hangup 7 --state DIR":     {"ended 1 call(s): [7], logged out 1 client(s)\n", `{"calls":[7],"clients":1}`},
		"logout alice --state DIR": {"ended 1 call(s): [7], logged out 1 client(s)\n", `{"calls":[7],"clients":1}`},
		"client logout --home DIR": {"logged out\n", `{"calls":[]}`},
		"passwd alice --state DIR --password-file DIR/passwords --new-password-file DIR/passwords": {"the password of alice is changed; calls that are up stay up\n", `{"user":"alice"}`},
	} {
		for i, more := range []string{"", " --json"} {
			root := Root()
			var out bytes.Buffer
			root.SetOut(&out)
			root.SetErr(&out)
			root.SetArgs(strings.Fields(strings.ReplaceAll(command, "DIR", dir) + more))
			code, got := cli.Run(t.Context(), root), out.String()
			if i == 1 {
				got = strings.Join(strings.Fields(got), "")
			}
			if code != cli.ExitOK || got != want[i] {
				t.Errorf("%s%s: exit code %d, %q", command, more, code, got)
			}
		}
	}
}
