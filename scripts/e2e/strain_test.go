//go:build linux

package e2e

import (
	"context"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"twinkey/pkg/netlab"
	"twinkey/scripts/lab"
)

// Every offload of every interface of a router is switched off and on again under running transfers. What the kernel takes
// back it does by itself from then on, or refuses (a UDP message of several datagrams, where the card sums nothing, in
// some versions); either way nothing is changed, and nothing stops.
func TestOffloadsTakenBack(t *testing.T) {
	needs(t, "ethtool", "ethtool")
	c := company(t)
	mustPing(t, c, lab.SiteA.Host)
	call := siteCall(t, c, lab.SiteA)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var wg sync.WaitGroup
	for _, way := range []struct {
		from, to *netlab.Host
		addr     netip.Addr
	}{{c.HostA, c.HostB, lab.SiteB.Host}, {c.HostB, c.HostA, lab.SiteA.Host}} {
		wg.Go(func() {
			for n := int64(1); n == 1 || ctx.Err() == nil; n++ {
				tr, err := netlab.Transfer(t.Context(), way.from, way.to, way.addr, io.LimitReader(&pattern{seed: uint64(n)}, 20<<20+n)) //nolint:gosec // a small number
				if err != nil || !tr.Intact() || tr.Bytes != 20<<20+n {
					t.Errorf("to %s: %d bytes arrived, intact: %v: %v", way.addr, tr.Bytes, tr.Intact(), err)
					return
				}
			}
		})
	}
	switched := 0
	for _, dev := range []string{"twinkey0", "wan0", "lan0"} {
		for _, feature := range []string{"tso", "gso", "gro", "tx", "rx", "sg", "tx-udp-segmentation", "rx-udp-gro-forwarding"} {
			for _, state := range []string{"off", "on"} {
				out, err := c.RA.Command(ctx, "ethtool", "-K", dev, feature, state).CombinedOutput()
				if err == nil {
					switched++
				} else if !strings.Contains(string(out), "Cannot change") && !strings.Contains(string(out), "Could not change") && !strings.Contains(string(out), "not supported") {
					t.Errorf("ethtool -K %s %s %s: %v: %s", dev, feature, state, err, out)
				}
				datagrams(t, c, []int{1, 1300, 3000, 20000})
			}
		}
	}
	stop()
	wg.Wait()
	t.Logf("%d switches", switched)
	if switched < 20 {
		t.Errorf("only %d switches were possible", switched)
	}
	if now := siteCall(t, c, lab.SiteA); now.ID != call.ID {
		t.Errorf("the call was lost meanwhile: %d, then %d", call.ID, now.ID)
	}
}

// More than every queue holds, for as long as the routers would have to notice: what does not fit is dropped and counted,
// the call stays, and as soon as it is over all is as before.
func TestBurstPastEveryQueue(t *testing.T) {
	c := company(t)
	mustPing(t, c, lab.SiteA.Host)
	call := siteCall(t, c, lab.SiteA)
	const slow = 20e6 / 8
	check(t, c.RA.Shape("wan0", slow))
	sent, arrived := flood(t, c, 3*time.Second)
	if sent < 2*arrived {
		t.Errorf("%d datagrams sent and %d arrived: that was no burst", sent, arrived)
	}
	var dropped uint64
	for _, n := range status(t, c, lab.SiteA).Drops {
		dropped += n
	}
	for _, dev := range []string{"twinkey0", "wan0"} {
		check(t, c.RA.Do(func() error {
			l, err := netlink.LinkByName(dev)
			if err != nil {
				return err
			}
			dropped += l.Attrs().Statistics.TxDropped
			qs, err := netlink.QdiscList(l)
			for _, q := range qs {
				if s := q.Attrs().Statistics; s != nil && s.Queue != nil {
					dropped += uint64(s.Queue.Drops)
				}
			}
			return err
		}))
	}
	t.Logf("%d datagrams sent, %d arrived, %d counted as dropped", sent, arrived, dropped)
	if missing := uint64(sent - arrived); dropped < missing/2 { //nolint:gosec // more are sent than arrive
		t.Errorf("%d datagrams are missing, %d counted", missing, dropped)
	}
	mustPing(t, c, lab.SiteA.Host)
	check(t, c.RA.Shape("wan0", 0))
	pingsAgain(t, c, 2*time.Second)
	transfers(t, c, 1, 5<<20)
	if now := siteCall(t, c, lab.SiteA); now.ID != call.ID {
		t.Errorf("the call was lost meanwhile: %d, then %d", call.ID, now.ID)
	}
}

// flood has hosta send datagrams of changing lengths to hostb as fast as it can.
func flood(t *testing.T, c *lab.Company, long time.Duration) (sent, arrived int) {
	t.Helper()
	var pc net.PacketConn
	check(t, c.HostB.Do(func() (err error) {
		pc, err = net.ListenPacket("udp4", net.JoinHostPort(lab.SiteB.Host.String(), "0"))
		return err
	}))
	addr, err := netip.ParseAddrPort(pc.LocalAddr().String())
	check(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1<<16)
		for {
			if _, _, err := pc.ReadFrom(buf); err != nil {
				return
			}
			arrived++
		}
	}()
	conn, err := c.HostA.Dial(t.Context(), "udp4", addr)
	check(t, err)
	buf := make([]byte, 1400)
	for end := time.Now().Add(long); time.Now().Before(end); sent++ {
		if _, err := conn.Write(buf[:1+sent*37%len(buf)]); err != nil {
			sent-- // a queue of hosta's own
		}
	}
	time.Sleep(500 * time.Millisecond) // what is still in the queues
	check(t, pc.Close())
	check(t, conn.Close())
	<-done
	return sent, arrived
}
