package handshake

import (
	"fmt"
	"io"

	"twinkey/proto/esp"
	"twinkey/proto/secret"
)

// TunnelConfig says who we are and what we accept. Nothing in it is changed; Static stays
// the caller's.
type TunnelConfig struct {
	Rand        io.Reader
	Static      KeyPair     // control key
	Hybrid      bool        // initiator: offer ML-KEM-768; responder: take it where offered
	Suites      []esp.Suite // acceptable for the control SA, best first; the responder chooses by its own order
	SPI         uint32      // of our inbound control SA, at least 256
	Certificate []byte      // twin certificate, DER
	Caps        Caps

	// Router is the TLS certificate of the initiator's router, DER, and Sign signs by the key of it. Who cannot sign at once, for a
	// signer elsewhere has to be asked, gives neither, and calls Vouch before the Write of message 3.
	Router []byte
	Sign   func(digest []byte) ([]byte, error)

	// Verify is called once with what the peer has sent: at the initiator in the Read of
	// message 2, at the responder in the Read of message 3. Any error ends the handshake.
	Verify   func(Peer) error
	Prologue []byte // what both ends know already and must agree on
}

// TunnelResult is what a finished tunnel handshake yields.
type TunnelResult struct {
	Hash                [32]byte // names this handshake: CallConfig.TunnelHash
	Suite               esp.Suite
	LocalSPI, RemoteSPI uint32     // of the inbound SA here and at the peer
	Out, In             secret.Key // Suite.KeyLen() bytes each, the machine's: Wipe wipes them
	Peer                Peer
	Hybrid              bool // an ML-KEM secret is in the keys
}

// Tunnel is the handshake of one tunnel. It is not safe for concurrent use.
//
// The initiator has a Result when it wrote message 3, the responder when it read it. To
// the initiator the peer is proven by message 2; that the peer took message 3 shows in
// the first packet that opens in the control SA.
type Tunnel struct {
	m machine
	c TunnelConfig
	p payload // responder: message 1

	voucher Voucher // initiator
}

// DialTunnel starts at the initiator: Write, Read, Write.
func DialTunnel(c TunnelConfig) (*Tunnel, error) {
	if (c.Sign == nil) != (len(c.Router) == 0) || len(c.Router) > MaxRouter {
		return nil, fmt.Errorf("%w: who signs shows its router's certificate of at most %d bytes", ErrConfig, MaxRouter)
	}
	return newTunnel(c, true)
}

// AnswerTunnel starts at the responder: Read, Write, Read.
func AnswerTunnel(c TunnelConfig) (*Tunnel, error) { return newTunnel(c, false) }

func newTunnel(c TunnelConfig, initiator bool) (*Tunnel, error) {
	t := &Tunnel{c: c, m: machine{rules: tunnelRules[:], next: 1, options: options{
		rand: c.Rand, static: c.Static, hybrid: c.Hybrid, suites: c.Suites, spi: c.SPI, verify: c.Verify,
		prologue: appendPart([]byte(labelTunnel), c.Prologue), initiator: initiator}}}
	if c.Verify == nil || len(c.Certificate) == 0 || len(c.Certificate) > MaxCertificate {
		return nil, fmt.Errorf("%w: a tunnel needs Verify and a certificate of at most %d bytes", ErrConfig, MaxCertificate)
	}
	return t, t.m.check()
}

// Statement is what the initiator's router has to sign, after it has said to what it binds it; false: message 3 is not due.
func (t *Tunnel) Statement() (Statement, bool) {
	if !t.m.initiator || t.m.err != nil || t.m.done() || t.m.next != 3 {
		return Statement{}, false
	}
	return Statement{Hash: t.m.signed, Control: t.m.static.Public, Certificate: t.c.Certificate}, true
}

// Vouch takes what the router says. Whether the signature is good is for the responder to see. After an error it may come again.
func (t *Tunnel) Vouch(v Voucher) error {
	if _, ok := t.Statement(); !ok {
		return fmt.Errorf("%w: there is nothing to sign", ErrState)
	}
	if len(v.Router) == 0 || len(v.Router) > MaxRouter || len(v.Bound) > MaxBound || len(v.Signature) == 0 || len(v.Signature) > maxSignature {
		return fmt.Errorf("%w: certificate of %d bytes, bound to %d, signature of %d", ErrConfig, len(v.Router), len(v.Bound), len(v.Signature))
	}
	t.voucher = v
	return nil
}

// Write returns the message that is due, ErrState if none is, or if Vouch has to come first.
func (t *Tunnel) Write() ([]byte, error) {
	if _, ok := t.Statement(); ok && t.c.Sign == nil && t.voucher.Signature == nil {
		return nil, fmt.Errorf("%w: nobody has signed", ErrState)
	}
	return t.m.write(func() ([]byte, error) {
		switch t.m.next {
		case 1:
			return t.write1()
		case 2:
			return t.write2()
		default:
			return t.write3()
		}
	})
}

// Read takes the message that is due. After ErrState and ErrStray the right one may
// still come.
func (t *Tunnel) Read(msg []byte) error {
	return t.m.read(msg, func() error {
		switch t.m.next {
		case 1:
			return t.read1(msg)
		case 2:
			return t.read2(msg)
		default:
			return t.read3(msg)
		}
	})
}

func (t *Tunnel) write1() ([]byte, error) {
	p := patternXX
	if t.c.Hybrid {
		p = patternXXpsk3
	}
	if err := t.m.start(p, nil); err != nil {
		return nil, err
	}
	var out payload
	if err := t.m.offer(&out); err != nil {
		return nil, err
	}
	return t.m.seal([]byte{p.first(1)}, &out)
}

func (t *Tunnel) read1(msg []byte) error {
	p, err := announced(msg, patternXX, patternXXpsk3)
	if err != nil {
		return err
	}
	if err := t.m.start(p, nil); err != nil {
		return err
	}
	in, err := t.m.open(msg[1:])
	if err != nil {
		return err
	}
	if in.set.has(fieldKEMKey) != p.hybrid() {
		return ErrKEM
	}
	t.p = in
	return t.m.choose(in.suites)
}

func (t *Tunnel) write2() ([]byte, error) {
	text, err := t.m.encapsulate(t.p.kemKey)
	if err != nil {
		return nil, err
	}
	out := payload{set: setOf(fieldSuite, fieldSPI, fieldCaps), suite: t.m.suite, spi: t.m.spi, caps: t.c.Caps}
	out.put(fieldCertificate, t.c.Certificate)
	out.put(fieldKEMText, text)
	msg, err := t.m.seal([]byte{t.m.pattern.first(2)}, &out)
	if err != nil {
		return nil, err
	}
	t.p = payload{}
	t.m.signed = t.m.x.hash()
	return msg, nil
}

func (t *Tunnel) read2(msg []byte) error {
	msg, err := t.m.expect(msg)
	if err != nil {
		return err
	}
	in, err := t.m.open(msg)
	if err != nil {
		return err
	}
	if err := t.m.chosen(in.suite); err != nil {
		return err
	}
	if err := t.m.decapsulate(in.kemText); err != nil {
		return err
	}
	t.m.signed, t.m.remote = t.m.x.hash(), in.spi
	t.m.peer = Peer{Certificate: in.certificate, Caps: in.caps}
	return t.m.admit()
}

func (t *Tunnel) write3() ([]byte, error) {
	if t.voucher.Signature == nil {
		if err := t.sign(); err != nil {
			return nil, err
		}
	}
	out := payload{set: setOf(fieldSPI, fieldCaps), spi: t.m.spi, caps: t.c.Caps}
	out.put(fieldCertificate, t.c.Certificate)
	out.put(fieldRouter, t.voucher.Router)
	out.put(fieldSignature, t.voucher.Signature)
	out.put(fieldBound, t.voucher.Bound)
	msg, err := t.m.seal([]byte{t.m.pattern.first(3)}, &out)
	if err != nil {
		return nil, err
	}
	return msg, t.m.derive()
}

// sign has Statement signed by who is at hand.
func (t *Tunnel) sign() error {
	s, _ := t.Statement()
	digest := s.Digest()
	signature, err := t.c.Sign(digest[:])
	if err != nil {
		return fmt.Errorf("signing the handshake: %w", err)
	}
	return t.Vouch(Voucher{Router: t.c.Router, Signature: signature})
}

func (t *Tunnel) read3(msg []byte) error {
	msg, err := t.m.expect(msg)
	if err != nil {
		return err
	}
	in, err := t.m.open(msg)
	if err != nil {
		return err
	}
	t.m.remote = in.spi
	static := [32]byte(t.m.x.hs.PeerStatic())
	digest := Statement{Hash: t.m.signed, Control: static, Certificate: in.certificate, Bound: in.bound}.Digest()
	t.m.peer = Peer{Certificate: in.certificate, Caps: in.caps, Router: in.router, Signature: in.signature, Digest: digest[:], Bound: in.bound}
	if err := t.m.admit(); err != nil {
		return err
	}
	return t.m.derive()
}

// Result returns what the handshake yields once it is through.
func (t *Tunnel) Result() (TunnelResult, bool) {
	if !t.m.done() {
		return TunnelResult{}, false
	}
	return TunnelResult{Hash: t.m.hash, Suite: t.m.suite, LocalSPI: t.m.spi, RemoteSPI: t.m.remote,
		Out: t.m.keys.out, In: t.m.keys.in, Peer: t.m.peer, Hybrid: t.m.mixed}, true
}

// Wipe forgets all secrets, those of a Result too, and ends the machine.
func (t *Tunnel) Wipe() { t.m.end() }
