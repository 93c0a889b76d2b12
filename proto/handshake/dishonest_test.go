package handshake

import (
	"bytes"
	"crypto/rand"
	"errors"
	"testing"

	"twinkey/proto/esp"
	"twinkey/proto/secret"
	"twinkey/proto/wire"
)

// These peers authenticate, hold the right keys, and say what they must not.

func honest(t *testing.T) (TunnelConfig, CallConfig) {
	t.Helper()
	b := make([]byte, 32)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	k, err := NewKeyPair(secret.New(b))
	if err != nil {
		t.Fatal(err)
	}
	believe := func(Peer) error { return nil }
	return TunnelConfig{Rand: rand.Reader, Static: k, Suites: esp.Suites()[:1], SPI: 256, Certificate: []byte("c"), Router: []byte("r"),
			Sign: func(d []byte) ([]byte, error) { return d, nil }, Verify: believe},
		CallConfig{Rand: rand.Reader, Static: k, Suites: esp.Suites()[:1], SPI: 256, Certificate: []byte("c"), Kind: CallSetup, Verify: believe}
}

func tunnelPair(t *testing.T) (i, r *Tunnel) {
	t.Helper()
	ci, _ := honest(t)
	cr, _ := honest(t)
	i, err := DialTunnel(ci)
	if err != nil {
		t.Fatal(err)
	}
	if r, err = AnswerTunnel(cr); err != nil {
		t.Fatal(err)
	}
	return i, r
}

func callPair(t *testing.T) (i, r *Call) {
	t.Helper()
	_, ci := honest(t)
	_, cr := honest(t)
	ci.PeerStatic = cr.Static.Public
	i, err := DialCall(ci)
	if err != nil {
		t.Fatal(err)
	}
	if r, err = AnswerCall(cr); err != nil {
		t.Fatal(err)
	}
	return i, r
}

type writer interface{ Write() ([]byte, error) }

type reader interface{ Read([]byte) error }

func carry(t *testing.T, from writer, to reader) error {
	t.Helper()
	msg, err := from.Write()
	if err != nil {
		t.Fatal(err)
	}
	return to.Read(msg)
}

func TestResponderChoosesWhatWasNotOffered(t *testing.T) {
	i, r := tunnelPair(t)
	if err := carry(t, i, r); err != nil {
		t.Fatal(err)
	}
	r.m.suite = esp.NullSHA256
	if err := carry(t, r, i); !errors.Is(err, ErrSuite) {
		t.Errorf("tunnel: %v", err)
	}
	if _, err := i.Write(); !errors.Is(err, ErrDead) || !errors.Is(err, ErrSuite) {
		t.Errorf("tunnel: after it: %v", err)
	}
	ki, kr := callPair(t)
	if err := carry(t, ki, kr); err != nil {
		t.Fatal(err)
	}
	kr.m.suite = esp.NullSHA256
	if err := carry(t, kr, ki); !errors.Is(err, ErrSuite) {
		t.Errorf("call: %v", err)
	}
}

func TestPatternAndKEMKeyMustAgree(t *testing.T) {
	key := payload{set: setOf(fieldSuites, fieldSPI), suites: esp.Suites(), spi: 256}
	key.put(fieldCertificate, []byte("c"))
	with := key
	with.put(fieldKEMKey, make([]byte, registry[fieldKEMKey].min))
	for _, tt := range []struct {
		p pattern
		f payload
	}{{patternXX, with}, {patternXXpsk3, key}, {patternIK, with}, {patternIKpsk2, key}} {
		var to reader
		var prologue, peer []byte
		if tt.p.noise().Name == "XX" {
			_, r := tunnelPair(t)
			to, prologue = r, r.m.prologue
			tt.f.set &^= setOf(fieldSPI, fieldCertificate)
		} else {
			_, r := callPair(t)
			to, prologue, peer = r, r.m.prologue, r.m.static.Public[:]
		}
		c, _ := honest(t)
		x, err := newExchange(tt.p, c.Static, true, rand.Reader, prologue, peer)
		if err != nil {
			t.Fatal(err)
		}
		msg, err := x.write([]byte{tt.p.first(1)}, tt.f.encode())
		if err != nil {
			t.Fatal(err)
		}
		if err := to.Read(msg); !errors.Is(err, ErrKEM) {
			t.Errorf("pattern %d: %v", tt.p, err)
		}
	}
}

// A KEM key whose coefficients are out of range is one that FIPS 203 section 7.2 refuses.
func TestKEMKeyIsChecked(t *testing.T) {
	ci, _ := honest(t)
	cr, _ := honest(t)
	cr.Hybrid = true
	r, err := AnswerTunnel(cr)
	if err != nil {
		t.Fatal(err)
	}
	x, err := newExchange(patternXXpsk3, ci.Static, true, rand.Reader, r.m.prologue, nil)
	if err != nil {
		t.Fatal(err)
	}
	p := payload{set: setOf(fieldSuites), suites: esp.Suites()}
	p.put(fieldKEMKey, bytes.Repeat([]byte{0xFF}, registry[fieldKEMKey].min))
	msg, err := x.write([]byte{patternXXpsk3.first(1)}, p.encode())
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Read(msg); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Write(); !errors.Is(err, ErrKEM) {
		t.Errorf("err = %v", err)
	}
}

func TestCallWithoutCertificate(t *testing.T) {
	i, r := callPair(t)
	i.c.Certificate = nil
	err := carry(t, i, r)
	if pe, ok := errors.AsType[*wire.ParseError](err); !ok || pe.Field != "Certificate" {
		t.Errorf("err = %v", err)
	}
}

func TestDeathWipes(t *testing.T) {
	i, r := tunnelPair(t)
	for _, c := range []struct {
		from writer
		to   reader
	}{{i, r}, {r, i}} {
		if err := carry(t, c.from, c.to); err != nil {
			t.Fatal(err)
		}
	}
	x := r.m.x
	r.m.verify = func(Peer) error { return errors.New("revoked") }
	if err := carry(t, i, r); !errors.Is(err, ErrVerify) {
		t.Fatal(err)
	}
	if x.curve.static != nil || x.curve.ephemeral != nil || x.hs != nil || x.past != nil || x.initiatorKey != [32]byte{} {
		t.Error("secrets are left after death")
	}
	// The initiator came through: what led to its keys is gone, the keys are there.
	if i.m.x.hs != nil || i.m.x.responderKey != [32]byte{} || i.m.keys.out.Len() == 0 {
		t.Error("secrets are left after the end, or none came out")
	}
	out := i.m.keys.out
	i.Wipe()
	if !bytes.Equal(out.Bytes(), make([]byte, out.Len())) {
		t.Error("keys are left after Wipe")
	}
}
