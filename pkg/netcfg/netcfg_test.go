//go:build linux

package netcfg_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"twinkey/pkg/netcfg"
	"twinkey/pkg/netlab"
)

var errPrivileges error

func TestMain(m *testing.M) {
	errPrivileges = netlab.EnsurePrivileges()
	os.Exit(m.Run())
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// onMachine runs the test on a machine of its own with one interface, eth0, that is down and empty.
func onMachine(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	switch {
	case errPrivileges != nil && os.Getenv("TWINKEY_NO_SKIP") == "1":
		t.Fatal("needs root:", errPrivileges)
	case errPrivileges != nil:
		t.Skip("needs root:", errPrivileges)
	}
	l, err := netlab.New(t.Context())
	check(t, err)
	defer func() { check(t, l.Close()) }()
	h, err := l.Host("h")
	check(t, err)
	check(t, h.Do(func() error {
		cable(t, "eth0", "peer0")
		test(t)
		return nil
	}))
}

func cable(t *testing.T, a, b string) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = a
	check(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: b}))
}

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func plan() netcfg.Plan {
	return netcfg.Plan{
		Link: "eth0", MTU: 1380, Queue: 2345, Up: true,
		Addresses: []netip.Prefix{pfx("10.1.0.1/24"), pfx("fd00:1::1/64")},
		Routes: []netcfg.Route{
			{Dst: pfx("10.2.0.0/24"), Src: netip.MustParseAddr("10.1.0.1")},
			{Dst: pfx("10.3.0.0/16"), Metric: 50},
			{Dst: pfx("fd00:2::/48"), Src: netip.MustParseAddr("fd00:1::1")},
		},
	}
}

// snapshot is what the kernel has on eth0.
func snapshot(t *testing.T) (mtu int, up bool, addrs []string, routes []netcfg.Route) {
	t.Helper()
	ifi, err := net.InterfaceByName("eth0")
	check(t, err)
	as, err := ifi.Addrs()
	check(t, err)
	for _, a := range as {
		if p := netip.MustParsePrefix(a.String()); !p.Addr().IsLinkLocalUnicast() {
			addrs = append(addrs, a.String())
		}
	}
	routes, err = netcfg.Routes("eth0")
	check(t, err)
	return ifi.MTU, ifi.Flags&net.FlagUp != 0, addrs, routes
}

func TestApplyTwiceAndUndo(t *testing.T) {
	onMachine(t, func(t *testing.T) {
		undo, err := netcfg.Apply(t.Context(), plan())
		check(t, err)
		again, err := netcfg.Apply(t.Context(), plan())
		check(t, err)
		check(t, again()) // the second changed nothing, so its undo changes nothing either
		mtu, up, addrs, routes := snapshot(t)
		if mtu != 1380 || !up || !slices.Equal(addrs, []string{"10.1.0.1/24", "fd00:1::1/64"}) {
			t.Errorf("MTU %d, up %v, %v", mtu, up, addrs)
		}
		if add, remove := netcfg.Diff(routes, plan().Routes); len(add)+len(remove) != 0 {
			t.Errorf("missing %v, too many %v", add, remove)
		}
		queue := func() int {
			l, err := netlink.LinkByName("eth0")
			check(t, err)
			return l.Attrs().TxQLen
		}
		if n := queue(); n != 2345 {
			t.Errorf("a queue of %d", n)
		}
		check(t, undo())
		check(t, undo())
		if n := queue(); n == 2345 {
			t.Error("the queue is as long as before")
		}
		mtu, up, addrs, routes = snapshot(t)
		if mtu != 1500 || up || len(addrs) != 0 || len(routes) != 0 {
			t.Errorf("left: MTU %d, up %v, %v, %v", mtu, up, addrs, routes)
		}
	})
}

func TestUndoAfterTheInterfaceIsGone(t *testing.T) {
	onMachine(t, func(t *testing.T) {
		undo, err := netcfg.Apply(t.Context(), plan())
		check(t, err)
		l, err := netlink.LinkByName("eth0")
		check(t, err)
		check(t, netlink.LinkDel(l))
		check(t, undo())
	})
}

// A route of somebody else stays, the plan fails, and what was done of it is gone.
func TestForeignRouteIsAConflict(t *testing.T) {
	onMachine(t, func(t *testing.T) {
		cable(t, "eth1", "peer1")
		other, err := netlink.LinkByName("eth1")
		check(t, err)
		check(t, netlink.LinkSetUp(other))
		_, dst, _ := net.ParseCIDR("10.3.0.0/16")
		foreign := &netlink.Route{LinkIndex: other.Attrs().Index, Dst: dst, Priority: 50, Scope: netlink.SCOPE_LINK}
		check(t, netlink.RouteAdd(foreign))

		_, err = netcfg.Apply(t.Context(), plan())
		if !errors.Is(err, netcfg.ErrConflict) {
			t.Errorf("got %v", err)
		}
		if mtu, up, addrs, routes := snapshot(t); mtu != 1500 || up || len(addrs)+len(routes) != 0 {
			t.Errorf("left: MTU %d, up %v, %v, %v", mtu, up, addrs, routes)
		}
		list, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Dst: dst}, netlink.RT_FILTER_DST)
		check(t, err)
		if len(list) != 1 || list[0].LinkIndex != other.Attrs().Index {
			t.Errorf("the foreign route: %v", list)
		}
	})
}

func TestUpdateTouchesOnlyWhatDiffers(t *testing.T) {
	onMachine(t, func(t *testing.T) {
		_, err := netcfg.Apply(t.Context(), plan())
		check(t, err)
		l, err := netlink.LinkByName("eth0")
		check(t, err)
		_, dst, _ := net.ParseCIDR("10.99.0.0/16")
		check(t, netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: dst, Scope: netlink.SCOPE_LINK})) // the operator's, on our link

		ch, done := make(chan netlink.RouteUpdate, 100), make(chan struct{})
		defer close(done)
		check(t, netlink.RouteSubscribe(ch, done))
		want := []netcfg.Route{
			{Dst: pfx("10.2.0.0/24"), Src: netip.MustParseAddr("10.1.0.1")},             // stays
			{Dst: pfx("10.3.0.0/16"), Metric: 50, Src: netip.MustParseAddr("10.1.0.1")}, // another source
			{Dst: pfx("10.4.0.0/24")},
		}
		check(t, netcfg.Update(t.Context(), "eth0", want))
		check(t, netcfg.Update(t.Context(), "eth0", want))
		_, _, _, routes := snapshot(t)
		if add, remove := netcfg.Diff(routes, want); len(add)+len(remove) != 0 {
			t.Errorf("missing %v, too many %v", add, remove)
		}
		list, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Dst: dst}, netlink.RT_FILTER_DST)
		check(t, err)
		if len(list) != 1 {
			t.Error("the operator's route is gone")
		}
		check(t, netcfg.Update(t.Context(), "eth0", nil))
		for events := 0; ; events++ { // 2 removed, 2 added; then 3 removed: 7
			u := <-ch
			if u.Dst != nil && u.Dst.String() == "10.2.0.0/24" {
				if events < 4 {
					t.Error("a route that stays was touched")
				}
			}
			if events == 6 {
				break
			}
		}
	})
}

// A route that another one is to follow goes after that has come, wider or narrower; one that has another source now is the exception.
func TestUpdateLeavesNoGap(t *testing.T) {
	onMachine(t, func(t *testing.T) {
		_, err := netcfg.Apply(t.Context(), plan())
		check(t, err)
		ch, done := make(chan netlink.RouteUpdate, 100), make(chan struct{})
		defer close(done)
		check(t, netlink.RouteSubscribe(ch, done))
		check(t, netcfg.Update(t.Context(), "eth0", []netcfg.Route{
			{Dst: pfx("10.2.0.0/25")}, {Dst: pfx("10.2.0.128/25")},
			{Dst: pfx("10.3.0.0/16"), Metric: 50, Src: netip.MustParseAddr("10.1.0.1")},
			{Dst: pfx("fd00:2::/32")},
		}))
		var got []string
		for len(got) < 7 {
			u := <-ch
			if u.Protocol != netcfg.Protocol {
				continue
			}
			what := "+"
			if u.Type == unix.RTM_DELROUTE {
				what = "-"
			}
			got = append(got, what+u.Dst.String())
		}
		if want := []string{"+10.2.0.0/25", "+10.2.0.128/25", "+fd00:2::/32", "-10.2.0.0/24", "-10.3.0.0/16", "-fd00:2::/48", "+10.3.0.0/16"}; !slices.Equal(got, want) {
			t.Errorf("got  %v\nwant %v", got, want)
		}
	})
}

// Routes of a lasting interface stay when its last address goes, which the kernel takes others away for.
func TestLastingRoutesOutlastAddresses(t *testing.T) {
	onMachine(t, func(t *testing.T) {
		for _, lasting := range []bool{true, false} {
			back, err := netcfg.Apply(t.Context(), netcfg.Plan{Link: "eth0", Up: true, Lasting: lasting})
			check(t, err)
			undo, err := netcfg.Apply(t.Context(), netcfg.Plan{Link: "eth0", Addresses: []netip.Prefix{pfx("10.1.1.3/32")}})
			check(t, err)
			check(t, netcfg.Update(t.Context(), "eth0", []netcfg.Route{{Dst: pfx("10.3.0.0/16"), Metric: 50}, {Dst: pfx("10.2.0.0/24"), Src: netip.MustParseAddr("10.1.1.3")}}))
			check(t, undo())
			_, _, _, routes := snapshot(t)
			if got, want := fmt.Sprint(routes), map[bool]string{true: "[10.3.0.0/16 metric 50]", false: "[]"}[lasting]; got != want {
				t.Errorf("lasting %v: left %s, want %s", lasting, got, want)
			}
			check(t, back())
		}
		if _, up, addrs, routes := snapshot(t); up || len(addrs)+len(routes) != 0 {
			t.Errorf("left: up %v, %v, %v", up, addrs, routes)
		}
	})
}

func TestErrors(t *testing.T) {
	onMachine(t, func(t *testing.T) {
		p := plan()
		p.Link = "none0"
		if _, err := netcfg.Apply(t.Context(), p); !errors.Is(err, netcfg.ErrNoLink) {
			t.Errorf("no link: %v", err)
		}
		if err := netcfg.Update(t.Context(), "none0", nil); !errors.Is(err, netcfg.ErrNoLink) {
			t.Errorf("no link: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		undo, err := netcfg.Apply(ctx, plan())
		if !errors.Is(err, context.Canceled) || undo() != nil {
			t.Errorf("cancelled: %v", err)
		}
	})
}

func TestCheckRefuses(t *testing.T) {
	for name, p := range map[string]netcfg.Plan{
		"no link":          {},
		"MTU":              {Link: "x", MTU: 70000},
		"queue":            {Link: "x", Queue: -1},
		"address twice":    {Link: "x", Addresses: []netip.Prefix{pfx("10.0.0.1/8"), pfx("10.0.0.1/8")}},
		"no address":       {Link: "x", Addresses: []netip.Prefix{{}}},
		"host bits":        {Link: "x", Routes: []netcfg.Route{{Dst: pfx("10.0.0.1/8")}}},
		"no destination":   {Link: "x", Routes: []netcfg.Route{{}}},
		"family":           {Link: "x", Routes: []netcfg.Route{{Dst: pfx("10.0.0.0/8"), Src: netip.MustParseAddr("::1")}}},
		"route twice":      {Link: "x", Routes: []netcfg.Route{{Dst: pfx("10.0.0.0/8")}, {Dst: pfx("10.0.0.0/8")}}},
		"IPv6 route twice": {Link: "x", Routes: []netcfg.Route{{Dst: pfx("fd00::/8")}, {Dst: pfx("fd00::/8"), Metric: 1024}}},
	} {
		if err := p.Check(); !errors.Is(err, netcfg.ErrPlan) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := plan().Check(); err != nil {
		t.Error(err)
	}
}

// Whatever there is and is wanted: what Diff says leads from the one to the other.
func TestDiffProperty(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	set := func() (s []netcfg.Route) {
		for i := range 12 {
			if rng.IntN(2) == 0 {
				r := netcfg.Route{Dst: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i / 2)}), 16), Metric: i % 2 * 10}
				if rng.IntN(2) == 0 {
					r.Src = netip.AddrFrom4([4]byte{10, 0, 0, byte(rng.IntN(2))})
				}
				s = append(s, r)
			}
		}
		return s
	}
	for range 500 {
		have, want := set(), set()
		add, remove := netcfg.Diff(have, want)
		got := slices.DeleteFunc(slices.Clone(have), func(r netcfg.Route) bool { return slices.Contains(remove, r) })
		got = append(got, add...)
		for _, r := range want {
			if !slices.Contains(got, r) {
				t.Fatalf("have %v want %v: %v is missing", have, want, r)
			}
		}
		if len(got) != len(want) || len(add)+len(remove) > len(have)+len(want) {
			t.Fatalf("have %v want %v: got %v", have, want, got)
		}
	}
}

func TestWithin(t *testing.T) {
	onMachine(t, func(t *testing.T) {
		_, err := netcfg.Apply(t.Context(), plan())
		check(t, err)
		got, err := netcfg.Within([]netip.Prefix{pfx("fd00::/8"), pfx("10.1.0.0/16"), pfx("192.168.0.0/16"), pfx("fe80::/10")})
		check(t, err)
		if !slices.Equal(got, []netip.Addr{netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("fd00:1::1")}) {
			t.Errorf("got %v", got)
		}
	})
}

// What is behind a gateway, everything, one interface, and what lies at the end of a line are no networks that the machine is in.
func TestOnLink(t *testing.T) {
	onMachine(t, func(t *testing.T) {
		cable(t, "eth1", "peer1")
		p := plan()
		p.Routes = nil
		_, err := netcfg.Apply(t.Context(), p)
		check(t, err)
		_, err = netcfg.Apply(t.Context(), netcfg.Plan{Link: "eth1", Up: true, Addresses: []netip.Prefix{pfx("10.7.0.1/24")}})
		check(t, err)
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "line0"
		check(t, netlink.LinkAdd(&netlink.Tuntap{LinkAttrs: attrs, Mode: netlink.TUNTAP_MODE_TUN}))
		_, err = netcfg.Apply(t.Context(), netcfg.Plan{Link: "line0", Up: true, Routes: []netcfg.Route{{Dst: pfx("10.8.0.0/16")}}})
		check(t, err)
		l, err := netlink.LinkByName("eth0")
		check(t, err)
		add := func(dst, gw string, scope netlink.Scope) {
			t.Helper()
			_, n, err := net.ParseCIDR(dst)
			check(t, err)
			check(t, netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: n, Gw: net.ParseIP(gw), Scope: scope}))
		}
		add("10.5.0.0/16", "", netlink.SCOPE_LINK)
		add("10.6.0.0/16", "10.1.0.9", netlink.SCOPE_UNIVERSE)
		add("0.0.0.0/0", "10.1.0.9", netlink.SCOPE_UNIVERSE)
		got, err := netcfg.OnLink("eth1")
		check(t, err)
		if want := []netip.Prefix{pfx("10.1.0.0/24"), pfx("10.5.0.0/16"), pfx("fd00:1::/64")}; !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

func TestForwarding(t *testing.T) {
	onMachine(t, func(t *testing.T) {
		undo, err := netcfg.EnableForwarding(true)
		check(t, err)
		ip4, ip6, err := netcfg.Forwarding()
		if !ip4 || !ip6 || err != nil {
			t.Errorf("%v %v %v", ip4, ip6, err)
		}
		check(t, undo())
		if ip4, ip6, err = netcfg.Forwarding(); ip4 || ip6 || err != nil {
			t.Errorf("%v %v %v", ip4, ip6, err)
		}
	})
}
