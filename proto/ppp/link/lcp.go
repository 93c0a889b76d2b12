package link

import (
	"encoding/binary"
	"io"
	"time"

	"twinkey/proto/ppp"
	"twinkey/proto/ppp/automaton"
)

// minMRU in bytes is the least that we let a peer take: room for every control packet
// that we send. A smaller wish gets this in a Configure-Nak.
const minMRU = 128

// lcpOptions is what LCP negotiates.
type lcpOptions struct {
	cfg   *Config
	mru   uint16 // of ours, as we ask for it now
	left  uint16 // option types that we ask for no more, a bit each
	magic uint32 // ours; 0: none
	hint  uint32 // magic number of our last Configure-Nak; 0: none since a request without a collision
	loops uint8  // Configure-Naks of ours in a row that came back
	peer  lcpPeer
}

// lcpPeer is what the peer has asked for and been granted.
type lcpPeer struct {
	magic     uint32
	mru       uint16
	pfc, acfc bool
}

func (o *lcpOptions) reset() {
	*o = lcpOptions{cfg: o.cfg, mru: o.cfg.MRU, magic: random32(o.cfg.Rand), peer: o.peer}
}

func (o *lcpOptions) asks(typ uint8) bool {
	if o.left&(1<<typ) != 0 {
		return false
	}
	switch typ {
	case ppp.OptMRU:
		return o.mru != ppp.DefaultMRU
	case ppp.OptMagic:
		return o.magic != 0
	case ppp.OptPFC:
		return o.cfg.PFC
	case ppp.OptACFC:
		return o.cfg.ACFC
	}
	return false
}

func (o *lcpOptions) appendRequest(b []byte) []byte {
	if o.asks(ppp.OptMRU) {
		b = ppp.AppendUint16(b, ppp.OptMRU, o.mru)
	}
	if o.asks(ppp.OptMagic) {
		b = ppp.AppendUint32(b, ppp.OptMagic, o.magic)
	}
	if o.asks(ppp.OptPFC) {
		b = ppp.Option{Type: ppp.OptPFC}.Append(b)
	}
	if o.asks(ppp.OptACFC) {
		b = ppp.Option{Type: ppp.OptACFC}.Append(b)
	}
	return b
}

// agreed is our magic number if the peer knows it, else 0.
func (o *lcpOptions) agreed() uint32 {
	if o.asks(ppp.OptMagic) {
		return o.magic
	}
	return 0
}

func (o *lcpOptions) judge(list ppp.Options, mayNak bool) (ppp.Code, []byte) {
	var v verdict
	peer := lcpPeer{mru: ppp.DefaultMRU}
	for opt := range list.All() {
		switch {
		case opt.Type == ppp.OptMRU:
			if peer.mru = opt.Uint16(); peer.mru < minMRU {
				v.nak(opt, mayNak, ppp.AppendUint16(nil, opt.Type, minMRU))
			}
		case opt.Type == ppp.OptACCM: // of no effect in L2TP, hence always good
		case opt.Type == ppp.OptMagic:
			peer.magic = opt.Uint32()
			collides := peer.magic != 0 && peer.magic == o.agreed()
			if peer.magic == 0 || collides {
				// RFC 1661 section 6.4. A collision is never rejected: without the number
				// a loop could not be told from a peer any more.
				o.hint = random32(o.cfg.Rand)
				v.nak(opt, o.hint != 0 && (mayNak || collides), ppp.AppendUint32(nil, opt.Type, o.hint))
			}
		case opt.Type == ppp.OptPFC && o.cfg.PFC:
			peer.pfc = true
		case opt.Type == ppp.OptACFC && o.cfg.ACFC:
			peer.acfc = true
		default: // among them Authentication-Protocol: by itself, the rest stays
			v.reject(opt)
		}
	}
	code, reply := v.answer(list)
	if code == ppp.ConfigureAck {
		o.peer = peer
	}
	return code, reply
}

func (o *lcpOptions) nak(opt ppp.Option, last bool) Reason {
	switch opt.Type {
	case ppp.OptMRU:
		// Less than we can take is the peer's right; more is not in our power.
		if v := opt.Uint16(); v >= minMRU && v < o.mru {
			o.mru = v
			return NoReason
		}
	case ppp.OptMagic:
		if o.hint != 0 && opt.Uint32() == o.hint {
			o.loops++ // our own Configure-Nak has come back
		} else {
			o.loops = 0
		}
		if o.loops >= maxLoops {
			return Looped
		}
		if o.agreed() != 0 {
			o.magic = random32(o.cfg.Rand)
			return NoReason
		}
	}
	if last {
		o.leave(opt.Type)
	}
	return NoReason
}

func (o *lcpOptions) ack() Reason { return NoReason }

func (o *lcpOptions) reject(opt ppp.Option) Reason {
	o.leave(opt.Type)
	return NoReason
}

func (o *lcpOptions) leave(typ uint8) {
	if typ < 16 {
		o.left |= 1 << typ
	}
}

// random32 draws a number that is not zero; 0 if the reader is missing or fails.
func random32(r io.Reader) uint32 {
	var b [4]byte
	if r == nil {
		return 0
	}
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return 0
	}
	if v := binary.BigEndian.Uint32(b[:]); v != 0 {
		return v
	}
	return 1
}

// receiveLCP takes the packets that LCP alone has, and those that nobody has.
func (l *Link) receiveLCP(now time.Time, p ppp.Packet) error {
	switch p.Code {
	case ppp.ProtocolReject:
		return l.receiveProtocolReject(now, p)
	case ppp.EchoRequest, ppp.EchoReply, ppp.DiscardRequest:
		return l.receiveEcho(now, p)
	default:
		l.step(now, &l.lcp, automaton.RUC, p, 0, nil)
		return nil
	}
}

// receiveProtocolReject stops the protocol that the peer does not know "at the earliest
// opportunity" (RFC 1661 section 5.7): to its automaton the lower layer is gone, so that
// not even a Terminate-Request of it is sent.
func (l *Link) receiveProtocolReject(now time.Time, p ppp.Packet) error {
	proto, _, err := p.Rejected()
	if err != nil {
		return err
	}
	if !l.lcp.opened() {
		return ErrPhase
	}
	if proto == ppp.ProtoLCP {
		l.because(Rejected, "")
		l.step(now, &l.lcp, automaton.RXJMinus, p, 0, nil)
		return nil
	}
	l.step(now, &l.lcp, automaton.RXJPlus, p, 0, nil)
	if y := l.network(proto); y != nil {
		l.event(now, y, automaton.Down)
		l.event(now, y, automaton.Close)
	}
	return nil
}

func (l *Link) receiveEcho(now time.Time, p ppp.Packet) error {
	magic, _, err := p.Magic()
	if err != nil {
		return err
	}
	if !l.lcp.opened() {
		return ErrPhase
	}
	if own := l.opts.lcp.agreed(); own != 0 && magic == own {
		// Never answered: the answer would come back as well, for ever.
		if l.loops++; l.loops >= maxLoops {
			l.terminate(now, Looped, "looped back")
		}
		return ErrLooped
	}
	l.loops = 0
	l.step(now, &l.lcp, automaton.RXR, p, 0, nil)
	if p.Code == ppp.EchoReply {
		// "Either zero or the peer's Magic-Number" (RFC 1661 section 6.4).
		if p.ID != l.echoID || magic != 0 && magic != l.opts.lcp.peer.magic {
			return ErrStale
		}
		l.echoMissed = 0
	}
	return nil
}

// sendEchoReply answers an Echo-Request with what it holds behind its magic number.
func (l *Link) sendEchoReply(p ppp.Packet) {
	data := binary.BigEndian.AppendUint32(make([]byte, 0, len(p.Data)), l.opts.lcp.agreed())
	l.send(&l.lcp, ppp.Packet{Code: ppp.EchoReply, ID: p.ID, Data: append(data, p.Data[len(data):]...)})
}

// echo runs when an Echo-Request is due. Data that has passed says more than an echo.
func (l *Link) echo(now time.Time) {
	switch {
	case l.heard:
		l.heard = false
	case l.echoMissed >= l.cfg.EchoFailures:
		l.terminate(now, Silent, "no echo")
		return
	default:
		l.echoMissed++
		l.echoID = l.lcp.nextID()
		l.send(&l.lcp, ppp.Packet{Code: ppp.EchoRequest, ID: l.echoID, Data: binary.BigEndian.AppendUint32(nil, l.opts.lcp.agreed())})
	}
	l.echoAt = now.Add(l.cfg.EchoInterval)
}
