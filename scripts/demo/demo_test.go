//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"testing"

	"twinkey/pkg/netlab"
	"twinkey/scripts/lab"
)

var errPrepare error

func TestMain(m *testing.M) {
	errPrepare = lab.Prepare()
	if errPrepare != nil && !errors.Is(errPrepare, netlab.ErrPrivileges) {
		fmt.Fprintln(os.Stderr, errPrepare)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// The demo is a test, too: every step checks what it shows.
func TestDemo(t *testing.T) {
	switch {
	case errPrepare != nil && os.Getenv("TWINKEY_NO_SKIP") == "1":
		t.Fatal("needs root:", errPrepare)
	case errPrepare != nil:
		t.Skip("needs root:", errPrepare)
	}
	var out bytes.Buffer
	err := run(t.Context(), &out, t.TempDir())
	t.Logf("\n%s", out.Bytes())
	if err != nil {
		t.Fatal(err)
	}
}
