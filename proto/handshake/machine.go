package handshake

import (
	"crypto/mlkem"
	"errors"
	"fmt"
	"io"
	"slices"

	"twinkey/proto/esp"
	"twinkey/proto/wire"
)

// maxStrays bounds the work that messages which do not authenticate can cause.
const maxStrays = 16

// Peer is what Verify decides on. Slices are valid during the call and, where Verify
// accepts, in the Result.
type Peer struct {
	Static      [32]byte // the key that the peer has proven to hold, or proves with its next message
	Certificate []byte   // twin certificate, DER, whose key (control: tunnel, data: call) MUST equal Static; empty where none was sent
	Caps        Caps
	Extra       []byte // Call only: what the peer's owner added

	// Tunnel, at the answering end only: Signature over Digest by the key of the TLS
	// certificate that stands in Router, all to be checked.
	Router    []byte
	Digest    []byte
	Signature []byte
	Bound     []byte // what Digest holds this tunnel to besides, and with it to Certificate; empty: nothing
}

// options are what Tunnel and Call have in common.
type options struct {
	rand      io.Reader
	static    KeyPair
	hybrid    bool
	suites    []esp.Suite
	spi       uint32
	verify    func(Peer) error
	prologue  []byte
	initiator bool
}

func (o *options) check() error {
	var err error
	if o.static, err = o.static.parsed(); err != nil {
		return err
	}
	switch {
	case o.rand == nil:
		return fmt.Errorf("%w: no random source", ErrConfig)
	case len(o.suites) == 0 || len(o.suites) > maxSuites:
		return fmt.Errorf("%w: %d suites", ErrConfig, len(o.suites))
	case o.spi < minSPI:
		return fmt.Errorf("%w: SPI %d is reserved", ErrConfig, o.spi)
	}
	for i, s := range o.suites {
		if !known(s) || slices.Contains(o.suites[:i], s) {
			return fmt.Errorf("%w: suite %s unknown or twice", ErrConfig, s)
		}
	}
	return nil
}

// machine is the part of Tunnel and Call that knows turns, patterns, suites and secrets,
// but not what the messages say.
type machine struct {
	options
	pattern pattern
	rules   []rule // by number of the message; the last is the last message
	next    int    // number of the message that is due, from 1
	strays  int
	err     error // of death

	x      *exchange
	kem    *mlkem.DecapsulationKey768 // initiator that offers
	peer   Peer
	suite  esp.Suite
	remote uint32   // the peer's inbound SPI
	mixed  bool     // an ML-KEM secret is in the keys
	signed [32]byte // Tunnel: hash after message 2
	hash   [32]byte // after the last message
	keys   keyMaterial
}

// due says whether message m.next is ours to write.
func (m *machine) due() bool { return (m.next%2 == 1) == m.initiator }

func (m *machine) done() bool { return m.err == nil && m.next == len(m.rules) }

// write and read run one turn and are the one exit of the machine.
func (m *machine) write(turn func() ([]byte, error)) ([]byte, error) {
	if m.err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDead, m.err)
	}
	if m.done() || !m.due() {
		return nil, fmt.Errorf("%w: nothing to write", ErrState)
	}
	msg, err := turn()
	if err == nil && len(msg) > MaxMessage {
		err = fmt.Errorf("%w: %d bytes", ErrTooLong, len(msg))
	}
	return msg, m.settle(err)
}

func (m *machine) read(msg []byte, turn func() error) error {
	if m.err != nil {
		return fmt.Errorf("%w: %w", ErrDead, m.err)
	}
	if m.done() || m.due() {
		return fmt.Errorf("%w: nothing to read", ErrState)
	}
	if len(msg) > MaxMessage {
		return m.settle(fmt.Errorf("%w: %w: %d bytes", ErrStray, ErrTooLong, len(msg)))
	}
	return m.settle(turn())
}

// settle moves on after success, stays after a stray, dies of everything else.
func (m *machine) settle(err error) error {
	if err == nil {
		m.next++
		return nil
	}
	// The first message makes the answering end; there is no better one to wait for.
	if errors.Is(err, ErrStray) && m.next > 1 && m.strays < maxStrays {
		m.strays++
		return err
	}
	m.err = err
	m.wipe()
	return err
}

// end is the owner's: it wants no more of the machine.
func (m *machine) end() {
	if m.err == nil {
		m.err = ErrEnded
	}
	m.wipe()
}

func (m *machine) wipe() {
	if m.x != nil {
		m.x.wipe()
	}
	m.kem = nil
	m.keys.wipe()
}

// start begins the exchange; peer is the responder's static key in IK, else nil.
func (m *machine) start(p pattern, peer []byte) error {
	x, err := newExchange(p, m.static, m.initiator, m.rand, m.prologue, peer)
	if err != nil {
		return err
	}
	m.pattern, m.x = p, x
	return nil
}

// offer fills what an initiator says first: its suites and, if hybrid, a fresh KEM key.
func (m *machine) offer(p *payload) error {
	p.suites, p.set = m.suites, p.set|setOf(fieldSuites)
	if !m.pattern.hybrid() {
		return nil
	}
	var seed [mlkem.SeedSize]byte
	defer clear(seed[:])
	if _, err := io.ReadFull(m.rand, seed[:]); err != nil {
		return fmt.Errorf("drawing an ML-KEM key: %w", err)
	}
	kem, err := mlkem.NewDecapsulationKey768(seed[:])
	if err != nil {
		return fmt.Errorf("making an ML-KEM key: %w", err)
	}
	m.kem = kem
	p.put(fieldKEMKey, kem.EncapsulationKey().Bytes())
	return nil
}

// choose picks the first of our suites that the initiator offers.
func (m *machine) choose(offered []esp.Suite) error {
	for _, s := range m.suites {
		if slices.Contains(offered, s) {
			m.suite = s
			return nil
		}
	}
	return fmt.Errorf("%w: offered %v, acceptable %v", ErrSuite, offered, m.suites)
}

// chosen checks that the responder took one that we offered.
func (m *machine) chosen(s esp.Suite) error {
	if !slices.Contains(m.suites, s) {
		return fmt.Errorf("%w: %s was not offered", ErrSuite, s)
	}
	m.suite = s
	return nil
}

// encapsulate answers an initiator's KEM key. It returns nil, with a psk of zeros, where
// we want none of it. In a pattern without psk it does nothing.
func (m *machine) encapsulate(kemKey []byte) ([]byte, error) {
	if !m.pattern.hybrid() {
		return nil, nil
	}
	if !m.hybrid {
		return nil, m.x.setPSK(make([]byte, 32))
	}
	key, err := mlkem.NewEncapsulationKey768(kemKey)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKEM, err)
	}
	shared, text := key.Encapsulate()
	defer clear(shared)
	m.mixed = true
	return text, m.x.setPSK(shared)
}

// decapsulate sets the psk from the responder's answer, which may be empty.
func (m *machine) decapsulate(text []byte) error {
	switch {
	case !m.pattern.hybrid() && len(text) > 0:
		return ErrKEM
	case !m.pattern.hybrid():
		return nil
	case len(text) == 0:
		m.mixed = false
		return m.x.setPSK(make([]byte, 32))
	}
	shared, err := m.kem.Decapsulate(text)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrKEM, err)
	}
	defer clear(shared)
	m.mixed = true
	return m.x.setPSK(shared)
}

// seal writes payload p as the message that is due, behind head.
func (m *machine) seal(head []byte, p *payload) ([]byte, error) {
	return m.x.write(head, p.encode())
}

// open reads the message that is due and parses its payload by the rule for it.
func (m *machine) open(noiseMessage []byte) (payload, error) {
	b, err := m.x.read(noiseMessage)
	if err != nil {
		return payload{}, err
	}
	p, err := parsePayload(b, m.rules[m.next])
	if err != nil {
		return payload{}, fmt.Errorf("reading message %d: %w", m.next, err)
	}
	return p, nil
}

// admit asks the owner about the peer.
func (m *machine) admit() error {
	copy(m.peer.Static[:], m.x.hs.PeerStatic())
	if m.peer.Static == m.static.Public {
		return ErrSelf
	}
	if m.verify == nil {
		return nil
	}
	if err := m.verify(m.peer); err != nil {
		return fmt.Errorf("%w: %w", ErrVerify, err)
	}
	return nil
}

// expect strips the first byte, which must announce message n of the running pattern.
func (m *machine) expect(msg []byte) ([]byte, error) {
	if len(msg) == 0 || msg[0] != m.pattern.first(m.next) {
		return nil, fmt.Errorf("%w: not message %d", ErrStray, m.next)
	}
	return msg[1:], nil
}

// announced is the pattern that message 1 is for, one of plain and hybrid.
func announced(msg []byte, plain, hybrid pattern) (pattern, error) {
	r := wire.NewReader("handshake", msg)
	switch first := r.Uint8("Pattern"); {
	case r.Err() != nil:
		return 0, r.Err()
	case first == plain.first(1):
		return plain, nil
	case first == hybrid.first(1):
		return hybrid, nil
	default:
		return 0, &wire.ParseError{Layer: "handshake", Field: "Pattern", Err: wire.ErrValue}
	}
}
