package storetest

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"twinkey/directory/client"
	"twinkey/directory/internal/store"
)

// writeEnv makes the test binary a process that applies one change after the other to the
// store in that directory, and prints each revision once it was acknowledged.
const writeEnv = "TWINKEY_TEST_WRITE"

// Main runs the tests, or is the process that one of them kills.
func Main(m *testing.M, open Open) int {
	dir := os.Getenv(writeEnv)
	if dir == "" {
		return m.Run()
	}
	fmt.Fprintln(os.Stderr, writeForever(open, dir))
	return 1
}

// writeForever returns only if it failed.
func writeForever(open Open, dir string) error {
	ctx := context.Background()
	s, err := open(dir)
	if err != nil {
		return err
	}
	r, err := store.Open(ctx, s, time.Now)
	if err != nil {
		return err
	}
	rev, err := revision(ctx, r)
	if err != nil {
		return err
	}
	for n := int(rev); ; n++ { //nolint:gosec // small
		if rev, err = r.Apply(ctx, "twinkey://ca", Group(n)); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(os.Stdout, rev); err != nil {
			return err
		}
	}
}

func revision(ctx context.Context, r *store.Register) (rev client.Revision, err error) {
	err = r.Read(ctx, func(rd *store.Reader) (err error) {
		rev, err = rd.Revision()
		return err
	})
	return rev, err
}

// Group is change number n, from 0 on: it adds one group, and is whole in itself.
func Group(n int) client.Change {
	return client.Change{ChangeID: "group-" + strconv.Itoa(n), Actor: "test", Groups: []client.GroupRecord{{Name: "g" + strconv.Itoa(n), Control: bytes.Repeat([]byte{1}, 32)}}}
}

// Whatever the moment of the kill: what was acknowledged is there, at most one change more
// is, and nothing of another.
func testKilled(t *testing.T, su *suite) {
	killed := 0
	for round := range 8 {
		acked := writeAndKill(t, su.dir, time.Duration(20+rand.IntN(150))*time.Millisecond) //nolint:gosec // a moment, no secret
		s, err := su.open(su.dir)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		r, err := store.Open(t.Context(), s, time.Now)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		have, err := revision(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if acked > 0 {
			killed++
			if have != acked && have != acked+1 {
				t.Errorf("round %d: revision %d, acknowledged were %d", round, have, acked)
			}
		}
		CheckWhole(t, r, have)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if killed == 0 {
		t.Error("no process was killed while it wrote: does TestMain call storetest.Main?")
	}
}

// writeAndKill returns the last revision that the process acknowledged.
func writeAndKill(t *testing.T, dir string, after time.Duration) (acked client.Revision) {
	t.Helper()
	c := exec.Command(os.Args[0]) //nolint:gosec // ourselves
	c.Env = append(os.Environ(), writeEnv+"="+dir)
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(after, func() { _ = c.Process.Signal(syscall.SIGKILL) })
	defer kill.Stop()
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if acked, err = strconv.ParseUint(lines.Text(), 10, 64); err != nil {
			t.Fatalf("the process said %q", lines.Text())
		}
	}
	_ = c.Wait() // it was killed
	return acked
}

// CheckWhole finds all of the first rev changes, and nothing of the next: the change, its
// group and its audit record.
func CheckWhole(t *testing.T, r *store.Register, rev client.Revision) {
	t.Helper()
	audit := client.Revision(0)
	if err := r.Read(t.Context(), func(rd *store.Reader) error {
		for a, err := range rd.Audit(store.AuditQuery{}) {
			if err != nil {
				return err
			}
			audit++
			if a.Revision != audit || a.Seq != audit {
				return fmt.Errorf("audit record %d says revision %d, sequence %d", audit, a.Revision, a.Seq)
			}
			if _, ok, err := rd.Group(a.Subject); err != nil || !ok {
				return fmt.Errorf("group %s is missing: %w", a.Subject, err)
			}
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	if audit != rev {
		t.Errorf("%d audit records for revision %d", audit, rev)
	}
	for n := range int(rev) + 2 { //nolint:gosec // small
		got, ok, err := r.Applied(t.Context(), Group(n).ChangeID)
		if err != nil || ok != (n < int(rev)) || ok && got != client.Revision(n)+1 { //nolint:gosec // small
			t.Errorf("change %d of %d: applied %v as revision %d, %v", n, rev, ok, got, err)
		}
	}
}
