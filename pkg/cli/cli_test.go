package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"twinkey/pkg/cli"
)

// root is a small program with a command for each way to end.
func root() *cobra.Command {
	r := cli.New(cli.Program{Name: "twinkey-test", Short: "Ends in every way"})
	list := &cobra.Command{Use: "list", Short: "List users", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		type user struct {
			UID  string        `json:"uid"`
			Left time.Duration `json:"left"`
		}
		users := []user{{"alice", 50 * time.Hour}, {"bob\x1b[31m", 90 * time.Second}, {"", 0}}
		return cli.Print(c, users, func(t *cli.Table) {
			for _, u := range users {
				t.Row(u.UID, cli.Duration(u.Left))
			}
		}, "UID", "VALID FOR")
	}}
	cli.AddJSON(list)
	remove := &cobra.Command{Use: "remove", Short: "Remove a user", RunE: func(c *cobra.Command, _ []string) error {
		return cli.Tell(c, map[string]string{"uid": "alice"}, "%s is gone\n", "alice")
	}}
	cli.AddJSON(remove)
	r.AddCommand(list, remove,
		&cobra.Command{Use: "deny", Short: "Be refused", RunE: func(*cobra.Command, []string) error {
			return cli.Fail(cli.ExitDenied, "releasing the keys of alice", errors.New("the certificate is revoked\nsince yesterday"), "ask the operator for a new one")
		}},
		&cobra.Command{Use: "plain", Short: "Fail", RunE: func(*cobra.Command, []string) error { return errors.New("disk full") }},
		&cobra.Command{Use: "log", Short: "Log", RunE: func(c *cobra.Command, _ []string) error {
			cli.Logger(c.Context()).Debug("small", "n", 1)
			cli.Logger(c.Context()).Info("call-up", "peer", "rb")
			return nil
		}},
		&cobra.Command{Use: "wait", Short: "Be interrupted", RunE: func(c *cobra.Command, _ []string) error {
			if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
				return err
			}
			<-c.Context().Done()
			return c.Context().Err()
		}})
	return r
}

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"twinkey-test": func() { os.Exit(cli.Main(root())) }})
}

func TestScripts(t *testing.T) { testscript.Run(t, testscript.Params{Dir: "testdata/script"}) }

// The table of exit codes stands in the package comment and in the topic; both list
// every code once.
func TestExitTableIsOne(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	r := root()
	var out bytes.Buffer
	r.SetOut(&out)
	r.SetArgs([]string{"help", "exit-codes"})
	if code := cli.Run(t.Context(), r); code != cli.ExitOK {
		t.Fatalf("exit code %d", code)
	}
	for _, code := range []int{cli.ExitOK, cli.ExitFailure, cli.ExitUsage, cli.ExitConfig, cli.ExitUnavailable, cli.ExitDenied, cli.ExitNotFound, cli.ExitConflict, cli.ExitInUse, cli.ExitPending, cli.ExitInterrupted} {
		var row string
		for line := range strings.Lines(out.String()) {
			if strings.HasPrefix(line, fmt.Sprintf("  %-4d ", code)) {
				row = strings.TrimSpace(line)
			}
		}
		if row == "" || !strings.Contains(string(doc), row) {
			t.Errorf("code %d: row %q is not in both", code, row)
		}
	}
}

func TestFailKeepsWhatIsKnownBelow(t *testing.T) {
	inner := cli.Fail(cli.ExitInUse, "opening the database", errors.New("locked"), "stop pid 7")
	outer := cli.Within("starting", inner)
	if cli.Code(outer) != cli.ExitInUse || cli.Code(fmt.Errorf("again: %w", outer)) != cli.ExitInUse {
		t.Errorf("code %d", cli.Code(outer))
	}
	var b bytes.Buffer
	if err := cli.WriteError(&b, "p", outer); err != nil {
		t.Fatal(err)
	}
	if want := "p: starting\n  why:  opening the database: locked\n  hint: stop pid 7\n"; b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", &b, want)
	}
	b.Reset()
	if err := cli.WriteError(&b, "p", fmt.Errorf("again: %w", outer)); err != nil {
		t.Fatal(err)
	}
	if want := "p: again: starting: opening the database: locked\n  hint: stop pid 7\n"; b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", &b, want)
	}
	if cli.Code(nil) != cli.ExitOK || cli.Code(context.Canceled) != cli.ExitInterrupted || cli.Code(errors.New("x")) != cli.ExitFailure {
		t.Error("codes of plain errors")
	}
}

func TestHumanWords(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0ns", 87 * time.Microsecond: "87us", 450 * time.Millisecond: "450ms", time.Second - 1: "999ms", 12345 * time.Millisecond: "12.3s",
		time.Minute - 1: "59.9s", 125 * time.Minute: "2h 5m", 90*24*time.Hour - 1: "89d 23h", -90 * time.Second: "-1m 30s", math.MinInt64: "-106751d 23h",
	} {
		if got := cli.Duration(d); got != want {
			t.Errorf("Duration(%d) = %s, want %s", d, got, want)
		}
	}
	for n, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1<<20 - 1: "1.0 MiB", 1434: "1.4 KiB", 12 << 30: "12.0 GiB", math.MaxUint64: "16.0 EiB"} {
		if got := cli.Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %s, want %s", n, got, want)
		}
	}
	now := time.Unix(1_800_000_000, 0)
	for at, want := range map[time.Time]string{{}: "never", now.Add(90 * time.Second): "in 1m 30s", now.Add(-time.Hour): "1h 0m ago"} {
		if got := cli.Until(now, at); got != want {
			t.Errorf("Until(%s) = %s, want %s", at, got, want)
		}
	}
}

func TestVersionIsJSON(t *testing.T) {
	r := root()
	var out bytes.Buffer
	r.SetOut(&out)
	r.SetArgs([]string{"version", "--json"})
	if code := cli.Run(t.Context(), r); code != cli.ExitOK {
		t.Fatalf("exit code %d", code)
	}
	var v cli.Version
	if err := json.Unmarshal(out.Bytes(), &v); err != nil || v.Program != "twinkey-test" || v.Version == "" || v.Go == "" {
		t.Errorf("%s: %v", &out, err)
	}
}

func TestLoggerOutsideARun(t *testing.T) {
	if cli.Logger(t.Context()).Enabled(t.Context(), 100) {
		t.Error("it logs")
	}
}
