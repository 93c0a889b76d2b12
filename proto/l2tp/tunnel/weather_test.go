package tunnel_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"twinkey/proto/l2tp"
	"twinkey/proto/l2tp/tunnel"
)

// A set-up whose flights take three messages each way, with any one datagram lost: it comes
// up in a few seconds, although the responder has no timer.
func TestAnyOneDatagramOfTheSetUpIsLost(t *testing.T) {
	for lost := range 40 {
		w := newWorld(t)
		n := 0
		w.weather = func([]byte) (int, int) {
			if n++; n-1 == lost {
				return 0, 0
			}
			return 1, 0
		}
		flight := func(n *node, k tunnel.Kind, message int) func(tunnel.Event) { // each flight: its message and two more
			parts := 0
			return func(e tunnel.Event) {
				if parts++; parts < 3 {
					return
				}
				n.must(n.decide(n.last(k)))
				if message > 0 {
					n.must(n.m.SendVendor(n.w.now, 0, l2tp.VendorTwinkey, 1))
					n.must(n.m.SendVendor(n.w.now, 0, l2tp.VendorTwinkey, 1))
				}
			}
		}
		w.lac.manual, w.lns.manual = true, true
		request, reply, connect := flight(w.lns, tunnel.SCCRQReceived, 1), flight(w.lac, tunnel.SCCRPReceived, 1), flight(w.lns, tunnel.SCCCNReceived, 0)
		w.dial()
		w.lac.must(w.lac.m.SendVendor(w.now, 0, l2tp.VendorTwinkey, 1))
		w.lac.must(w.lac.m.SendVendor(w.now, 0, l2tp.VendorTwinkey, 1))
		atLAC, atLNS, asked := 0, 0, false
		for range 80 { // 8 s
			w.lac.poll()
			w.lns.poll()
			for ; atLNS < len(w.lns.events); atLNS++ {
				switch e := w.lns.events[atLNS]; {
				case e.Kind == tunnel.Established:
				case !asked:
					request(e)
					asked = atLNS == 2
				default:
					connect(e)
				}
			}
			for ; atLAC < len(w.lac.events); atLAC++ {
				if w.lac.events[atLAC].Kind != tunnel.Established {
					reply(w.lac.events[atLAC])
				}
			}
			w.pass(100 * time.Millisecond)
		}
		if !w.lac.m.Up() || !w.lns.m.Up() {
			t.Fatalf("datagram %d lost: lac %q, lns %q\n%q", lost, w.lac.seen, w.lns.seen, w.log)
		}
	}
}

// In any weather that is not hopeless, everything happens once and in order.
func TestBadWeather(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 0))
			w := newWorld(t, func(lac, lns *tunnel.Config) {
				for _, c := range []*tunnel.Config{lac, lns} {
					c.MaxRetries, c.SetupTimeout, c.CallTimeout, c.HelloInterval = 40, time.Hour, time.Hour, 7*time.Second
				}
				lns.Window = uint16(seed % 9)
			})
			w.weather = func([]byte) (int, int) {
				copies := []int{0, 0, 1, 1, 1, 1, 1, 2, 3}[r.IntN(9)]
				return copies, r.IntN(4)
			}
			w.dial().pass(10 * time.Minute)
			if !w.lac.m.Up() || !w.lns.m.Up() {
				t.Fatalf("not up: %q, %q", w.lac.seen, w.lns.seen)
			}
			const n = 30
			var said []int
			for i := range n {
				w.lac.must(w.lac.m.OpenSession(w.now, uint16(i+1)))
				w.lns.must(w.lns.m.OpenSession(w.now, uint16(i+1000)))
				w.lac.must(w.lac.m.SendVendor(w.now, 0, l2tp.VendorTwinkey, uint16(i)))
				w.lns.must(w.lns.m.SendVendor(w.now, 0, l2tp.VendorTwinkey, uint16(i)))
				said = append(said, i)
				w.pass(time.Duration(r.IntN(2000)) * time.Millisecond)
			}
			w.pass(30 * time.Minute)
			for _, e := range []*node{w.lac, w.lns} {
				if !slices.Equal(e.vendors, said) {
					t.Errorf("%s heard %v", e.name, e.vendors)
				}
				if up := count(e.seen, "SessionUp"); up != 2*n {
					t.Errorf("%s: %d sessions are up", e.name, up)
				}
			}
			w.lns.m.CloseSession(w.now, 1000, l2tp.Result{Code: 3})
			w.pass(time.Minute)
			w.lac.m.Close(w.now, l2tp.Result{Code: 1})
			w.pass(10 * time.Minute)
			if count(w.lac.seen, "SessionClosed 1 3/0") != 1 || count(w.lns.seen, "Closed 1 1/0") != 1 || !w.lac.m.Done() || !w.lns.m.Done() {
				t.Errorf("the end: lac %q, lns %q", w.lac.seen, w.lns.seen)
			}
			for _, err := range append(w.lac.errs, w.lns.errs...) {
				if !errors.Is(err, tunnel.ErrTunnelID) { // of what comes after the end, or SCCRQ long after SCCCN
					t.Error(err)
				}
			}
		})
	}
}

// FuzzTunnel drives a live pair by bytes: each is something that an owner does, that becomes
// of a datagram, or that a stranger sends. Nobody panics, deadlines are never in the past,
// and vendor messages come in order and once as long as the tunnel stands.
func FuzzTunnel(f *testing.F) {
	f.Add([]byte{}, []byte{})
	f.Add([]byte{0, 1, 0, 1, 0x20, 0x21, 3, 4, 5, 6, 7, 8}, sccrq(hello(7)...))
	f.Add(bytes.Repeat([]byte{0x00, 0x01, 0x30, 0x31, 0x22, 0x53, 0x64}, 12), l2tp.AppendMessage(nil, l2tp.ControlHeader{TunnelID: 20, Ns: 2, Nr: 1}, 0, l2tp.CDN, l2tp.Result{Code: 1}.AVP()))
	f.Fuzz(func(t *testing.T, script, stranger []byte) {
		w := newWorld(t, func(lac, lns *tunnel.Config) { lac.HelloInterval, lns.MaxSessions = 10*time.Second, 5 })
		w.lenient = true
		w.dial()
		var said [2]int
		for i, b := range script {
			n, k := w.lac, 0
			if b&1 != 0 {
				n, k = w.lns, 1
			}
			if n.m != nil || len(n.inbox) > 0 {
				said[k] += w.fuzzStep(n, b>>1, said[k], i, stranger)
			}
			for _, n := range []*node{w.lac, w.lns} {
				n.checkOrder()
				n.inbox = n.inbox[max(0, len(n.inbox)-200):]
			}
		}
		for range 3 { // whatever became of it, it comes to rest
			w.settle()
			w.pass(2 * time.Minute)
		}
	})
}

// fuzzStep does one thing and returns how many vendor messages n has said by it.
func (w *world) fuzzStep(n *node, b byte, said, i int, stranger []byte) int {
	arg := int(b >> 4)
	switch b & 15 {
	case 0, 1, 2:
		n.poll()
	case 3, 4:
		if len(n.inbox) > 0 {
			n.receive()
		}
	case 5: // lost
		n.inbox = n.inbox[min(1, len(n.inbox)):]
	case 6: // doubled
		if len(n.inbox) > 0 {
			n.inbox = append(n.inbox, n.inbox[arg%len(n.inbox)])
		}
	case 7: // swapped
		if l := len(n.inbox); l > 1 {
			n.inbox[0], n.inbox[l-1] = n.inbox[l-1], n.inbox[0]
		}
	case 8:
		w.now = w.now.Add(time.Duration(arg*arg) * 300 * time.Millisecond)
		w.lac.advance()
		w.lns.advance()
	case 9, 10:
		if n.m != nil && n.m.SendVendor(w.now, 0, l2tp.VendorTwinkey, uint16(said)) == nil {
			return 1
		}
	case 11:
		if n.m != nil {
			_ = n.m.OpenSession(w.now, uint16(i+1))
		}
	case 12:
		if n.m != nil {
			n.m.CloseSession(w.now, uint16(arg*10), l2tp.Result{Code: 3})
		}
	case 13: // a stranger's bytes behind a header that fits
		msg := slices.Clone(stranger[:min(len(stranger), 200)])
		w.strange = true
		n.give(append(l2tp.ControlHeader{TunnelID: n.c.LocalID, SessionID: uint16(arg), Ns: uint16(i), Nr: uint16(arg)}.Append(nil, len(msg)), msg...))
		n.errs = nil
	case 14:
		w.strange = true
		n.give(slices.Clone(stranger))
		n.errs = nil
	case 15:
		if n.m != nil && arg == 7 {
			n.m.Close(w.now, l2tp.Result{Code: 1})
		}
	}
	return 0
}

// checkOrder wants vendor messages 0, 1, 2 ..., unless a stranger spoke: one that names the
// tunnel and the right number is taken for the peer, which the owner's SA is there to prevent.
func (n *node) checkOrder() {
	for i, v := range n.vendors {
		if v != i && !n.w.strange {
			n.w.t.Fatalf("%s heard %v", n.name, n.vendors)
		}
	}
}
