package netcfg

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// Protocol is the routing protocol number that marks a route as ours (ip route shows
// "proto 77"). Numbers above 4 are free for routing daemons; 77 is in no table that iproute2 ships.
const Protocol = 77

// Errors of this package; others are of the kernel (syscall.Errno inside).
var (
	ErrNoLink   = errors.New("no such interface")
	ErrConflict = errors.New("another route to the same destination exists that is not ours")
	ErrPlan     = errors.New("plan refused")
)

// Plan is what an interface shall have. What it does not name is left alone.
type Plan struct {
	Link  string
	MTU   int // bytes; 0 leaves it
	Queue int // packets or trains that may wait to be sent (txqueuelen); 0 leaves it
	Up    bool
	// Lasting keeps IPv4 routes out of the interface there while its addresses come and go: the kernel takes them away with the last IPv4 address.
	// So it has one that is no source: 192.0.0.8, the dummy address of RFC 7600, of scope host.
	Lasting   bool
	Addresses []netip.Prefix // address and its prefix length, host bits set
	Routes    []Route
}

// Route goes out of the interface, without a next hop.
type Route struct {
	Dst    netip.Prefix // no host bits set
	Src    netip.Addr   // preferred source of local packets; zero: the kernel's choice
	Metric int          // 0: the kernel's default
}

func (r Route) String() string {
	s := r.Dst.String()
	if r.Src.IsValid() {
		s += " src " + r.Src.String()
	}
	if r.Metric != 0 {
		s += fmt.Sprintf(" metric %d", r.Metric)
	}
	return s
}

// Check refuses what the kernel would misunderstand: a route with host bits, a source of the other
// family, anything given twice. Errors wrap ErrPlan.
func (p Plan) Check() error {
	if p.Link == "" {
		return fmt.Errorf("%w: it names no interface", ErrPlan)
	}
	if p.Queue < 0 || p.Queue > 1<<16 {
		return fmt.Errorf("%w: a queue of %d", ErrPlan, p.Queue)
	}
	if p.MTU < 0 || p.MTU > 65535 {
		return fmt.Errorf("%w: MTU %d", ErrPlan, p.MTU)
	}
	seen := map[netip.Prefix]bool{}
	for _, a := range p.Addresses {
		if !a.IsValid() || a.Addr().Zone() != "" || a.Addr().Is4In6() {
			return fmt.Errorf("%w: address %s", ErrPlan, a)
		}
		if seen[a] {
			return fmt.Errorf("%w: address %s given twice", ErrPlan, a)
		}
		seen[a] = true
	}
	return checkRoutes(p.Routes)
}

func checkRoutes(routes []Route) error {
	seen := map[key]bool{}
	for _, r := range routes {
		if !r.Dst.IsValid() || r.Dst != r.Dst.Masked() || r.Dst.Addr().Is4In6() || r.Metric < 0 {
			return fmt.Errorf("%w: route %s", ErrPlan, r)
		}
		if r.Src.IsValid() && (r.Src.Is4() != r.Dst.Addr().Is4() || r.Src.Zone() != "") {
			return fmt.Errorf("%w: route %s: source of another family", ErrPlan, r)
		}
		if seen[r.key()] {
			return fmt.Errorf("%w: route %s given twice", ErrPlan, r)
		}
		seen[r.key()] = true
	}
	return nil
}

// key is what makes two routes the same route to the kernel.
type key struct {
	dst    netip.Prefix
	metric int
}

// ipv6DefaultMetric is what the kernel writes into an IPv6 route that names none (IP6_RT_PRIO_USER).
const ipv6DefaultMetric = 1024

func (r Route) key() key {
	k := key{r.Dst, r.Metric}
	if k.metric == 0 && r.Dst.Addr().Is6() {
		k.metric = ipv6DefaultMetric
	}
	return k
}

// Diff tells which of the wanted routes are missing and which of those there are not wanted. A route whose
// source hint differs is in both. Both lists are in the order of the destinations, so that
// what Update does and logs is the same for the same input.
func Diff(have, want []Route) (add, remove []Route) {
	there := make(map[key]Route, len(have))
	for _, r := range have {
		there[r.key()] = r
	}
	for _, w := range want {
		h, ok := there[w.key()]
		if ok && h.Src == w.Src {
			delete(there, w.key())
			continue
		}
		add = append(add, w)
	}
	for _, r := range there {
		remove = append(remove, r)
	}
	order := func(a, b Route) int {
		return cmp.Or(a.Dst.Addr().Compare(b.Dst.Addr()), cmp.Compare(a.Dst.Bits(), b.Dst.Bits()), cmp.Compare(a.Metric, b.Metric))
	}
	slices.SortFunc(add, order)
	slices.SortFunc(remove, order)
	return add, remove
}

// change is one step of an Update.
type change struct {
	Route
	goes bool // it is removed; else it is new
}

// inOrder are the steps of an Update: what is new comes before anything goes, unless it is to take the place of what goes.
func inOrder(add, remove []Route) []change {
	taken := make(map[key]bool, len(remove))
	for _, r := range remove {
		taken[r.key()] = true
	}
	var steps, late []change
	for _, r := range add {
		if taken[r.key()] {
			late = append(late, change{Route: r})
		} else {
			steps = append(steps, change{Route: r})
		}
	}
	for _, r := range remove {
		steps = append(steps, change{Route: r, goes: true})
	}
	return append(steps, late...)
}
