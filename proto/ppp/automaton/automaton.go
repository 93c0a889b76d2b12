package automaton

import "time"

// Defaults of RFC 1661 section 4.6.
const (
	DefaultRestart      = 3 * time.Second
	DefaultMaxTerminate = 2
	DefaultMaxConfigure = 10
	DefaultMaxFailure   = 5
)

// Limits are the restart timer's period and the counters of RFC 1661 section 4.6. A zero
// or negative field means the RFC's default.
type Limits struct {
	Restart      time.Duration // between two sendings of a request
	MaxTerminate uint8         // Terminate-Requests without an answer
	MaxConfigure uint8         // Configure-Requests without an answer
	MaxFailure   uint8         // Configure-Naks without a Configure-Ack
}

func (l Limits) orDefault() Limits {
	if l.Restart <= 0 {
		l.Restart = DefaultRestart
	}
	if l.MaxTerminate == 0 {
		l.MaxTerminate = DefaultMaxTerminate
	}
	if l.MaxConfigure == 0 {
		l.MaxConfigure = DefaultMaxConfigure
	}
	if l.MaxFailure == 0 {
		l.MaxFailure = DefaultMaxFailure
	}
	return l
}

// Automaton is one run of the automaton. Make it with New.
type Automaton struct {
	limits   Limits
	deadline time.Time // of the restart timer; zero while it does not run
	restart  uint8     // restart counter: requests that may still be sent
	failures uint8     // Configure-Naks sent since the last Configure-Ack
	state    State
}

// New returns an automaton in state Initial.
func New(l Limits) Automaton { return Automaton{limits: l.orDefault()} }

// State is the state now.
func (a *Automaton) State() State { return a.state }

// Deadline is when the restart timer expires; zero while it does not run.
func (a *Automaton) Deadline() time.Time { return a.deadline }

// Handle moves the automaton and returns the actions that the owner carries out, all but
// irc and zrc, which are done. Where the table has a dash nothing moves and ok is false.
func (a *Automaton) Handle(now time.Time, e Event) (do Actions, ok bool) {
	do, next, ok := Next(a.state, e)
	if !ok {
		return 0, false
	}
	a.state = next
	switch {
	case do.Has(IRC | STR): // section 4.4: the maximum depends on what is about to be sent
		a.restart = a.limits.MaxTerminate
	case do.Has(IRC):
		a.restart = a.limits.MaxConfigure
	case do.Has(ZRC):
		a.restart = 0 // but the timer runs once, so that the peer's retransmission finds us
		a.deadline = now.Add(a.limits.Restart)
	}
	if do&(SCR|STR) != 0 {
		a.sent(now)
	}
	if do.Has(SCA) {
		a.failures = 0
	}
	if !running(next) {
		a.deadline = time.Time{}
	}
	return do, true
}

// sent counts a Configure- or Terminate-Request, "including the first" (section 4.4),
// and starts the restart timer.
func (a *Automaton) sent(now time.Time) {
	if a.restart > 0 {
		a.restart--
	}
	a.deadline = now.Add(a.limits.Restart)
}

// running tells in which states the restart timer runs (section 4.2, last paragraph).
func running(s State) bool {
	switch s {
	case Closing, Stopping, ReqSent, AckRcvd, AckSent:
		return true
	default:
		return false
	}
}

// Timeout tells which event it is that the restart timer has expired by now; false while
// it has not.
func (a *Automaton) Timeout(now time.Time) (Event, bool) {
	switch {
	case a.deadline.IsZero() || now.Before(a.deadline):
		return 0, false
	case a.restart > 0:
		return TOPlus, true
	}
	return TOMinus, true
}

// MayNak tells whether a Configure-Nak may be sent. After Max-Failure of them without a
// Configure-Ack the negotiation is taken not to converge: the owner sends a
// Configure-Reject in its stead and asks for no options on the peer's behalf.
func (a *Automaton) MayNak() bool { return a.failures < a.limits.MaxFailure }

// NakSent counts a Configure-Nak.
func (a *Automaton) NakSent() {
	if a.failures < a.limits.MaxFailure {
		a.failures++
	}
}

// Limits are the limits in force, defaults filled in.
func (a *Automaton) Limits() Limits { return a.limits }
