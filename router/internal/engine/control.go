package engine

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"twinkey/pkg/udpio"
	"twinkey/proto/esp"
	"twinkey/router/internal/calls"
	"twinkey/router/internal/links"
	"twinkey/router/internal/native"
)

// farewell is how long the end may take: StopCCN is sent, and its acknowledgement awaited.
const farewell = 500 * time.Millisecond

// expiry is how often calls are looked through for certificates that have expired.
const expiry = 5 * time.Second

// errSilenced ends the loop without more words: socket or interface are gone.
var errSilenced = errors.New("a data path has ended")

// loop is the control loop.
func (e *Engine) loop(ctx context.Context, failed <-chan error) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	nextExpiry := time.Now().Add(expiry)
	for {
		now := time.Now()
		if !now.Before(nextExpiry) {
			e.native.Expire(now)
			nextExpiry = now.Add(expiry)
		}
		e.native.Advance(now)
		e.dialDue(now)
		e.retireDue(now)
		e.replaceDue(now)
		e.flush(now)
		timer.Reset(time.Until(earliest(e.native.Deadline(), e.links.Deadline(), nextExpiry, soonest(e.state.retiring), soonest(e.state.replace))))
		select {
		case m := <-e.control:
			e.take(m)
		case m := <-e.strangers:
			e.one(time.Now(), m)
		case dst := <-e.demand:
			e.asked(dst)
		case f := <-e.tasks:
			f(time.Now())
		case <-timer.C:
		case err := <-failed:
			if err == nil {
				err = errSilenced
			}
			for _, a := range e.state.active {
				e.record(CallEvent{Active: a, At: time.Now(), Reason: "the router failed: " + err.Error(), Cause: calls.Shutdown})
			}
			return err
		case <-ctx.Done():
			e.bye()
			return nil
		}
	}
}

// take handles what is queued, and more of it before the next flush: a burst of set-ups
// costs one system call for many answers.
func (e *Engine) take(m message) {
	now := time.Now()
	for range udpBurst {
		e.one(now, m)
		select {
		case m = <-e.control:
		default:
			return
		}
	}
	e.one(now, m)
}

const udpBurst = 64

func (e *Engine) one(now time.Time, m message) {
	switch m.kind {
	case clearControl:
		e.native.Clear(now, m.from, m.data)
	case sealedControl:
		switch m.next {
		case esp.NextUDP:
			e.native.Control(now, m.from, m.in, m.data)
		case native.NextPath:
			e.native.PathProbe(now, m.from, m.in, m.data)
		default: // of a newer peer
		}
	case pppFrame:
		e.native.PPP(now, m.in.Call, m.data)
	case firstUse:
		e.native.Used(now, m.in)
	case peerMoved:
		e.native.Moved(now, m.in.Tunnel, m.from)
	case pathTooBig:
		e.native.TooBig(now, m.from, m.mtu)
	}
}

// earliest is the first non-zero of ts.
func earliest(ts ...time.Time) time.Time {
	var first time.Time
	for _, t := range ts {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	return first
}

// flush sends and acts on all that the machines have to say.
func (e *Engine) flush(now time.Time) {
	var (
		out [][]byte
		to  netip.AddrPort
	)
	for {
		o, ok := e.native.Poll()
		if !ok {
			break
		}
		if o.Event != nil {
			e.event(now, o.Event)
			continue
		}
		pkt := e.wrap(o)
		if pkt == nil {
			continue
		}
		if o.To != to && len(out) > 0 {
			e.write(out, to)
			out = out[:0]
		}
		to, out = o.To, append(out, pkt)
	}
	if len(out) > 0 {
		e.write(out, to)
	}
}

// write sends control messages to one destination. Trouble with it is no failure: they are repeated, and
// what is too big was a probe of the path.
func (e *Engine) write(out [][]byte, to netip.AddrPort) {
	err := e.c.Ports[0].Conn.Write(out, to)
	if err == nil || errors.Is(err, net.ErrClosed) {
		return
	}
	if p, ok := errors.AsType[*udpio.PathError](err); !ok || !p.TooBig() {
		e.drops.SendFailed.Add(1)
	}
}

// wrap makes the datagram of an output.
func (e *Engine) wrap(o native.Output) []byte {
	switch {
	case o.SA != nil:
		buf := make([]byte, headroom+len(o.Payload)+tailroom)
		copy(buf[headroom:], o.Payload)
		pkt, err := o.SA.Seal(buf, headroom, len(o.Payload), o.Next)
		if err != nil {
			e.drops.Exhausted.Add(1)
			return nil
		}
		return pkt
	case len(o.Payload) == 0:
		return esp.AppendKeepalive(nil)
	default:
		return append(esp.AppendMarker(make([]byte, 0, esp.MarkerLen+len(o.Payload))), o.Payload...)
	}
}

// event acts on one event of the native machines.
func (e *Engine) event(now time.Time, ev native.Event) {
	log := e.c.Log
	switch v := ev.(type) {
	case native.TunnelUp:
		e.state.tunnels[v.ID] = v
		log.Info("tunnel up", "tunnel", v.ID, "peer", v.Peer, "certificate", v.Certificate, "initiator", v.Initiator, "suite", v.Suite.String(), "post_quantum", v.PostQuantum, "address", v.To.String())
	case native.TunnelDown:
		delete(e.state.tunnels, v.ID)
		log.Info("tunnel down", "tunnel", v.ID, "peer", v.Peer, "reason", v.Reason)
	case native.CallUp:
		e.callUp(now, v)
	case native.CallDown:
		e.callDown(now, v)
	case native.Rekeyed:
		if v.Call != nil {
			log.Info("call rekeyed", "call", v.Call.ID, "tunnel", v.Tunnel, "generation", v.Generation, "suite", v.Suite.String())
		} else {
			log.Info("tunnel rekeyed", "tunnel", v.Tunnel, "generation", v.Generation, "suite", v.Suite.String())
		}
	case native.Refused:
		log.Warn("refused", "address", v.From.String(), "peer", v.Peer, "reason", v.Reason)
	}
}

func (e *Engine) callUp(now time.Time, v native.CallUp) {
	c := v.Call
	e.state.active[c.ID] = Active{Call: c, Key: v.Key, Initiator: v.Initiator, Since: now}
	e.record(CallEvent{Active: e.state.active[c.ID], At: now, Up: true, Suite: v.Suite})
	e.table.SetRoutes(e.table.Routes().With(c, v.Initiator))
	e.c.Log.Info("call up", "call", c.ID, "kind", c.Kind.String(), "peer", c.Peer, "user", c.User, "tunnel", c.LocalTunnel, "initiator", v.Initiator, "suite", v.Suite.String(), "post_quantum", v.PostQuantum, "certificate", c.Cert.String())
	if w, ok := e.state.users[v.Key]; ok && v.Initiator {
		e.noteOpen(w, true)
	}
	if v.Initiator || c.Kind == calls.SiteLink {
		e.links.Up(now, v.Key)
		e.answerWaiting(v.Key, c, nil)
	}
	e.resolve(now, v)
	// It may have been under way when its user, or we, got another certificate.
	if w, ok := e.wish(v.Key); ok && v.Initiator && w.Cred.Certificate.ID() != c.Cert {
		e.replace(now, v.Key)
	}
}

func (e *Engine) record(v CallEvent) {
	if e.c.Record != nil {
		e.c.Record(v)
	}
}

func (e *Engine) callDown(now time.Time, v native.CallDown) {
	if c := v.Call; c != nil {
		e.table.SetRoutes(e.table.Routes().Without(c, v.Initiator))
		if a, ok := e.state.active[c.ID]; ok {
			e.record(CallEvent{Active: a, At: now, Reason: v.Reason, Cause: v.Cause})
		}
		delete(e.state.active, c.ID)
		delete(e.state.retiring, c.ID)
		e.c.Log.Info("call down", "call", c.ID, "kind", c.Kind.String(), "peer", c.Peer, "user", c.User, "reason", v.Reason,
			"rx_bytes", c.RxBytes.Load(), "tx_bytes", c.TxBytes.Load())
	} else if v.Initiator {
		e.c.Log.Info("call failed", "peer", v.Key.Peer, "user", v.Key.User, "reason", v.Reason)
	}
	if e.standing(v.Key) { // another call does what this one did, or should have replaced
		if v.Call == nil && v.Initiator {
			e.state.replace[v.Key] = now.Add(replaceRetry)
		}
		return
	}
	if v.Key.User != "" && !v.Initiator {
		return // the end that placed the call makes it anew, not we
	}
	if e.overtaken(v) {
		e.links.Down(now, v.Key, v.Reason)
		if v.Call == nil {
			e.links.Soon(now, v.Key)
		} else { // what is to take its place is being placed
			e.links.NotBefore(v.Key, now.Add(takeover))
		}
		return
	}
	waits := (v.Revoked || v.Cause == calls.Revoked) && v.Initiator && e.unheard(now, v.Key)
	if v.Key.User != "" && (v.Final && !waits || v.Call == nil && e.firstTry(v.Key)) {
		e.forgetUser(now, v.Key, v.Reason)
	} else {
		e.links.Down(now, v.Key, v.Reason)
		if v.Key.User == "" && e.waitsFor(v.Key.Peer) {
			e.links.NotBefore(v.Key, now.Add(courtesy))
		}
	}
	e.answerWaiting(v.Key, nil, &Failed{Reason: v.Reason, Refused: v.Final})
}

// firstTry says whether somebody waits for the outcome of a login: then a failure is
// theirs to see, not ours to repeat.
func (e *Engine) firstTry(k links.Key) bool { return len(e.state.waiting[k]) > 0 }

func (e *Engine) standing(k links.Key) bool {
	for _, a := range e.state.active {
		if a.Key == k {
			return true
		}
	}
	return false
}

// beside says whether a call of k is up besides the one with this ID.
func (e *Engine) beside(id uint64, k links.Key) bool {
	for i, a := range e.state.active {
		if i != id && a.Key == k {
			return true
		}
	}
	return false
}

func (e *Engine) answerWaiting(k links.Key, c *calls.Call, err error) {
	for _, f := range e.state.waiting[k] {
		f(c, err)
	}
	delete(e.state.waiting, k)
}

// bye tells every peer that we go and waits a moment for the acknowledgements.
func (e *Engine) bye() {
	now := time.Now()
	end := now.Add(farewell)
	e.native.Close(now, "the router is stopping")
	for {
		e.flush(time.Now())
		if e.native.Empty() {
			return
		}
		select {
		case m := <-e.control:
			e.take(m)
		case <-time.After(time.Until(end)):
			return
		}
	}
}
