//go:build linux

package netcfg

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Apply brings the interface to the plan. undo takes back what this call changed, in reverse; it is
// never nil, may be called more than once, and finds nothing to do where the interface is gone. If Apply
// fails it has undone itself. ctx is looked at between steps.
func Apply(ctx context.Context, p Plan) (undo func() error, err error) {
	nothing := func() error { return nil }
	if err := p.Check(); err != nil {
		return nothing, err
	}
	l, err := find(p.Link)
	if err != nil {
		return nothing, err
	}
	var done undoList
	steps := []func() (func() error, error){
		func() (func() error, error) { return setMTU(l, p.MTU) },
		func() (func() error, error) { return setQueue(l, p.Queue) },
		func() (func() error, error) { return setUp(l, p.Up) },
	}
	if p.Lasting {
		steps = append(steps, func() (func() error, error) { return addAddress(l, dummy, netlink.SCOPE_HOST) })
	}
	for _, a := range p.Addresses {
		steps = append(steps, func() (func() error, error) { return addAddress(l, a, netlink.SCOPE_UNIVERSE) })
	}
	for _, r := range p.Routes {
		steps = append(steps, func() (func() error, error) { return addRoute(l, r) })
	}
	for _, step := range steps {
		if err := ctx.Err(); err != nil {
			return nothing, errors.Join(fmt.Errorf("setting up %s: %w", p.Link, err), done.run())
		}
		back, err := step()
		if err != nil {
			return nothing, errors.Join(fmt.Errorf("setting up %s: %w", p.Link, err), done.run())
		}
		done.push(back)
	}
	return done.run, nil
}

// undoList runs each step back at most once, the last first.
type undoList struct{ steps []func() error }

func (u *undoList) push(f func() error) {
	if f != nil {
		u.steps = append(u.steps, f)
	}
}

func (u *undoList) run() error {
	var errs []error
	for _, f := range slices.Backward(u.steps) {
		if err := f(); err != nil && !gone(err) {
			errs = append(errs, err)
		}
	}
	u.steps = nil
	return errors.Join(errs...)
}

// gone says that the thing to take away is not there any more.
func gone(err error) bool {
	return errors.Is(err, ErrNoLink) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EADDRNOTAVAIL)
}

func find(name string) (netlink.Link, error) {
	l, err := netlink.LinkByName(name)
	if _, ok := errors.AsType[netlink.LinkNotFoundError](err); ok {
		return nil, fmt.Errorf("interface %s: %w", name, ErrNoLink)
	}
	if err != nil {
		return nil, fmt.Errorf("looking for interface %s: %w", name, err)
	}
	return l, nil
}

func setMTU(l netlink.Link, mtu int) (func() error, error) {
	old := l.Attrs().MTU
	if mtu == 0 || mtu == old {
		return nil, nil
	}
	if err := netlink.LinkSetMTU(l, mtu); err != nil {
		return nil, fmt.Errorf("MTU %d: %w", mtu, err)
	}
	return func() error { return netlink.LinkSetMTU(l, old) }, nil
}

func setQueue(l netlink.Link, n int) (func() error, error) {
	old := l.Attrs().TxQLen
	if n == 0 || n == old {
		return nil, nil
	}
	if err := netlink.LinkSetTxQLen(l, n); err != nil {
		return nil, fmt.Errorf("queue of %d: %w", n, err)
	}
	return func() error { return netlink.LinkSetTxQLen(l, old) }, nil
}

func setUp(l netlink.Link, up bool) (func() error, error) {
	if !up || l.Attrs().Flags&net.FlagUp != 0 {
		return nil, nil
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return nil, fmt.Errorf("bringing the link up: %w", err)
	}
	return func() error { return netlink.LinkSetDown(l) }, nil
}

// dummy is the address that makes an interface's IPv4 routes last.
var dummy = netip.MustParsePrefix("192.0.0.8/32")

func addAddress(l netlink.Link, a netip.Prefix, scope netlink.Scope) (func() error, error) {
	addr := &netlink.Addr{IPNet: ipNet(a), Scope: int(scope)}
	if a.Addr().Is6() {
		// Nobody else is on a tunnel interface; waiting for an answer that cannot come would make
		// the address unusable for a second.
		addr.Flags = unix.IFA_F_NODAD
	}
	err := netlink.AddrAdd(l, addr)
	if errors.Is(err, unix.EEXIST) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("address %s: %w", a, err)
	}
	return func() error { return netlink.AddrDel(l, addr) }, nil
}

func addRoute(l netlink.Link, r Route) (func() error, error) {
	kr := kernelRoute(l, r)
	// RouteAdd asks for creation only: the kernel refuses a second route to the same destination with the same metric
	// instead of replacing it.
	err := netlink.RouteAdd(kr)
	if errors.Is(err, unix.EEXIST) {
		have, lerr := Routes(l.Attrs().Name)
		if lerr != nil {
			return nil, lerr
		}
		if slices.ContainsFunc(have, func(h Route) bool { return h.key() == r.key() && h.Src == r.Src }) {
			return nil, nil
		}
		return nil, fmt.Errorf("route %s: %w", r, ErrConflict)
	}
	if err != nil {
		return nil, fmt.Errorf("route %s: %w", r, err)
	}
	return func() error { return netlink.RouteDel(kr) }, nil
}

// Routes lists our routes out of the interface.
func Routes(link string) ([]Route, error) {
	l, err := find(link)
	if err != nil {
		return nil, err
	}
	filter := &netlink.Route{LinkIndex: l.Attrs().Index, Protocol: Protocol, Table: unix.RT_TABLE_MAIN}
	list, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, filter, netlink.RT_FILTER_OIF|netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, fmt.Errorf("listing routes of %s: %w", link, err)
	}
	var routes []Route
	for _, kr := range list {
		dst, ok := prefix(kr.Dst)
		if !ok {
			continue // ours always have a destination
		}
		r := Route{Dst: dst, Metric: kr.Priority}
		if src, ok := netip.AddrFromSlice(kr.Src); ok {
			r.Src = src.Unmap()
		}
		if dst.Addr().Is6() && r.Metric == ipv6DefaultMetric {
			r.Metric = 0
		}
		routes = append(routes, r)
	}
	return routes, nil
}

// Update makes our routes out of the interface exactly those wanted. New ones come before unneeded ones go, so that there is always one to what has one before and
// after; but for those that are to take the place of one with another source. It goes on after a failure and returns all of them joined; calling it
// again completes the work.
func Update(ctx context.Context, link string, want []Route) error {
	if err := checkRoutes(want); err != nil {
		return err
	}
	l, err := find(link)
	if err != nil {
		return err
	}
	have, err := Routes(link)
	if err != nil {
		return err
	}
	var errs []error
	for _, c := range inOrder(Diff(have, want)) {
		if err := ctx.Err(); err != nil {
			return errors.Join(append(errs, err)...)
		}
		if !c.goes {
			if _, err := addRoute(l, c.Route); err != nil {
				errs = append(errs, fmt.Errorf("adding to %s: %w", link, err))
			}
		} else if err := netlink.RouteDel(kernelRoute(l, c.Route)); err != nil && !gone(err) {
			errs = append(errs, fmt.Errorf("removing route %s from %s: %w", c.Route, link, err))
		}
	}
	return errors.Join(errs...)
}

func kernelRoute(l netlink.Link, r Route) *netlink.Route {
	kr := &netlink.Route{
		LinkIndex: l.Attrs().Index,
		Protocol:  Protocol,
		Table:     unix.RT_TABLE_MAIN,
		Dst:       ipNet(r.Dst),
		Priority:  r.Metric,
	}
	if r.Dst.Addr().Is4() {
		kr.Scope = netlink.SCOPE_LINK
	}
	if r.Src.IsValid() {
		kr.Src = r.Src.AsSlice()
	}
	return kr
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func prefix(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(n.IP)
	ones, bits := n.Mask.Size()
	if !ok || bits == 0 {
		return netip.Prefix{}, false
	}
	if bits == 32 {
		a = a.Unmap()
	}
	return netip.PrefixFrom(a, ones), true
}

// OnLink returns the networks that this machine is in as its routes have it: destinations without a next hop, by the main table, lowest first. Those
// out of one interface are left out, and those at the end of a line, such as another tunnel, behind which anything may be.
func OnLink(except string) ([]netip.Prefix, error) {
	ifs, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("listing interfaces: %w", err)
	}
	shared := make(map[int]bool)
	for _, l := range ifs {
		a := l.Attrs()
		shared[a.Index] = a.Name != except && a.Flags&(net.FlagLoopback|net.FlagPointToPoint) == 0
	}
	list, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_MAIN, Type: unix.RTN_UNICAST}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE)
	if err != nil {
		return nil, fmt.Errorf("listing routes: %w", err)
	}
	var out []netip.Prefix
	for _, kr := range list {
		p, ok := prefix(kr.Dst)
		if !ok || p.Bits() == 0 || p.Addr().IsLinkLocalUnicast() || p.Addr().IsMulticast() || !shared[kr.LinkIndex] || kr.Gw != nil || kr.Via != nil || len(kr.MultiPath) > 0 {
			continue
		}
		out = append(out, p)
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return slices.Compact(out), nil
}

// Within returns this machine's addresses that lie in one of the prefixes, IPv4 first, lowest first. Link-local
// ones and those that are still being checked for duplicates are left out.
func Within(prefixes []netip.Prefix) ([]netip.Addr, error) {
	list, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("listing addresses: %w", err)
	}
	var out []netip.Addr
	for _, ka := range list {
		a, ok := netip.AddrFromSlice(ka.IP)
		if a = a.Unmap(); !ok || a.IsLinkLocalUnicast() || ka.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) != 0 {
			continue
		}
		if slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) }) {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out), nil
}
