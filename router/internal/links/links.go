package links

import (
	"math/rand/v2"
	"time"
)

// Limits of the back-off. 30 s is short enough for a person who waits and long enough
// for a peer that is rebooting.
const (
	firstRetry = time.Second
	lastRetry  = 30 * time.Second
)

// Key names a wanted call.
type Key struct {
	Peer string // the router at the far end
	User string // UID, or empty for the site link
}

func (k Key) String() string {
	if k.User == "" {
		return k.Peer
	}
	return k.User + "@" + k.Peer
}

// State of a wanted call.
type State uint8

// The states of the diagram in the package's documentation.
const (
	Waiting State = iota
	Dialing
	Up
)

func (s State) String() string { return [...]string{"waiting", "dialing", "up"}[s] }

// Link is one wanted call.
type Link struct {
	Key
	State    State
	Demand   bool      // dial when a packet asks, not before
	Asked    bool      // a packet asked
	Since    time.Time // of the present state
	Next     time.Time // when Waiting: the next attempt
	Attempts int       // failures in a row
	Reason   string    // of the last failure
}

// Set holds the wanted calls. The zero value is not ready: use New.
type Set struct {
	links  map[Key]*Link
	jitter *rand.Rand
}

// New returns an empty set; seed spreads the back-offs of many boxes.
func New(seed uint64) *Set {
	return &Set{links: make(map[Key]*Link), jitter: rand.New(rand.NewPCG(seed, 0))} //nolint:gosec // spreading load is no secret
}

// Want adds k, due at once unless demand is set. Wanting twice changes only demand.
func (s *Set) Want(now time.Time, k Key, demand bool) {
	if l := s.links[k]; l != nil {
		l.Demand = demand
		return
	}
	s.links[k] = &Link{Key: k, Demand: demand, Since: now, Next: now}
}

// Forget removes k.
func (s *Set) Forget(k Key) { delete(s.links, k) }

// Ask notes that a packet wants k.
func (s *Set) Ask(k Key) {
	if l := s.links[k]; l != nil {
		l.Asked = true
	}
}

// Soon makes k due now whatever its back-off: what stood in the way may have gone.
func (s *Set) Soon(now time.Time, k Key) {
	if l := s.links[k]; l != nil && l.State == Waiting && l.Next.After(now) {
		l.Next = now
	}
}

// NotBefore puts off the next attempt at k.
func (s *Set) NotBefore(k Key, at time.Time) {
	if l := s.links[k]; l != nil && l.Next.Before(at) {
		l.Next = at
	}
}

// Due moves every link whose time has come to Dialing and returns them.
func (s *Set) Due(now time.Time) []Key {
	var due []Key
	for k, l := range s.links {
		if l.State == Waiting && (!l.Demand || l.Asked) && !now.Before(l.Next) {
			l.State, l.Since, l.Asked = Dialing, now, false
			due = append(due, k)
		}
	}
	return due
}

// Deadline is the next time that Due may return something; zero: none is pending.
func (s *Set) Deadline() time.Time {
	var first time.Time
	for _, l := range s.links {
		if l.State == Waiting && (!l.Demand || l.Asked) && (first.IsZero() || l.Next.Before(first)) {
			first = l.Next
		}
	}
	return first
}

// Up notes that the call stands, whoever dialled it.
func (s *Set) Up(now time.Time, k Key) {
	if l := s.links[k]; l != nil {
		l.State, l.Since, l.Attempts, l.Reason = Up, now, 0, ""
	}
}

// Down notes that the call was lost or could not be placed.
func (s *Set) Down(now time.Time, k Key, reason string) {
	l := s.links[k]
	if l == nil {
		return
	}
	wait := time.Duration(0)
	if l.State != Up {
		l.Attempts++
		wait = min(firstRetry<<min(l.Attempts-1, 10), lastRetry)
		wait += time.Duration(s.jitter.Int64N(int64(wait / 4)))
	}
	l.State, l.Since, l.Next, l.Reason = Waiting, now, now.Add(wait), reason
}

// Get returns a copy of the link, if it is wanted.
func (s *Set) Get(k Key) (Link, bool) {
	if l := s.links[k]; l != nil {
		return *l, true
	}
	return Link{}, false
}

// All returns copies of all links, in no order.
func (s *Set) All() []Link {
	all := make([]Link, 0, len(s.links))
	for _, l := range s.links {
		all = append(all, *l)
	}
	return all
}
