package limit

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Bounds of what Failures remember of those who succeeded.
const (
	maxKnown   = 1024
	maxSlips   = 2 // that a known address may take from the reserve while there is nothing else
	netBits    = 64
	hostsBits6 = 128 // each address counts by itself
)

// Bucket says how many there may be at once, and how many a second from then on.
type Bucket struct {
	Rate  rate.Limit
	Burst int
}

// FailureLimits say how many tries may fail.
type FailureLimits struct {
	Each  Bucket // of one address
	Net   Bucket // of an IPv6 /64, in which one host can have any number of addresses
	All   Bucket
	Known Bucket // besides All: of addresses from which a try succeeded, when the others have used up theirs
	// Remember is how long an address is known.
	Remember time.Duration
}

// Failures bounds how often tries may fail where strangers can guess: by address, by IPv6 network, and in all. A try that is going on counts as one that
// fails, so many at once are no more than there were left. Safe for concurrent use.
type Failures struct {
	each, nets *Rates
	all, spare *rate.Limiter
	remember   time.Duration

	mu                 sync.Mutex
	going              map[netip.Prefix]int // tries, of an address and of a network
	goingAll, goingOut int                  // likewise of all, and from the reserve
	known              map[netip.Addr]acquaintance
}

// acquaintance is an address from which a try succeeded.
type acquaintance struct {
	until time.Time
	slips int
}

// NewFailures returns full buckets.
func NewFailures(l FailureLimits) *Failures {
	return &Failures{
		each: NewRates(l.Each.Rate, l.Each.Burst, hostsBits6), nets: NewRates(l.Net.Rate, l.Net.Burst, netBits),
		all: rate.NewLimiter(l.All.Rate, l.All.Burst), spare: rate.NewLimiter(l.Known.Rate, l.Known.Burst), remember: l.Remember,
		going: make(map[netip.Prefix]int), known: make(map[netip.Addr]acquaintance),
	}
}

// Begin lets an address try, or says how long it has to wait. Whoever tries closes the try.
func (f *Failures) Begin(a netip.Addr, now time.Time) (t *Try, wait time.Duration) {
	a = a.Unmap().WithZone("")
	f.mu.Lock()
	defer f.mu.Unlock()
	t = &Try{f: f, addr: a, host: netip.PrefixFrom(a, a.BitLen())}
	if wait = f.each.until(a, f.going[t.host]+1, now); wait > 0 {
		return nil, wait
	}
	wait = until(f.all, f.goingAll+1, now)
	if a.Is6() {
		t.net = netip.PrefixFrom(a, netBits).Masked()
		wait = max(wait, f.nets.until(a, f.going[t.net]+1, now))
	}
	if wait > 0 {
		k, ok := f.known[a]
		if !ok || !now.Before(k.until) || k.slips+f.going[t.host] >= maxSlips || until(f.spare, f.goingOut+1, now) > 0 {
			return nil, wait
		}
		t.spare, t.net = true, netip.Prefix{}
	}
	t.count(1)
	return t, 0
}

// Try is one that is going on. A nil Try counts nowhere.
type Try struct {
	f         *Failures
	addr      netip.Addr
	host, net netip.Prefix // net of IPv6 alone
	spare     bool         // it is of the reserve
	over      bool
}

// Fail ends a try that failed, or of which nobody knows.
func (t *Try) Fail(now time.Time) {
	t.end(func() {
		t.f.each.take(t.addr, now)
		if t.spare {
			t.f.spare.AllowN(now, 1)
			k := t.f.known[t.addr]
			k.slips++
			t.f.known[t.addr] = k
			return
		}
		t.f.all.AllowN(now, 1)
		if t.net.IsValid() {
			t.f.nets.take(t.addr, now)
		}
	})
}

// Succeed ends a try that succeeded: its address is known from now on. What it has taken from the reserve counts until it succeeds without.
func (t *Try) Succeed(now time.Time) {
	t.end(func() {
		k := acquaintance{until: now.Add(t.f.remember)}
		if t.spare {
			k.slips = t.f.known[t.addr].slips
		}
		t.f.makeRoom(t.addr, now)
		t.f.known[t.addr] = k
	})
}

// Close ends a try that came to neither.
func (t *Try) Close() { t.end(func() {}) }

// end counts a try as over, once.
func (t *Try) end(how func()) {
	if t == nil {
		return
	}
	t.f.mu.Lock()
	defer t.f.mu.Unlock()
	if t.over {
		return
	}
	t.over = true
	t.count(-1)
	how()
}

// count adds to the tries that are going on. mu is held.
func (t *Try) count(n int) {
	for _, p := range []netip.Prefix{t.host, t.net} {
		if !p.IsValid() {
			continue
		}
		if t.f.going[p] += n; t.f.going[p] == 0 {
			delete(t.f.going, p)
		}
	}
	if t.spare {
		t.f.goingOut += n
	} else {
		t.f.goingAll += n
	}
}

// makeRoom keeps what is known bounded: those go whose time is over, and if there are none any one. mu is held.
func (f *Failures) makeRoom(a netip.Addr, now time.Time) {
	if _, ok := f.known[a]; ok || len(f.known) < maxKnown {
		return
	}
	for k, v := range f.known {
		if !now.Before(v.until) {
			delete(f.known, k)
		}
	}
	for k := range f.known {
		if len(f.known) < maxKnown {
			return
		}
		delete(f.known, k)
	}
}
