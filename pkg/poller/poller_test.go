//go:build linux

package poller_test

import (
	"errors"
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"twinkey/pkg/poller"
)

func pair(t *testing.T) (a, b int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = unix.Close(fds[0]), unix.Close(fds[1]) })
	return fds[0], fds[1]
}

func TestWaitSaysWho(t *testing.T) {
	a, farA := pair(t)
	b, _ := pair(t)
	p, err := poller.New(a, b)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Free() //nolint:errcheck // a test
	if _, err := unix.Write(farA, []byte("x")); err != nil {
		t.Fatal(err)
	}
	ev, err := p.Wait([]bool{true, true}, []bool{false, false})
	if err != nil || !ev[0].Read || ev[0].Write || ev[1] != (poller.Events{}) {
		t.Errorf("%+v, %v", ev, err)
	}
	ev, err = p.Wait([]bool{false, true}, []bool{false, true})
	if err != nil || ev[0] != (poller.Events{}) || !ev[1].Write || ev[1].Read {
		t.Errorf("%+v, %v", ev, err)
	}
}

func TestCloseEndsWait(t *testing.T) {
	a, _ := pair(t)
	p, err := poller.New(a)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		_, err := p.Wait([]bool{true}, []bool{false})
		done <- err
	}()
	if err := errors.Join(p.Close(), p.Close()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("err = %v", err)
	}
	if _, err := p.Wait([]bool{true}, []bool{false}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("once more: %v", err)
	}
	if err := errors.Join(p.Free(), p.Free()); err != nil {
		t.Error(err)
	}
}
