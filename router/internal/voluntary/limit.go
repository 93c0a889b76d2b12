package voluntary

import (
	"errors"
	"net/netip"
	"time"

	"golang.org/x/time/rate"

	ca "twinkey/ca/client"
	"twinkey/directory/client"
	"twinkey/pkg/limit"
)

// Limits on what strangers on the LAN can make the router do. An address has one client; it tries a few passwords.
const (
	triesPerAddress = 0.5 // a second: questions for parameters and logins
	triesBurst      = 12
	triesPerNet     = 10 // of an IPv6 /64: one host can have any number of addresses there, and leaves some to users with IPv4
	triesNetBurst   = 100
	triesInAll      = 20
	triesInAllBurst = 200

	signsPerSession = 2 // a second
	signsBurst      = 64

	maxSessions    = 4096
	maxConns       = 2*maxSessions + 512 // a watch and a question each
	maxConnsOfAddr = 16
)

// limiter bounds tries, by address, by IPv6 network and in all. On a LAN each host has an address of its own, and all may be in one /64.
type limiter struct {
	all        *rate.Limiter
	each, nets *limit.Rates
}

func newLimiter() *limiter {
	return &limiter{all: rate.NewLimiter(triesInAll, triesInAllBurst), each: limit.NewRates(triesPerAddress, triesBurst, 128),
		nets: limit.NewRates(triesPerNet, triesNetBurst, 64)}
}

// wait is how long the next try from an address has to wait; 0: it may be now, and is counted. Who is refused for the others' sake
// has used a try.
func (l *limiter) wait(from netip.Addr, now time.Time) time.Duration {
	if d := l.each.Wait(from, now); d > 0 {
		return d
	}
	if from.Is6() {
		if d := l.nets.Wait(from, now); d > 0 {
			return d
		}
	}
	return limit.Wait(l.all, now)
}

// guess asks the directory, or the CA, about a user's login: what they deny counts for this router there, and would lock it.
func (s *Server) guess(r *request, uid string, ask func() error) error {
	try, wait := s.c.Guesses.Begin(r.from, time.Now())
	if wait > 0 {
		return &Error{Code: CodeBusy, Message: "too many wrong passwords at this router", RetryAfter: wait}
	}
	defer try.Close()
	err := ask()
	if err == nil {
		try.Succeed(time.Now())
		return nil
	}
	if errors.Is(err, client.ErrDenied) || errors.Is(err, ca.ErrDenied) || r.ctx().Err() != nil { // who hangs up in the middle has guessed, as far as we know
		try.Fail(time.Now())
	}
	return s.loginError(uid, r.from, err)
}

// addressOf is the address of "address:port".
func addressOf(remote string) (netip.Addr, bool) {
	a, err := netip.ParseAddrPort(remote)
	return a.Addr().Unmap().WithZone(""), err == nil
}
