package limit

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// maxAddresses bounds how many addresses are remembered.
const maxAddresses = 8192

// Rates is a token bucket for each address. Safe for concurrent use.
type Rates struct {
	limit rate.Limit
	burst int
	bits6 int

	mu    sync.Mutex
	by    map[netip.Addr]*rate.Limiter
	swept time.Time
}

// NewRates lets each address have limit a second, and burst at once. IPv6 addresses that share their first bits6 bits count as
// one: over the internet a user has a whole /64, on a LAN all of its hosts are in one.
func NewRates(limit rate.Limit, burst, bits6 int) *Rates {
	return &Rates{limit: limit, burst: burst, bits6: bits6, by: make(map[netip.Addr]*rate.Limiter)}
}

// Allow takes one from the bucket of whoever is at remote, an address and port as http.Request has it.
func (l *Rates) Allow(remote string, now time.Time) bool {
	a, err := netip.ParseAddrPort(remote)
	return err == nil && l.take(a.Addr(), now)
}

// take takes one from the bucket of an address, if there is one.
func (l *Rates) take(a netip.Addr, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.of(a, now).AllowN(now, 1)
}

// until is how long it is until there are n in the bucket of an address.
func (l *Rates) until(a netip.Addr, n int, now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return until(l.of(a, now), n, now)
}

// Wait takes one from the bucket of an address, or says how long it is until there is one.
func (l *Rates) Wait(a netip.Addr, now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Wait(l.of(a, now), now)
}

// Wait takes one from r, or says how long it is until there is one.
func Wait(r *rate.Limiter, now time.Time) time.Duration {
	if r.AllowN(now, 1) {
		return 0
	}
	return max(until(r, 1, now), time.Millisecond)
}

// until is how long it is until there are n in r; 0: there are.
func until(r *rate.Limiter, n int, now time.Time) time.Duration {
	missing := float64(n) - r.TokensAt(now)
	if missing <= 0 {
		return 0
	}
	return max(time.Duration(missing/float64(r.Limit())*float64(time.Second)), time.Millisecond)
}

// of is the bucket of an address. mu is held.
func (l *Rates) of(a netip.Addr, now time.Time) *rate.Limiter {
	a = network(a, l.bits6)
	r, ok := l.by[a]
	if !ok {
		l.shrink(now)
		r = rate.NewLimiter(l.limit, l.burst)
		l.by[a] = r
	}
	return r
}

// network is what counts as one address: of IPv6 the first bits6 bits.
func network(a netip.Addr, bits6 int) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		if p, err := a.Prefix(bits6); err == nil {
			a = p.Addr()
		}
	}
	return a
}

// shrink keeps the table bounded: those go that have their full allowance, which is as
// good as not being there. That looks at all, so it is done once a second at most;
// otherwise any one goes.
func (l *Rates) shrink(now time.Time) {
	if len(l.by) < maxAddresses {
		return
	}
	if d := now.Sub(l.swept); d < 0 || d >= time.Second {
		l.swept = now
		for a, r := range l.by {
			if r.TokensAt(now) >= float64(l.burst) {
				delete(l.by, a)
			}
		}
	}
	for a := range l.by {
		if len(l.by) < maxAddresses {
			return
		}
		delete(l.by, a)
	}
}
