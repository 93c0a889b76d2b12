package handshake

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"twinkey/proto/esp"
	"twinkey/proto/secret"
	"twinkey/proto/wire"
)

// Kind says what a Call's keys are for. It is part of the prologue.
type Kind uint8

// The kinds.
const (
	CallSetup    Kind = iota + 1 // the first data SA pair of a call, in ICRQ and ICRP
	DataRekey                    // the next one of the same call, over the data keys
	ControlRekey                 // the next control SA pair, over the control keys
)

func (k Kind) String() string {
	switch k {
	case CallSetup:
		return "call"
	case DataRekey:
		return "data rekey"
	case ControlRekey:
		return "control rekey"
	default:
		return fmt.Sprintf("kind %d", uint8(k))
	}
}

// CallConfig says who we are, which call this is and what we accept.
type CallConfig struct {
	Rand        io.Reader
	Static      KeyPair     // data key; for ControlRekey the control key
	PeerStatic  [32]byte    // initiator only: the responder's key, from its certificate
	Hybrid      bool        // initiator: offer ML-KEM-768; responder: take it where offered
	Suites      []esp.Suite // acceptable for the SA, best first; the responder chooses by its own order
	SPI         uint32      // of our inbound SA, at least 256
	Certificate []byte      // initiator: its twin certificate, DER; may be empty in a rekey

	// Verify is called once, with the message that carries the peer's Extra: at the
	// responder in the Read of message 1 (where it is required), at the initiator in the
	// Read of message 2 (where it may be nil: PeerStatic is authenticated by then).
	Verify func(Peer) error

	TunnelHash       [32]byte // TunnelResult.Hash
	Kind             Kind
	Generation       uint32 // of the SA pair: 0 at set-up, then counted up
	InitiatorSession uint16 // the initiator's L2TP session ID; 0 in ControlRekey
	ResponderSession uint16 // the responder's; an initiator leaves 0 what it does not know yet
	Extra            []byte // the owner's own, at most MaxExtra bytes, sealed
}

// CallResult is what a finished call handshake yields.
type CallResult struct {
	Hash                [32]byte
	Suite               esp.Suite
	LocalSPI, RemoteSPI uint32     // of the inbound SA here and at the peer
	Out, In             secret.Key // Suite.KeyLen() bytes each, the machine's: Wipe wipes them
	Peer                Peer
	ResponderSession    uint16 // as the responder has sealed it; an initiator compares it with the ICRP's
	Hybrid              bool   // an ML-KEM secret is in the keys
}

// Call is the handshake of one call or rekey. It is not safe for concurrent use.
//
// The responder has a Result when it wrote message 2, the initiator when it read it. To
// the responder it is the first packet that opens in the SA that proves the initiator
// live (message 1 alone could be a replay, were it not inside the control SA).
type Call struct {
	m machine
	c CallConfig
	p payload // responder: message 1
}

// DialCall starts at the initiator: Write, Read.
func DialCall(c CallConfig) (*Call, error) {
	if c.Kind == CallSetup && len(c.Certificate) == 0 {
		return nil, fmt.Errorf("%w: who places a call shows a certificate", ErrConfig)
	}
	return newCall(c, true)
}

// AnswerCall starts at the responder: Read, Write.
func AnswerCall(c CallConfig) (*Call, error) {
	if c.Verify == nil {
		return nil, fmt.Errorf("%w: who answers a call verifies", ErrConfig)
	}
	return newCall(c, false)
}

func newCall(c CallConfig, initiator bool) (*Call, error) {
	prologue := append([]byte(labelCall), c.TunnelHash[:]...)
	prologue = append(prologue, byte(c.Kind))
	prologue = binary.BigEndian.AppendUint32(prologue, c.Generation)
	prologue = binary.BigEndian.AppendUint16(prologue, c.InitiatorSession)
	k := &Call{c: c, m: machine{rules: callRules[:], next: 1, options: options{
		rand: c.Rand, static: c.Static, hybrid: c.Hybrid, suites: c.Suites, spi: c.SPI, verify: c.Verify,
		prologue: prologue, initiator: initiator}}}
	switch {
	case c.Kind < CallSetup || c.Kind > ControlRekey:
		return nil, fmt.Errorf("%w: %s", ErrConfig, c.Kind)
	case len(c.Certificate) > MaxCertificate || len(c.Extra) > MaxExtra:
		return nil, fmt.Errorf("%w: certificate or extra too long", ErrConfig)
	}
	return k, k.m.check()
}

// SetExtra replaces CallConfig.Extra, at the responder between Read and Write: what it
// answers may depend on what it has read.
func (k *Call) SetExtra(extra []byte) error {
	if k.m.initiator || k.m.next != 2 || k.m.err != nil {
		return fmt.Errorf("%w: extra is set by the responder before it writes", ErrState)
	}
	if len(extra) > MaxExtra {
		return fmt.Errorf("%w: extra of %d bytes", ErrConfig, len(extra))
	}
	k.c.Extra = bytes.Clone(extra)
	return nil
}

// Write returns the message that is due, ErrState if none is.
func (k *Call) Write() ([]byte, error) {
	return k.m.write(func() ([]byte, error) {
		if k.m.initiator {
			return k.write1()
		}
		return k.write2()
	})
}

// Read takes the message that is due. After ErrState and ErrStray the right one may
// still come.
func (k *Call) Read(msg []byte) error {
	return k.m.read(msg, func() error {
		if k.m.initiator {
			return k.read2(msg)
		}
		return k.read1(msg)
	})
}

func (k *Call) write1() ([]byte, error) {
	p := patternIK
	if k.c.Hybrid {
		p = patternIKpsk2
	}
	if err := k.m.start(p, k.c.PeerStatic[:]); err != nil {
		return nil, err
	}
	out := payload{set: setOf(fieldSPI), spi: k.m.spi}
	out.put(fieldCertificate, k.c.Certificate)
	out.put(fieldExtra, k.c.Extra)
	if err := k.m.offer(&out); err != nil {
		return nil, err
	}
	return k.m.seal([]byte{p.first(1)}, &out)
}

func (k *Call) read1(msg []byte) error {
	p, err := announced(msg, patternIK, patternIKpsk2)
	if err != nil {
		return err
	}
	if err := k.m.start(p, nil); err != nil {
		return err
	}
	in, err := k.m.open(msg[1:])
	if err != nil {
		return err
	}
	if in.set.has(fieldKEMKey) != p.hybrid() {
		return ErrKEM
	}
	if k.c.Kind == CallSetup && !in.set.has(fieldCertificate) {
		return &wire.ParseError{Layer: "handshake", Field: "Certificate", Err: wire.ErrTruncated}
	}
	if err := k.m.choose(in.suites); err != nil {
		return err
	}
	k.p, k.m.remote = in, in.spi
	k.m.peer = Peer{Certificate: in.certificate, Extra: in.extra}
	return k.m.admit()
}

func (k *Call) write2() ([]byte, error) {
	text, err := k.m.encapsulate(k.p.kemKey)
	if err != nil {
		return nil, err
	}
	out := payload{set: setOf(fieldSuite, fieldSPI, fieldSession), suite: k.m.suite, spi: k.m.spi, session: k.c.ResponderSession}
	out.put(fieldExtra, k.c.Extra)
	head := []byte{k.m.pattern.first(2)}
	if k.m.pattern.hybrid() {
		head = binary.BigEndian.AppendUint16(head, uint16(len(text))) //nolint:gosec // 0 or 1088
		head = append(head, text...)
	}
	msg, err := k.m.seal(head, &out)
	if err != nil {
		return nil, err
	}
	k.p = payload{}
	return msg, k.m.derive()
}

func (k *Call) read2(msg []byte) error {
	msg, err := k.m.expect(msg)
	if err != nil {
		return err
	}
	r := wire.NewReader("handshake", msg)
	if k.m.pattern.hybrid() {
		// Outside the sealed part, so a fault here may be a stranger's: a stray.
		text := r.Bytes("KEM ciphertext", int(r.Uint16("KEM ciphertext length")))
		if err := r.Err(); err != nil {
			return fmt.Errorf("%w: %w", ErrStray, err)
		}
		if err := k.m.decapsulate(text); err != nil {
			return fmt.Errorf("%w: %w", ErrStray, err)
		}
	}
	in, err := k.m.open(r.Rest())
	if err != nil {
		return err
	}
	if err := k.m.chosen(in.suite); err != nil {
		return err
	}
	if k.c.ResponderSession != 0 && in.session != k.c.ResponderSession {
		return fmt.Errorf("%w: %d, not %d", ErrSession, in.session, k.c.ResponderSession)
	}
	k.c.ResponderSession, k.m.remote = in.session, in.spi
	k.m.peer = Peer{Extra: in.extra}
	if err := k.m.admit(); err != nil {
		return err
	}
	return k.m.derive()
}

// Result returns what the handshake yields once it is through.
func (k *Call) Result() (CallResult, bool) {
	if !k.m.done() {
		return CallResult{}, false
	}
	return CallResult{Hash: k.m.hash, Suite: k.m.suite, LocalSPI: k.m.spi, RemoteSPI: k.m.remote,
		Out: k.m.keys.out, In: k.m.keys.in, Peer: k.m.peer, ResponderSession: k.c.ResponderSession, Hybrid: k.m.mixed}, true
}

// Wipe forgets all secrets, those of a Result too, and ends the machine.
func (k *Call) Wipe() { k.m.end() }
