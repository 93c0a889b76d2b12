package udptest_test

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"twinkey/pkg/udpio"
	"twinkey/pkg/udpio/udptest"
)

var (
	left  = netip.MustParseAddrPort("198.18.0.1:1701")
	right = netip.MustParseAddrPort("198.18.0.2:1701")
)

func pair(t *testing.T, n *udptest.Network) (a, b *udptest.Conn) {
	t.Helper()
	a, err := n.Listen(left)
	if err != nil {
		t.Fatal(err)
	}
	if b, err = n.Listen(right); err != nil {
		t.Fatal(err)
	}
	return a, b
}

// send writes datagrams of one byte each, 1 to n.
func send(t *testing.T, c udpio.Conn, to netip.AddrPort, n int) {
	t.Helper()
	for i := range n {
		if err := c.Write([][]byte{{byte(i + 1)}}, to); err != nil {
			t.Fatal(err)
		}
	}
}

// receive reads what arrives within d of virtual time, then closes c.
func receive(t *testing.T, c *udptest.Conn, d time.Duration) (got []byte) {
	t.Helper()
	time.AfterFunc(d, func() { _ = c.Close() })
	in := []udpio.Train{{Buf: make([]byte, 10)}, {Buf: make([]byte, 10)}}
	for {
		n, err := c.Receive(in)
		if errors.Is(err, net.ErrClosed) {
			return got
		}
		for _, tr := range in[:n] {
			if tr.N != 1 || tr.Size != 1 || tr.Addr != left {
				t.Fatalf("%+v", tr)
			}
			got = append(got, tr.Buf[0])
		}
		if n == 0 {
			<-c.Ready()
		}
	}
}

func TestTrainsArriveAsDatagrams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(t, udptest.NewNetwork())
		if n, err := a.Send([]udpio.Train{{Buf: []byte{1, 2, 3}, N: 3, Size: 1, Addr: right}}); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		if got := receive(t, b, time.Second); !slices.Equal(got, []byte{1, 2, 3}) {
			t.Error(got)
		}
	})
}

func TestFairWeather(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(t, udptest.NewNetwork())
		send(t, a, right, 5)
		if got := receive(t, b, time.Second); !slices.Equal(got, []byte{1, 2, 3, 4, 5}) {
			t.Error(got)
		}
	})
}

func TestScriptLosesDuplicatesReorders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := udptest.NewNetwork()
		a, b := pair(t, n)
		n.Script(func(d udptest.Datagram) []time.Duration {
			switch d.N {
			case 2:
				return nil
			case 3:
				return []time.Duration{time.Millisecond, 5 * time.Millisecond}
			case 4:
				return []time.Duration{0}
			}
			return []time.Duration{3 * time.Millisecond}
		})
		send(t, a, right, 5)
		if got := receive(t, b, time.Second); len(got) != 5 || got[0] != 4 || got[1] != 3 || got[4] != 3 {
			t.Error(got)
		}
		if n.Lost() != 1 {
			t.Errorf("%d lost", n.Lost())
		}
	})
}

func TestWeatherIsTheSameForTheSameSeed(t *testing.T) {
	run := func(seed uint64) (got []byte) {
		synctest.Test(t, func(t *testing.T) {
			n := udptest.NewNetwork()
			a, b := pair(t, n)
			n.Script(udptest.Weather{Loss: 0.2, Duplicate: 0.1, Delay: time.Millisecond, Jitter: 5 * time.Millisecond}.Script(seed))
			send(t, a, right, 100)
			got = receive(t, b, time.Second)
		})
		return got
	}
	first := run(1)
	if len(first) < 70 || len(first) == 100 || slices.IsSorted(first) {
		t.Errorf("no weather: %v", first)
	}
	if !slices.Equal(first, run(1)) || slices.Equal(first, run(2)) {
		t.Error("the seed does not decide")
	}
}

func TestAddresses(t *testing.T) {
	n := udptest.NewNetwork()
	a, _ := pair(t, n)
	if _, err := n.Listen(left); err == nil {
		t.Error("two listen on one address")
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if err := a.Write([][]byte{{1}}, right); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if _, err := n.Listen(left); err != nil {
		t.Errorf("the address of a closed Conn is not free: %v", err)
	}
}
