package operator_test

import (
	"net"
	"path/filepath"
	"testing"

	"twinkey/pkg/operator"
)

func TestWhoIsAtTheOtherEnd(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	here, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	there, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	if who := operator.Of(operator.Context(t.Context(), there)); who != operator.Self() || who == "unknown" {
		t.Errorf("%q, want %q", who, operator.Self())
	}
}

func TestNobodyIsNobody(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if who := operator.Of(operator.Context(t.Context(), a)); who != "unknown" {
		t.Errorf("over no socket: %q", who)
	}
	if who := operator.Of(t.Context()); who != "unknown" {
		t.Errorf("without a connection: %q", who)
	}
}
