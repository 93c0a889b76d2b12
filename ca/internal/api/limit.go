package api

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Limits on what strangers can make the CA do.
const (
	ratePerAddress  = 5  // requests a second that cost a signature or a key agreement
	burstPerAddress = 50 // a site of routers behind one address, all at once after a power cut
	plainRate       = 50 // requests a second to smallstep's part
	plainBurst      = 200
	maxAddresses    = 8192
)

// limiter bounds requests per address. An IPv6 user has a whole /64, which counts as one.
type limiter struct {
	limit rate.Limit
	burst int

	mu    sync.Mutex
	by    map[netip.Addr]*rate.Limiter
	swept time.Time
}

func newLimiter(limit rate.Limit, burst int) *limiter {
	return &limiter{limit: limit, burst: burst, by: make(map[netip.Addr]*rate.Limiter)}
}

func (l *limiter) allow(remote string, now time.Time) bool {
	a, err := netip.ParseAddrPort(remote)
	if err != nil {
		return false
	}
	addr := a.Addr().Unmap().WithZone("")
	if addr.Is6() {
		if p, err := addr.Prefix(64); err == nil {
			addr = p.Addr()
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	r, ok := l.by[addr]
	if !ok {
		l.shrink(now)
		r = rate.NewLimiter(l.limit, l.burst)
		l.by[addr] = r
	}
	return r.AllowN(now, 1)
}

// shrink keeps the table bounded: those go that have their full allowance, which is as
// good as not being there. That looks at all, so it is done once a second at most;
// otherwise any one goes.
func (l *limiter) shrink(now time.Time) {
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
