package native

import (
	"fmt"
	"time"

	"twinkey/proto/esp"
	"twinkey/proto/handshake"
	"twinkey/proto/secret"
	"twinkey/router/internal/calls"
)

// association is the SA pair of a tunnel or a call and what is under way to replace it.
type association struct {
	generation uint32
	suite      esp.Suite
	implicit   bool // IVs are left out
	hybrid     bool
	since      time.Time
	rekeys     uint64

	out *esp.Outbound
	in  *calls.Inbound

	// next seals from the moment that the peer was heard on in: we answered a rekey.
	next *esp.Outbound
	// asked is the rekey that we asked for and that is not answered.
	asked    *handshake.Call
	askedSPI uint32

	// old still open what was under way when they were replaced.
	old []retired
}

type retired struct {
	in    *calls.Inbound
	until time.Time
}

// keys are what a handshake yields for one SA pair.
type keys struct {
	suite     esp.Suite
	hybrid    bool
	local     uint32 // SPI of the inbound SA
	remote    uint32 // SPI of the outbound SA
	in, out   secret.Key
	call      *calls.Call // nil: control
	tunnel    uint16
	immediate bool // seal with the new outbound SA now, not when the peer was heard on it
}

// install makes the pair of k the present one. The first pair seals at once.
func (a *association) install(now time.Time, e *Endpoint, k keys) error {
	lim := esp.Limits{SoftBytes: e.c.RekeyBytes, SoftPackets: e.c.RekeyPackets}
	form := k.suite
	if a.implicit {
		form = form.ImplicitIV()
	}
	out, err := esp.NewOutbound(k.remote, form, k.out, lim)
	if err != nil {
		return fmt.Errorf("making the outbound SA: %w", err)
	}
	sa, err := esp.NewInbound(k.local, form, k.in, esp.Limits{})
	if err != nil {
		return fmt.Errorf("making the inbound SA: %w", err)
	}
	if e.c.KeyLog != nil {
		e.c.KeyLog(k.local, form, k.in)
		e.c.KeyLog(k.remote, form, k.out)
	}
	in := &calls.Inbound{SPI: k.local, SA: sa, Call: k.call, Tunnel: k.tunnel}
	e.c.Table.Install(in)
	if a.in != nil {
		a.old = append(a.old, retired{in: a.in, until: now.Add(e.c.RekeyGrace)})
		a.generation++
		a.rekeys++
	}
	a.in, a.since, a.suite, a.hybrid, a.next = in, now, k.suite, k.hybrid, nil
	if a.out == nil || k.immediate {
		a.out = out
	} else {
		a.next = out
	}
	return nil
}

// heardOn switches to the outbound SA that belongs to in, if it waits for that.
func (a *association) heardOn(in *calls.Inbound) bool {
	if a.next == nil || in != a.in {
		return false
	}
	a.out, a.next = a.next, nil
	return true
}

// due says whether the present keys are to be replaced: too old, or used too much.
func (a *association) due(now time.Time, life time.Duration) bool {
	return a.out != nil && a.asked == nil && (now.Sub(a.since) >= life || a.out.Soft())
}

// settle switches to an outbound SA that has waited for half the grace: the peer has
// acknowledged our reply long ago and only has nothing to send. True: it switched.
func (a *association) settle(now time.Time, grace time.Duration) bool {
	if a.next == nil || now.Sub(a.since) < grace/2 {
		return false
	}
	a.out, a.next = a.next, nil
	return true
}

// expire lets go of retired inbound SAs whose grace is over.
func (a *association) expire(now time.Time, t *calls.Table) {
	left := a.old[:0]
	for _, r := range a.old {
		if now.Before(r.until) {
			left = append(left, r)
			continue
		}
		t.Release(r.in.SPI)
	}
	clear(a.old[len(left):])
	a.old = left
}

// drop lets go of everything.
func (a *association) drop(t *calls.Table) {
	for _, r := range a.old {
		t.Release(r.in.SPI)
	}
	if a.in != nil {
		t.Release(a.in.SPI)
	}
	a.forget(t)
	*a = association{}
}

// forget gives up a rekey that we asked for.
func (a *association) forget(t *calls.Table) {
	if a.asked == nil {
		return
	}
	a.asked.Wipe()
	t.Release(a.askedSPI)
	a.asked, a.askedSPI = nil, 0
}
