//go:build linux

package e2e

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"twinkey/pkg/netlab"
	"twinkey/proto/esp"
	"twinkey/proto/ip"
	"twinkey/scripts/lab"
)

// A path that carries less than Ethernet, wherever that is: it is found out, hosts are told what
// is left for them, TCP passes both ways, and nothing on the WAN is ever cut.
func TestPathMTU(t *testing.T) {
	for _, tt := range []struct {
		name   string
		mtu    int
		narrow func(*testing.T, *lab.Company, int)
	}{
		{"1400 at one router", 1400, func(t *testing.T, c *lab.Company, mtu int) { check(t, c.RA.SetMTU("wan0", mtu)) }},
		{"1280 at one router", 1280, func(t *testing.T, c *lab.Company, mtu int) { check(t, c.RA.SetMTU("wan0", mtu)) }},
		{"1400 in the middle", 1400, func(t *testing.T, c *lab.Company, mtu int) { constrict(t, transit(t, c), mtu) }},
		{"1280 in the middle", 1280, func(t *testing.T, c *lab.Company, mtu int) { constrict(t, transit(t, c), mtu) }},
		{"1400 in the middle, in silence", 1400, func(t *testing.T, c *lab.Company, mtu int) {
			h := transit(t, c)
			silence(t, c, h)
			constrict(t, h, mtu)
		}},
		{"1280 in the middle, in silence", 1280, func(t *testing.T, c *lab.Company, mtu int) {
			h := transit(t, c)
			silence(t, c, h)
			constrict(t, h, mtu)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := network(t)
			tt.narrow(t, c, tt.mtu)
			uncut := whole(t, c)
			check(t, c.Up(t.Context()))
			pathsAre(t, c, tt.mtu, 10*time.Second)

			private := esp.AES256GCM.ImplicitIV().Fits(tt.mtu-28) + ip.ShortBy // behind IPv4 and UDP
			isTold(t, c, private)
			pong, err := c.HostA.Ping(t.Context(), netlab.Ping{To: lab.SiteB.Host, Count: 3, Size: private - 28})
			if err != nil || pong.Received != pong.Sent {
				t.Errorf("pings of %d bytes: %v, %v", private, pong, err)
			}
			transfers(t, c, 1, 20<<20)
			datagrams(t, c, []int{private - 28, private - 27, 1472, 5000})
			uncut()
		})
	}
}

// A path becomes narrow under a TCP stream, and whoever could say so is not heard.
func TestBlackHole(t *testing.T) {
	c := network(t)
	h := transit(t, c)
	silence(t, c, h)
	uncut := whole(t, c)
	check(t, c.Up(t.Context()))
	pathsAre(t, c, 1500, 10*time.Second)
	before := siteCall(t, c, lab.SiteA)

	ctx, stop := context.WithTimeout(t.Context(), 90*time.Second)
	defer stop()
	const size = 30 << 20
	began := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		src := &paced{r: io.LimitReader(&pattern{seed: 3}, size), began: began}
		tr, err := netlab.Transfer(ctx, c.HostA, c.HostB, lab.SiteB.Host, src)
		if err == nil && (!tr.Intact() || tr.Bytes != size) {
			err = fmt.Errorf("%d bytes arrived, intact: %v", tr.Bytes, tr.Intact())
		}
		done <- err
	}()
	<-began
	constrict(t, h, 1300)
	check(t, <-done)
	pathsAre(t, c, 1280, 20*time.Second)
	if after := siteCall(t, c, lab.SiteA); after.ID != before.ID {
		t.Errorf("the site link was call %d and is %d", before.ID, after.ID)
	}
	uncut()
}

// paced reads slowly, so that something happens to the path meanwhile, and says when it has begun.
type paced struct {
	r     io.Reader
	n     int
	began chan struct{}
}

func (p *paced) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	const pause = 1 << 20
	if before := p.n; before/pause != (before+n)/pause {
		if before/pause == 0 {
			close(p.began)
		}
		time.Sleep(100 * time.Millisecond)
	}
	p.n += n
	return n, err
}

// transit puts a router of the public network between rb and the rest of the WAN, by proxy ARP: nobody has
// to know of it.
func transit(t *testing.T, c *lab.Company) *netlab.Host {
	t.Helper()
	h, err := c.Lab.Host("transit")
	check(t, err)
	check(t, c.RB.Do(func() error {
		l, err := netlink.LinkByName("wan0")
		if err != nil {
			return err
		}
		return netlink.LinkDel(l)
	}))
	check(t, c.Lab.Link(h, "rb0", netip.Prefix{}, c.RB, "wan0", netip.PrefixFrom(lab.SiteB.WAN, lab.WANPrefix.Bits())))
	check(t, c.Lab.Attach(h, "wan0", netip.PrefixFrom(netip.MustParseAddr("198.18.0.200"), lab.WANPrefix.Bits()), c.WAN))
	for name, value := range map[string]string{
		"net.ipv4.ip_forward": "1", "net.ipv4.conf.rb0.proxy_arp": "1", "net.ipv4.conf.wan0.proxy_arp": "1",
		"net.ipv4.neigh.rb0.proxy_delay": "0", "net.ipv4.neigh.wan0.proxy_delay": "0",
	} {
		check(t, h.Sysctl(name, value))
	}
	check(t, h.Do(func() error {
		l, err := netlink.LinkByName("rb0")
		if err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: netlink.NewIPNet(lab.SiteB.WAN.AsSlice()), Scope: netlink.SCOPE_LINK})
	}))
	return h
}

// constrict has the transit router carry no more than mtu bytes, either way.
func constrict(t *testing.T, h *netlab.Host, mtu int) {
	t.Helper()
	check(t, h.SetMTU("rb0", mtu))
	check(t, h.SetMTU("wan0", mtu))
}

// silence has the transit router say nothing of what it drops. The TCP connections of the routers with headquarters
// look after themselves (RFC 4821).
func silence(t *testing.T, c *lab.Company, h *netlab.Host) {
	t.Helper()
	needs(t, "nft", "nftables")
	for _, x := range []*netlab.Host{c.RA, c.RB, c.HQ} {
		check(t, x.Sysctl("net.ipv4.tcp_mtu_probing", "2"))
	}
	cmd := h.Command(t.Context(), "nft", "-f", "-")
	cmd.Stdin = strings.NewReader("table ip silence { chain output { type filter hook output priority 0; meta l4proto icmp drop; }; }\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v\n%s", err, out)
	}
}

// pathsAre waits until both routers are sure that their path carries so much.
func pathsAre(t *testing.T, c *lab.Company, mtu int, within time.Duration) {
	t.Helper()
	for _, s := range []lab.Site{lab.SiteA, lab.SiteB} {
		check(t, lab.Until(t.Context(), fmt.Sprintf("a path of %d bytes at %s", mtu, s.Name), within, func(ctx context.Context) error {
			st, err := c.Status(ctx, s)
			if err != nil {
				return err
			}
			for _, tun := range st.Tunnels { // the attempt that came before the site map may linger
				if tun.Calls > 0 && tun.PathMTU == mtu && tun.Path == "complete" {
					return nil
				}
			}
			return fmt.Errorf("tunnels %+v", st.Tunnels)
		}))
	}
}

// isTold sends from hosta what is too long and may not be cut, and demands that hosta is told what fits: first by the
// kernel, what the interface takes, then by the router.
func isTold(t *testing.T, c *lab.Company, want int) {
	t.Helper()
	var fd int
	check(t, c.HostA.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		return err
	}))
	defer unix.Close(fd) //nolint:errcheck // a test
	check(t, unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO))
	check(t, unix.Connect(fd, &unix.SockaddrInet4{Port: 9, Addr: lab.SiteB.Host.As4()}))
	mtu := 1500
	check(t, lab.Until(t.Context(), "ICMP \"fragmentation needed\" at hosta", 5*time.Second, func(context.Context) (err error) {
		_, _ = unix.Write(fd, make([]byte, mtu-28)) // the error is of an earlier one
		if mtu, err = unix.GetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU); err != nil {
			return err
		}
		if mtu != want {
			return fmt.Errorf("hosta was told %d bytes, not %d", mtu, want)
		}
		return nil
	}))
}

// whole captures the WAN; what it returns demands that no fragment crossed it, and that tunnels' datagrams forbid
// cutting.
func whole(t *testing.T, c *lab.Company) func() {
	t.Helper()
	file := filepath.Join(c.Dir, "wan-whole.pcap")
	capture, err := c.WAN.Capture(file)
	check(t, err)
	return func() {
		t.Helper()
		check(t, capture.Close())
		datagrams := 0
		for frame, err := range netlab.Frames(file) {
			check(t, err)
			const eth, ipv4, more, offset, dont = 14, 20, 0x2000, 0x1fff, 0x4000
			if len(frame) < eth+ipv4 || binary.BigEndian.Uint16(frame[12:]) != unix.ETH_P_IP {
				continue
			}
			flags := binary.BigEndian.Uint16(frame[eth+6:])
			if flags&(more|offset) != 0 {
				t.Errorf("a fragment on the WAN: % x", frame[:eth+ipv4])
			}
			if udpPayload(frame) != nil {
				datagrams++
				if flags&dont == 0 {
					t.Errorf("a datagram that may be cut: % x", frame[:eth+ipv4])
				}
			}
		}
		if datagrams == 0 {
			t.Error("nothing was captured")
		}
	}
}
