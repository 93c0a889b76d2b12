package pmtu

import (
	"slices"
	"time"
)

// Sizes in bytes of IP packet.
const (
	minV4  = 576  // what every IPv4 host takes (RFC 1122 section 3.3.2)
	baseV4 = 1200 // BASE_PLPMTU, RFC 8899 section 5.1.2
	minV6  = 1280 // what every IPv6 link carries (RFC 8200 section 5), and BASE_PLPMTU with it

	// Ethernet is what most paths carry.
	Ethernet = 1500
	// Jumbo is the greatest size that is looked for.
	Jumbo = 9000
)

// table holds the sizes that are worth a probe: what is left of 1,500 behind PPPoE (1492), a
// tunnel in IPv4 (1480) or with GRE (1476), in IPv6 (1452, 1460), WireGuard (1420, 1440), and links with
// room of their own.
var table = []int{1280, 1320, 1360, 1400, 1420, 1440, 1452, 1460, 1472, 1476, 1480, 1492, 1500, 2000, 3000, 4352, 6000, 8000, 8996, 9000}

// Times and counts of RFC 8899 section 5.1, and our own.
const (
	maxProbes  = 3                 // MAX_PROBES: rounds that count
	probeTimer = time.Second       // PROBE_TIMER
	raiseTimer = 600 * time.Second // PMTU_RAISE_TIMER
	// confirmation is the time between two probes of the PLPMTU while data flows.
	confirmation = 5 * time.Second
	errorPause   = 15 * time.Second
	slowest      = 16 * probeTimer // between two rounds on a path that is down
	// translation is what a packet may lose in length between IPv6 and IPv4.
	translation = 20
	// remembered bounds the probes whose answers are still heeded.
	remembered = 4 * 32
)

// Config says within what is searched.
type Config struct {
	Min     int // what is left where not even Base passes
	Base    int // what is taken to pass, until a probe says so
	Assumed int // what is taken to pass while the far end has answered nothing
	Max     int // the greatest that is of use
	// Fit is the longest IP packet of at most size bytes that a probe can be: ciphers have blocks. nil: any.
	Fit func(size int) int
}

// For returns the Config of a path over IPv6 or IPv4, on which packets of more than most bytes are of no use.
func For(v6 bool, most int) Config {
	c := Config{Min: minV4, Base: baseV4}
	if v6 {
		c.Min, c.Base = minV6, minV6
	}
	c.Max = min(max(most, c.Base), Jumbo)
	c.Assumed = min(Ethernet, c.Max)
	return c
}

// State is where a Machine stands.
type State uint8

// The states of RFC 8899 section 5.2. There is no DISABLED.
const (
	Base State = iota
	Searching
	SearchComplete
	Error
)

func (s State) String() string {
	return [...]string{"base", "searching", "complete", "error"}[s&3]
}

// Probe is one to be sent.
type Probe struct {
	ID   uint32
	Size int
}

// Machine searches one path. It is not safe for concurrent use.
type Machine struct {
	c     Config
	state State
	mtu   int // PLPMTU; in state Base what is tried
	next  uint32
	out   []Probe

	search    search
	again     time.Time     // when to search anew; zero: there is nothing more to find
	confirmed time.Time     // when the PLPMTU was found to pass, last
	data      bool          // data was sent since
	quiet     time.Time     // no search because of a hint before
	pause     time.Duration // before the one after the next
}

// search is what is known of the one that is under way.
type search struct {
	end    time.Time // of the round; zero: none is under way
	top    int       // the greatest size in question
	hint   int       // one more size that is worth a probe
	best   int       // the greatest that was answered; 0: none
	heard  bool      // something was answered in this round
	counts int       // rounds in which something was
	silent int       // rounds in a row in which nothing was
	rtt    time.Duration
	sent   []flight
}

// flight is a probe that was sent.
type flight struct {
	Probe
	at time.Time
}

// New returns a machine that begins at now.
func New(now time.Time, c Config) *Machine {
	m := &Machine{c: c}
	m.mtu = m.fit(c.Base)
	m.begin(now, m.mtu, 0)
	return m
}

func (m *Machine) fit(size int) int {
	if m.c.Fit == nil {
		return size
	}
	return m.c.Fit(size)
}

// MTU is the longest IP packet that the path is taken to carry, in bytes.
func (m *Machine) MTU() int {
	if m.state == Base {
		return m.c.Assumed
	}
	return m.mtu
}

// State is where the machine stands.
func (m *Machine) State() State { return m.state }

// Poll returns the next probe to be sent.
func (m *Machine) Poll() (Probe, bool) {
	if len(m.out) == 0 {
		return Probe{}, false
	}
	p := m.out[0]
	m.out = m.out[1:]
	return p, true
}

// Deadline is when Advance wants to be called; zero: never.
func (m *Machine) Deadline() time.Time {
	if !m.search.end.IsZero() {
		return m.search.end
	}
	at := m.again
	if c := m.confirmed.Add(confirmation); m.state == SearchComplete && m.data && (at.IsZero() || c.Before(at)) {
		at = c
	}
	return at
}

// Advance does what is due at now.
func (m *Machine) Advance(now time.Time) {
	at := m.Deadline()
	switch {
	case at.IsZero() || now.Before(at):
	case !m.search.end.IsZero():
		m.round(now)
	case m.state == Error:
		m.begin(now, m.fit(m.c.Base), 0)
	case at.Equal(m.again):
		m.widen(now)
	default:
		m.begin(now, m.mtu, 0)
	}
}

// Sent notes that data went over the path: then it matters whether it still carries as much.
func (m *Machine) Sent() { m.data = true }

// Moved begins anew on another path. What it carried before is taken to pass until the probes are back.
func (m *Machine) Moved(now time.Time, c Config) {
	m.c = c
	m.out = nil
	if m.state == Base {
		m.mtu = m.fit(c.Base)
		m.begin(now, m.mtu, 0)
		return
	}
	m.mtu = m.fit(min(max(m.mtu, c.Base), c.Max))
	m.widen(now)
}

// Answer takes the answer to a probe, and how much of it arrived.
func (m *Machine) Answer(now time.Time, id uint32, arrived int) {
	s := &m.search
	i := slices.IndexFunc(s.sent, func(f flight) bool { return f.ID == id })
	if i < 0 {
		return // of an earlier search, or of nobody
	}
	size := s.sent[i].Size
	if arrived < size-translation {
		return // the far end is mistaken: a probe arrives whole or not at all
	}
	s.heard, s.silent, s.best, s.rtt = true, 0, max(s.best, size), now.Sub(s.sent[i].at)
	switch {
	case (m.state == Base || m.state == Error) && s.best >= s.top: // the base passes
		m.mtu = s.best
		m.widen(now)
	case m.state != Base:
		m.mtu = max(m.mtu, s.best)
		if s.best >= s.top {
			m.conclude(now)
		}
	}
}

// TooBig takes the hint, which may be forged, that a packet was longer than size; 0: by how much was not said.
func (m *Machine) TooBig(now time.Time, size int) {
	s := &m.search
	if m.state == Base || m.state == Error || size != 0 && size < m.c.Base {
		return
	}
	if size > 0 {
		size = m.fit(size)
	}
	switch {
	case !s.end.IsZero():
		if size > 0 && size < s.top {
			s.hint = size // for the next round
		}
	case size < m.mtu && !now.Before(m.quiet):
		// Each search is a chance for losses to look like a narrower path. Hints that come to nothing are
		// heeded ever less; the confirmation that data asks for goes on without them.
		if m.pause == 0 || now.After(m.quiet.Add(raiseTimer)) {
			m.pause = probeTimer
		}
		m.quiet = now.Add(m.pause)
		m.pause = min(2*m.pause, raiseTimer)
		m.begin(now, m.mtu, size)
	}
}

// widen looks for all that the path may carry.
func (m *Machine) widen(now time.Time) {
	m.state = Searching
	m.begin(now, m.fit(m.c.Max), 0)
}

// begin begins a search for sizes up to top. It first asks whether the PLPMTU passes; where it is known to, that
// is the smaller probe that those of greater sizes are compared to.
func (m *Machine) begin(now time.Time, top, hint int) {
	m.search = search{top: max(top, m.mtu), hint: hint}
	m.data = false
	m.ask(now, m.mtu)
	if hint > 0 {
		m.probe(now, hint)
	}
}

// ask begins a round with a probe of size from and of all greater ones.
func (m *Machine) ask(now time.Time, from int) {
	s := &m.search
	s.heard = false
	s.end = now.Add(min(slowest, max(probeTimer, 2*s.rtt)<<min(s.silent, 10)))
	var sizes []int
	for _, size := range append([]int{from, m.c.Base, s.hint, m.mtu, s.top}, table...) {
		if size = m.fit(size); size >= from && size <= s.top && !slices.Contains(sizes, size) {
			sizes = append(sizes, size)
		}
	}
	slices.Sort(sizes)
	for _, size := range sizes {
		m.probe(now, size)
	}
	s.sent = s.sent[max(0, len(s.sent)-remembered):]
}

func (m *Machine) probe(now time.Time, size int) {
	m.next++
	p := Probe{m.next, size}
	m.out = append(m.out, p)
	m.search.sent = append(m.search.sent, flight{p, now})
}

// round ends a round whose greatest probe was not answered.
func (m *Machine) round(now time.Time) {
	s := &m.search
	if s.heard {
		s.counts++
	} else if s.silent++; s.silent > 1 { // the path has changed meanwhile, or is down
		s.best, s.counts = 0, 0
	}
	switch {
	case s.counts >= maxProbes:
		m.conclude(now)
	case s.best == 0: // compare to all that is smaller
		m.ask(now, m.fit(m.c.Min))
	default:
		m.ask(now, s.best)
	}
}

// conclude ends a search: what was answered is what the path carries.
func (m *Machine) conclude(now time.Time) {
	s, most := m.search, m.fit(m.c.Max)
	m.search, m.out = search{}, nil
	m.state, m.confirmed = SearchComplete, now
	switch {
	case s.best < m.fit(m.c.Base):
		m.state, m.again = Error, now.Add(errorPause)
	case s.best >= most:
		m.again = time.Time{}
	case s.best < m.mtu || s.top >= most: // all that is greater was looked at
		m.again = now.Add(raiseTimer)
	}
	if s.best < m.mtu && s.hint > 0 && s.best >= s.hint { // the hint was true, or might have been
		m.pause = probeTimer
	}
	m.mtu = s.best
}
