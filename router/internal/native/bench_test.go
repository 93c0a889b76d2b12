package native_test

import (
	"net/netip"
	"strconv"
	"testing"

	"twinkey/router/internal/links"
	"twinkey/router/internal/native"
)

// BenchmarkCallSetup is the work of both routers, on one core, for one more call in a
// tunnel that is up: certificates parsed and verified, Noise IK, four SAs, L2TP, PPP until
// packets could flow. Sockets are left out; calls/s is what one core does for both ends.
func BenchmarkCallSetup(b *testing.B) {
	for _, hybrid := range []bool{true, false} {
		b.Run("post-quantum="+strconv.FormatBool(hybrid), func(b *testing.B) {
			w := newWorld(b)
			ra, rb := w.router("ra", 1), w.router("rb", 2)
			for _, x := range []*box{ra, rb} {
				x.start(func(c *native.Config) { c.Hybrid = hybrid })
			}
			group := newPair()
			const users = 200 // as many addresses as the routers' users have
			wishes := make([]native.Wish, users)
			for i := range wishes {
				uid := "u" + strconv.Itoa(i)
				wishes[i] = native.Wish{Key: links.Key{Peer: "rb", User: uid}, Cred: w.user(uid, "staff", group), Address: netip.AddrFrom4([4]byte{10, 1, 1, byte(i)})}
			}
			i := 0
			for b.Loop() {
				if i == users {
					b.StopTimer()
					for _, c := range find[native.CallUp](ra) {
						ra.e.Hangup(w.now, c.Call.ID, "the benchmark goes round")
					}
					w.settle()
					ra.events, rb.events, i = nil, nil, 0
					b.StartTimer()
				}
				if err := ra.e.PlaceCall(w.now, wishes[i]); err != nil {
					b.Fatal(err)
				}
				w.settle()
				i++
			}
			if up := len(find[native.CallUp](rb)); up != i {
				b.Fatalf("%d of %d calls are up", up, i)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
		})
	}
}

// BenchmarkTunnelSetup is the same for a tunnel with its first call.
func BenchmarkTunnelSetup(b *testing.B) {
	w := newWorld(b)
	ra, rb := w.router("ra", 1), w.router("rb", 2)
	for b.Loop() {
		if err := ra.e.PlaceCall(w.now, native.Wish{Key: links.Key{Peer: "rb"}, Cred: ra.self.Credentials}); err != nil {
			b.Fatal(err)
		}
		w.settle()
		b.StopTimer()
		if len(find[native.CallUp](rb)) != 1 {
			b.Fatalf("no call: %+v", rb.events)
		}
		ra.e.Close(w.now, "the benchmark goes round")
		w.settle()
		for _, x := range []*box{ra, rb} {
			x.start(nil)
			x.events = nil
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tunnels/s")
}
