package link

import (
	"bytes"
	"time"

	"twinkey/proto/ppp"
	"twinkey/proto/ppp/automaton"
)

// ccpOptions is what CCP negotiates. A Configure-Request names what its sender expands, so
// that each direction is settled by itself (RFC 1962 section 5).
type ccpOptions struct {
	method ppp.Option
	left   bool // the peer will not send it
	peer   bool // the peer expands it
}

func (o *ccpOptions) reset() { o.left = false }

func (o *ccpOptions) appendRequest(b []byte) []byte {
	if !o.left {
		b = o.method.Append(b)
	}
	return b
}

func (o *ccpOptions) judge(list ppp.Options, _ bool) (ppp.Code, []byte) {
	var v verdict
	peer := false
	for opt := range list.All() {
		if opt.Type == o.method.Type && bytes.Equal(opt.Data, o.method.Data) {
			peer = true
		} else {
			v.reject(opt)
		}
	}
	code, reply := v.answer(list)
	if code == ppp.ConfigureAck {
		o.peer = peer
	}
	return code, reply
}

func (o *ccpOptions) ack() Reason { return NoReason }

// nak: what the peer would rather send we do not expand.
func (o *ccpOptions) nak(_ ppp.Option, last bool) Reason {
	o.left = o.left || last
	return NoReason
}

func (o *ccpOptions) reject(ppp.Option) Reason {
	o.left = true
	return NoReason
}

// receiveCCP takes the packets that CCP alone has, and those that nobody has.
func (l *Link) receiveCCP(now time.Time, p ppp.Packet) error {
	switch {
	case p.Code == ppp.ResetRequest && l.ccp.opened():
		// No packet depends on another: there is nothing to reset, but the peer waits.
		l.send(&l.ccp, ppp.Packet{Code: ppp.ResetAck, ID: p.ID})
	case p.Code == ppp.ResetRequest:
		return ErrPhase
	case p.Code == ppp.ResetAck:
		return ErrStale // to no request: we send none
	default:
		l.step(now, &l.ccp, automaton.RUC, p, 0, nil)
	}
	return nil
}
