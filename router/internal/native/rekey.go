package native

import (
	"errors"
	"fmt"
	"time"

	"twinkey/proto/handshake"
	"twinkey/proto/l2tp"
	"twinkey/router/internal/calls"
)

var errRekeyKey = errors.New("the peer's key in a rekey is not the one that it began with")

// rekeyHead is what the first message of a rekey flight said.
type rekeyHead struct {
	reply      bool
	generation uint32
}

// rekeying is one SA pair of which the keys can be replaced: a tunnel's over the control
// keys, or a call's over the data keys. Both are the same procedure.
type rekeying struct {
	t          *tunnelState
	a          *association
	flight     *handshake.Assembler
	head       *rekeyHead
	kind       handshake.Kind
	session    uint16 // ours; 0: the tunnel
	peer       uint16 // theirs
	static     handshake.KeyPair
	peerStatic [32]byte
	call       *calls.Call
	publish    func() // shows the data path the new outbound SA
}

func (t *tunnelState) rekeying() rekeying {
	peer := t.cert.Keys.Control
	if t.initiator {
		peer = t.far.Keys.Control
	}
	return rekeying{t: t, a: &t.ctl, flight: &t.flight, head: &t.rekey, kind: handshake.ControlRekey, static: t.cred.Control, peerStatic: peer, publish: func() {}}
}

func (s *session) rekeying() rekeying {
	return rekeying{
		t: s.t, a: &s.data, flight: &s.flight, head: &s.rekey, kind: handshake.DataRekey, session: s.local, peer: s.peer,
		static:     s.cred.Data,
		peerStatic: s.peerData, call: s.call, publish: s.publish,
	}
}

func (r rekeying) config(generation, spi uint32) handshake.CallConfig {
	c := r.t.e.c
	return handshake.CallConfig{
		Rand: c.Rand, Static: r.static, Hybrid: c.Hybrid, Suites: c.Suites, SPI: spi,
		TunnelHash: r.t.hash, Kind: r.kind, Generation: generation,
	}
}

// ask begins a rekey. Nothing changes until the answer is there.
func (r rekeying) ask(now time.Time) error {
	spi, err := r.t.e.c.Table.Reserve(r.t.e.c.Rand)
	if err != nil {
		return fmt.Errorf("rekeying: %w", err)
	}
	c := r.config(r.a.generation+1, spi)
	c.PeerStatic, c.InitiatorSession = r.peerStatic, r.session
	hs, err := handshake.DialCall(c)
	var msg []byte
	if err == nil {
		msg, err = hs.Write()
	}
	if err != nil {
		r.t.e.c.Table.Release(spi)
		return fmt.Errorf("rekeying: %w", err)
	}
	r.a.asked, r.a.askedSPI = hs, spi
	return r.say(now, msgRekeyRequest, r.a.generation+1, msg)
}

func (r rekeying) say(now time.Time, typ uint16, generation uint32, msg []byte) error {
	first, more, err := flight(msg, sessionAVP(r.session))
	if err != nil {
		return fmt.Errorf("rekeying: %w", err)
	}
	first = append(first, sessionAVP(r.session), generationAVP(generation))
	if err := r.t.m.SendVendor(now, 0, l2tp.VendorTwinkey, typ, first...); err != nil {
		return fmt.Errorf("rekeying: %w", err)
	}
	return r.t.sendMore(now, more)
}

// begin takes the first message of a flight, RekeyRequest or RekeyReply.
func (r rekeying) begin(now time.Time, m *l2tp.Message) error {
	g, err := getGeneration(m)
	if err != nil {
		return err
	}
	*r.head = rekeyHead{reply: uint16(m.Type) == msgRekeyReply, generation: g}
	*r.flight = handshake.Assembler{}
	return r.part(now, m)
}

func (r rekeying) part(now time.Time, m *l2tp.Message) error {
	p, ok := m.Vendor(avpFlight)
	if !ok {
		return errMissing
	}
	msg, done, err := r.flight.Add(p)
	if err != nil || !done {
		return err
	}
	*r.flight = handshake.Assembler{}
	return r.message(now, msg)
}

// message takes a whole flight. One that belongs to an older generation, or that lost
// the tie against our own request, is let go.
func (r rekeying) message(now time.Time, msg []byte) error {
	if r.head.generation != r.a.generation+1 {
		return nil
	}
	if r.head.reply {
		return r.finish(now, msg)
	}
	if r.a.asked != nil {
		if r.t.initiator {
			return nil // both asked: ours counts, and the peer knows it
		}
		r.a.forget(r.t.e.c.Table)
	}
	return r.answer(now, msg)
}

// answer takes a RekeyRequest: the new inbound SA opens from now on; the new outbound
// SA seals when the asker was heard on its own.
func (r rekeying) answer(now time.Time, msg []byte) error {
	spi, err := r.t.e.c.Table.Reserve(r.t.e.c.Rand)
	if err != nil {
		return fmt.Errorf("answering a rekey: %w", err)
	}
	c := r.config(r.head.generation, spi)
	c.InitiatorSession, c.ResponderSession = r.peer, r.session
	c.Verify = func(p handshake.Peer) error {
		if !sameKey(p.Static, r.peerStatic) {
			return errRekeyKey
		}
		return nil
	}
	reply, err := r.answerWith(now, c, msg)
	if err != nil {
		r.t.e.c.Table.Release(spi)
		return fmt.Errorf("answering a rekey: %w", err)
	}
	return r.say(now, msgRekeyReply, r.head.generation, reply)
}

func (r rekeying) answerWith(now time.Time, c handshake.CallConfig, msg []byte) ([]byte, error) {
	hs, err := handshake.AnswerCall(c)
	if err != nil {
		return nil, err
	}
	defer hs.Wipe()
	if err := hs.Read(msg); err != nil {
		return nil, err
	}
	reply, err := hs.Write()
	if err != nil {
		return nil, err
	}
	return reply, r.install(now, hs, false)
}

// finish takes a RekeyReply: both new SAs are used at once.
func (r rekeying) finish(now time.Time, msg []byte) error {
	hs := r.a.asked
	if hs == nil {
		return nil
	}
	if err := hs.Read(msg); err != nil {
		r.a.forget(r.t.e.c.Table)
		return fmt.Errorf("finishing a rekey: %w", err)
	}
	r.a.asked = nil
	defer hs.Wipe()
	if err := r.install(now, hs, true); err != nil {
		return err
	}
	r.publish()
	return nil
}

func (r rekeying) install(now time.Time, hs *handshake.Call, immediate bool) error {
	res, ok := hs.Result()
	if !ok {
		return errUnexpected
	}
	k := keys{
		suite: res.Suite, hybrid: res.Hybrid, local: res.LocalSPI, remote: res.RemoteSPI,
		in: res.In, out: res.Out, call: r.call, tunnel: r.t.id, immediate: immediate,
	}
	if err := r.a.install(now, r.t.e, k); err != nil {
		return err
	}
	r.t.e.emit(Rekeyed{Tunnel: r.t.id, Call: r.call, Generation: r.a.generation, Suite: r.a.suite})
	return nil
}

// rekeyAfter is when this end asks for new keys: the tunnel's initiator first, so that
// both rarely ask at once; the other end if that did not come to pass.
func (t *tunnelState) rekeyAfter() time.Duration {
	if t.initiator {
		return t.e.c.RekeyTime
	}
	return t.e.c.RekeyTime + t.e.c.RekeyTime/8
}
