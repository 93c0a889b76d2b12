package handshake

import (
	"bytes"
	"fmt"
	"io"

	"github.com/flynn/noise"
)

// exchange is one run of a Noise pattern that survives messages which do not
// authenticate. flynn/noise rolls its hash back after such a message, but not its key
// and nonce, and nothing at all after a short message or a low-order point; so exchange
// keeps what passed and, after a failure, runs the pattern again up to there. That costs
// the honest path nothing and an attacker's message about what an honest one costs.
type exchange struct {
	curve *curve
	cfg   noise.Config
	hs    *noise.HandshakeState
	past  []passed

	initiatorKey, responderKey [32]byte // set by the last message: to seal what each sends
}

// passed is a payload that we wrote or a message that we read.
type passed struct {
	wrote bool
	data  []byte
}

func newExchange(p pattern, k KeyPair, initiator bool, rand io.Reader, prologue, peer []byte) (*exchange, error) {
	c := &curve{static: k.key}
	x := &exchange{curve: c, cfg: noise.Config{
		CipherSuite:           noise.NewCipherSuite(c, noise.CipherAESGCM, noise.HashSHA256),
		Random:                rand,
		Pattern:               p.noise(),
		Initiator:             initiator,
		Prologue:              prologue,
		PresharedKeyPlacement: p.pskPlacement(),
		StaticKeypair:         c.staticPair(),
		PeerStatic:            peer,
	}}
	return x, x.restart()
}

func (x *exchange) restart() error {
	hs, err := noise.NewHandshakeState(x.cfg)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	x.hs = hs
	for _, p := range x.past {
		if p.wrote {
			_, _, _, err = hs.WriteMessage(nil, p.data)
		} else {
			_, _, _, err = hs.ReadMessage(nil, p.data)
		}
		if err != nil {
			return fmt.Errorf("running the pattern again: %w", err)
		}
	}
	return nil
}

// setPSK must come before the message that mixes it in; it may come again after a stray.
func (x *exchange) setPSK(psk []byte) error {
	clear(x.cfg.PresharedKey)
	x.cfg.PresharedKey = bytes.Clone(psk)
	return x.hs.SetPresharedKey(psk)
}

// write appends the next message, around payload, to b.
func (x *exchange) write(b, payload []byte) ([]byte, error) {
	b, c1, c2, err := x.hs.WriteMessage(b, payload)
	if err != nil {
		return nil, fmt.Errorf("writing a Noise message: %w", err)
	}
	x.pass(true, payload, c1, c2)
	return b, nil
}

// read returns the payload of the next message. ErrStray leaves x as it was.
func (x *exchange) read(msg []byte) ([]byte, error) {
	payload, c1, c2, err := x.hs.ReadMessage(nil, msg)
	if err != nil {
		if again := x.restart(); again != nil {
			return nil, again
		}
		return nil, fmt.Errorf("%w: %w", ErrStray, err)
	}
	x.pass(false, msg, c1, c2)
	return payload, nil
}

func (x *exchange) pass(wrote bool, data []byte, c1, c2 *noise.CipherState) {
	x.past = append(x.past, passed{wrote, bytes.Clone(data)})
	if c1 != nil {
		x.initiatorKey, x.responderKey = c1.UnsafeKey(), c2.UnsafeKey()
	}
}

// hash is the transcript's hash so far; after the last message, the channel binding.
func (x *exchange) hash() [32]byte { return [32]byte(x.hs.ChannelBinding()) }

func (x *exchange) wipe() {
	x.curve.wipe()
	clear(x.cfg.PresharedKey)
	clear(x.initiatorKey[:])
	clear(x.responderKey[:])
	x.hs, x.past = nil, nil
}
