package engine

import (
	"net/netip"
	"strconv"
	"sync"
	"testing"

	"twinkey/pkg/twincert"
	"twinkey/pkg/udpio"
	"twinkey/proto/secret"
	"twinkey/router/internal/links"
	"twinkey/router/internal/native"
)

// BenchmarkLogin is call set-up between two routers over UDP sockets on loopback: one
// tunnel, each call with a certificate of its own of one group, verified in full at the
// far end, until packets may flow. Both routers share this machine's cores.
func BenchmarkLogin(b *testing.B) {
	for _, hybrid := range []bool{true, false} {
		b.Run("post-quantum="+strconv.FormatBool(hybrid), func(b *testing.B) {
			c := newCompanyOver(b, nil, hybrid, func(int) udpio.Conn {
				return must(udpio.Listen(netip.MustParseAddrPort("127.0.0.1:0"), udpio.Options{RcvBuf: 4 << 20, SndBuf: 4 << 20}))[0]
			})
			c.linked()
			const users = 200 // addresses of 10.1.1.0/24
			group := c.credentials(twincert.Template{Role: twincert.User, Name: "first", Group: "staff"}).Control
			wishes := make([]native.Wish, users)
			for i := range wishes {
				uid := "u" + strconv.Itoa(i)
				cred := c.credentialsWith(twincert.Template{Role: twincert.User, Name: uid, Group: "staff"}, &group)
				wishes[i] = native.Wish{Key: links.Key{Peer: "rb", User: uid}, Cred: cred, Address: netip.AddrFrom4([4]byte{10, 1, 1, byte(i)})}
			}
			calls := 0
			for b.Loop() { // one round is all users at once
				var wg sync.WaitGroup
				for _, w := range wishes {
					w.Cred.Control.Private, w.Cred.Data.Private = secret.Copy(w.Cred.Control.Private.Bytes()), secret.Copy(w.Cred.Data.Private.Bytes()) // the engine wipes them
					wg.Go(func() {
						if _, err := c.ra.Login(b.Context(), w); err != nil {
							b.Error(err)
						}
					})
				}
				wg.Wait()
				calls += users
				b.StopTimer()
				for _, w := range wishes {
					if _, err := c.ra.Hangup(b.Context(), 0, w.Key.User); err != nil {
						b.Fatal(err)
					}
				}
				until(b, "the end of all calls", func() bool { return len(c.rb.calls(b)) == 1 })
				b.StartTimer()
			}
			b.ReportMetric(float64(calls)/b.Elapsed().Seconds(), "calls/s")
			b.ReportMetric(0, "ns/op")
		})
	}
}
