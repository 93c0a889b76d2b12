package link

import (
	"bytes"
	"time"

	"twinkey/proto/ppp"
	"twinkey/proto/ppp/automaton"
	"twinkey/proto/wire"
)

// options is what one control protocol negotiates: the part of it that is not the
// automaton's.
type options interface {
	// reset goes back to asking for what the Config wants; a negotiation begins. What the
	// peer was granted stays until judge grants again: a request that reopens the
	// negotiation is judged before.
	reset()
	// appendRequest appends the options of our Configure-Request. Between two calls of
	// the other methods it yields the same bytes.
	appendRequest(b []byte) []byte
	// judge decides on the peer's request and, when it is good, keeps it as what the peer
	// has. Without mayNak a Configure-Reject stands for every Configure-Nak.
	judge(list ppp.Options, mayNak bool) (ppp.Code, []byte)
	// ack says that the peer has acknowledged our request. What it returns ends the
	// protocol unless it is NoReason.
	ack() Reason
	// nak takes a hint of the peer into account. After the last try the option is left
	// out. Same return.
	nak(o ppp.Option, last bool) Reason
	// reject leaves an option out. Same return.
	reject(o ppp.Option) Reason
}

// maxKept bounds, in bytes, the acknowledged request that a layer keeps to recognise it.
const maxKept = 64

// none stands for the Identifier of a request that is not kept.
const none = -1

// layer is one control protocol of the link.
type layer struct {
	opts    options
	fsm     automaton.Automaton
	acked   []byte // the options of the peer's request that was acknowledged last
	proto   ppp.Protocol
	ackedID int16 // and its Identifier, or none
	lastID  uint8 // Identifier of the packet of ours that was sent last
	reqID   uint8 // Identifier of our last Configure-Request
	pending bool  // which has had no reply
	naks    uint8 // Configure-Naks of the peer since its last Configure-Ack
}

func (y *layer) init(p ppp.Protocol, o options, l automaton.Limits) {
	*y = layer{proto: p, opts: o, fsm: automaton.New(l), lastID: y.lastID, ackedID: none}
	o.reset()
}

func (y *layer) opened() bool { return y.fsm.State() == automaton.Opened }

// nextID is a fresh Identifier for a packet that is no repetition.
func (y *layer) nextID() uint8 {
	y.lastID++
	return y.lastID
}

// step feeds an event to a layer's automaton and carries out the actions. p is the packet
// that is the event; code and reply are what the options have answered to it.
func (l *Link) step(now time.Time, y *layer, e automaton.Event, p ppp.Packet, code ppp.Code, reply []byte) {
	do, ok := y.fsm.Handle(now, e)
	if !ok {
		return
	}
	if do.Has(automaton.TLD) {
		l.layerDown(now, y)
	}
	if do.Has(automaton.SCR) {
		l.sendRequest(y, e)
	}
	if do&(automaton.SCA|automaton.SCN) != 0 {
		if code == ppp.ConfigureNak {
			y.fsm.NakSent()
		}
		y.keep(p, code)
		l.send(y, ppp.Packet{Code: code, ID: p.ID, Data: reply})
	}
	if do.Has(automaton.STR) {
		y.pending = false
		l.send(y, ppp.Packet{Code: ppp.TerminateRequest, ID: y.nextID(), Data: []byte(l.text)})
	}
	if do.Has(automaton.STA) {
		l.send(y, ppp.Packet{Code: ppp.TerminateAck, ID: p.ID})
	}
	if do.Has(automaton.SCJ) {
		l.send(y, ppp.Packet{Code: ppp.CodeReject, ID: y.nextID(), Data: p.Append(nil)})
	}
	if do.Has(automaton.SER) && p.Code == ppp.EchoRequest {
		l.sendEchoReply(p)
	}
	if do.Has(automaton.TLU) {
		l.layerUp(now, y)
	}
	if do.Has(automaton.TLF) {
		l.layerFinished(now, y, e)
	}
}

// event is step for an event that is no packet.
func (l *Link) event(now time.Time, y *layer, e automaton.Event) {
	l.step(now, y, e, ppp.Packet{}, 0, nil)
}

// sendRequest sends our Configure-Request. A repetition keeps its Identifier, so that a
// late reply still counts (RFC 1661 section 5.1).
func (l *Link) sendRequest(y *layer, e automaton.Event) {
	if e != automaton.TOPlus || !y.pending {
		y.reqID = y.nextID()
	}
	y.pending = true
	l.send(y, ppp.Packet{Code: ppp.ConfigureRequest, ID: y.reqID, Data: y.opts.appendRequest(nil)})
}

// keep remembers the request that is being acknowledged.
func (y *layer) keep(p ppp.Packet, code ppp.Code) {
	y.acked, y.ackedID = y.acked[:0], none
	if code == ppp.ConfigureAck && len(p.Data) <= maxKept {
		y.acked, y.ackedID = append(y.acked, p.Data...), int16(p.ID)
	}
}

// receive takes the information field of a frame of the layer's protocol.
func (l *Link) receive(now time.Time, y *layer, info []byte) error {
	p, err := ppp.ParsePacket(info)
	if err != nil {
		return err
	}
	switch p.Code {
	case ppp.ConfigureRequest:
		return l.receiveRequest(now, y, p)
	case ppp.ConfigureAck:
		// "The Configuration Options must exactly match those of the last transmitted
		// Configure-Request" (RFC 1661 section 5.2).
		if !y.pending || p.ID != y.reqID || !bytes.Equal(p.Data, y.opts.appendRequest(nil)) {
			return ErrStale
		}
		y.pending, y.naks = false, 0
		if r := y.opts.ack(); r != NoReason {
			l.giveUp(now, y, r)
			return nil
		}
		l.step(now, y, automaton.RCA, p, 0, nil)
	case ppp.ConfigureNak, ppp.ConfigureReject:
		return l.receiveRefusal(now, y, p)
	case ppp.TerminateRequest:
		if y.proto == ppp.ProtoLCP && y.opened() {
			l.because(ByPeer, printable(p.Data))
		}
		l.step(now, y, automaton.RTR, p, 0, nil)
	case ppp.TerminateAck:
		l.step(now, y, automaton.RTA, p, 0, nil)
	case ppp.CodeReject:
		return l.receiveCodeReject(now, y, p)
	default:
		if y.proto == ppp.ProtoLCP {
			return l.receiveLCP(now, p)
		}
		if y.proto == ppp.ProtoCCP {
			return l.receiveCCP(now, p)
		}
		l.step(now, y, automaton.RUC, p, 0, nil)
	}
	return nil
}

func (l *Link) receiveRequest(now time.Time, y *layer, p ppp.Packet) error {
	list, err := ppp.ParseOptions(y.proto, p.Data)
	if err != nil {
		return err
	}
	if y.opened() && int16(p.ID) == y.ackedID && bytes.Equal(p.Data, y.acked) {
		l.send(y, ppp.Packet{Code: ppp.ConfigureAck, ID: p.ID, Data: p.Data})
		return nil
	}
	code, reply := y.opts.judge(list, y.fsm.MayNak())
	e := automaton.RCRMinus
	if code == ppp.ConfigureAck {
		e = automaton.RCRPlus
	}
	l.step(now, y, e, p, code, reply)
	return nil
}

// receiveRefusal takes a Configure-Nak or a Configure-Reject.
func (l *Link) receiveRefusal(now time.Time, y *layer, p ppp.Packet) error {
	if !y.pending || p.ID != y.reqID {
		return ErrStale
	}
	list, err := ppp.ParseOptions(y.proto, p.Data)
	if err != nil {
		return err
	}
	isNak := p.Code == ppp.ConfigureNak
	if !isNak {
		// What is rejected must be what was asked (RFC 1661 section 5.4).
		asked, err := ppp.ParseOptions(y.proto, y.opts.appendRequest(nil))
		if err != nil {
			return err
		}
		for o := range list.All() {
			if !contains(asked, o) {
				return ErrStale
			}
		}
	} else {
		y.naks++
	}
	last := y.naks >= y.fsm.Limits().MaxFailure
	end := NoReason
	for o := range list.All() {
		r := NoReason
		if isNak {
			r = y.opts.nak(o, last)
		} else {
			r = y.opts.reject(o)
		}
		if r != NoReason {
			end = r
		}
	}
	if last {
		y.naks = 0
	}
	y.pending = false
	if end != NoReason {
		l.giveUp(now, y, end)
		return nil
	}
	l.step(now, y, automaton.RCN, p, 0, nil)
	return nil
}

func contains(list ppp.Options, o ppp.Option) bool {
	for have := range list.All() {
		if have.Type == o.Type && bytes.Equal(have.Data, o.Data) {
			return true
		}
	}
	return false
}

func (l *Link) receiveCodeReject(now time.Time, y *layer, p ppp.Packet) error {
	if len(p.Data) == 0 {
		return &wire.ParseError{Layer: y.proto.String(), Field: "Rejected-Packet", Offset: ppp.PacketHeader, Err: wire.ErrTruncated}
	}
	switch c := ppp.Code(p.Data[0]); {
	case c >= ppp.ConfigureRequest && c <= ppp.CodeReject:
		// Without these there is no protocol (RFC 1661 section 5.6).
		if y.proto == ppp.ProtoLCP && y.fsm.State() > automaton.Stopped {
			l.because(Rejected, "")
		}
		l.step(now, y, automaton.RXJMinus, p, 0, nil)
		return nil
	case c == ppp.EchoRequest && y.proto == ppp.ProtoLCP:
		l.echoAt = time.Time{} // it lives, but will never answer one
	}
	l.step(now, y, automaton.RXJPlus, p, 0, nil)
	return nil
}
