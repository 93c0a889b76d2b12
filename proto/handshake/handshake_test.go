package handshake_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"io"
	"testing"

	"twinkey/proto/esp"
	"twinkey/proto/handshake"
	"twinkey/proto/secret"
)

// party is one end: a control key, a data key and, standing for its certificates, two
// texts that contain the keys as a real one would.
type party struct {
	control, data handshake.KeyPair
	cert          []byte // control key | data key | name
	sign          *ecdsa.PrivateKey
	router        []byte // PKIX public key of sign
}

func newParty(t testing.TB, name string) party {
	t.Helper()
	p := party{control: newKey(t), data: newKey(t)}
	p.cert = append(append(p.control.Public[:], p.data.Public[:]...), name...)
	var err error
	if p.sign, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	if p.router, err = x509.MarshalPKIXPublicKey(&p.sign.PublicKey); err != nil {
		t.Fatal(err)
	}
	return p
}

func newKey(t testing.TB) handshake.KeyPair {
	t.Helper()
	b := make([]byte, 32)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	k, err := handshake.NewKeyPair(secret.New(b))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

var errForged = errors.New("key, certificate and signature do not belong together")

// verifyControl is what an owner must do with a tunnel's Peer.
func verifyControl(p handshake.Peer) error {
	if !bytes.HasPrefix(p.Certificate, p.Static[:]) {
		return errForged
	}
	if p.Router == nil {
		return nil
	}
	key, err := x509.ParsePKIXPublicKey(p.Router)
	if err != nil {
		return err
	}
	if !ecdsa.VerifyASN1(key.(*ecdsa.PublicKey), p.Digest, p.Signature) {
		return errForged
	}
	return nil
}

// verifyData is what an owner must do with a call's Peer.
func verifyData(p handshake.Peer) error {
	if len(p.Certificate) < 64 || !bytes.Equal(p.Certificate[32:64], p.Static[:]) {
		return errForged
	}
	return nil
}

func tunnelConfig(p party, spi uint32, hybrid bool) handshake.TunnelConfig {
	return handshake.TunnelConfig{Rand: rand.Reader, Static: p.control, Hybrid: hybrid, Suites: esp.Suites()[:3], SPI: spi,
		Certificate: p.cert, Router: p.router, Caps: 5, Prologue: []byte("tunnels 7 and 9"), Verify: verifyControl,
		Sign: func(digest []byte) ([]byte, error) { return ecdsa.SignASN1(rand.Reader, p.sign, digest) }}
}

// machine is what Tunnel and Call have in common.
type machine interface {
	Write() ([]byte, error)
	Read([]byte) error
	Wipe()
}

// dialogue is both ends and how many messages they exchange.
type dialogue struct {
	i, r  machine
	turns int
}

func (d dialogue) sides(turn int) (from, to machine) {
	if turn%2 == 1 {
		return d.i, d.r
	}
	return d.r, d.i
}

// run carries every message, through change if it is not nil, until an error.
func (d dialogue) run(change func(turn int, msg []byte) []byte) error {
	for turn := 1; turn <= d.turns; turn++ {
		from, to := d.sides(turn)
		msg, err := from.Write()
		if err != nil {
			return err
		}
		if change != nil {
			msg = change(turn, msg)
		}
		if err := to.Read(msg); err != nil {
			return err
		}
	}
	return nil
}

func (d dialogue) through() bool { return finished(d.i) && finished(d.r) }

func finished(m machine) (ok bool) {
	switch m := m.(type) {
	case *handshake.Tunnel:
		_, ok = m.Result()
	case *handshake.Call:
		_, ok = m.Result()
	}
	return ok
}

func newTunnel(t testing.TB, ci, cr handshake.TunnelConfig) dialogue {
	t.Helper()
	i, err := handshake.DialTunnel(ci)
	if err != nil {
		t.Fatal(err)
	}
	r, err := handshake.AnswerTunnel(cr)
	if err != nil {
		t.Fatal(err)
	}
	return dialogue{i, r, 3}
}

func callConfigs(i, r party, hybrid bool) (ci, cr handshake.CallConfig) {
	common := handshake.CallConfig{Rand: rand.Reader, Hybrid: hybrid, Suites: esp.Suites()[:3], Kind: handshake.CallSetup,
		TunnelHash: [32]byte{1, 2, 3}, InitiatorSession: 11}
	ci, cr = common, common
	ci.Static, ci.PeerStatic, ci.SPI, ci.Certificate, ci.Extra = i.data, r.data.Public, 0x1001, i.cert, []byte("10.1.0.3")
	cr.Static, cr.SPI, cr.ResponderSession, cr.Extra, cr.Verify = r.data, 0x2002, 22, []byte("welcome"), verifyData
	return ci, cr
}

func newCall(t testing.TB, ci, cr handshake.CallConfig) dialogue {
	t.Helper()
	i, err := handshake.DialCall(ci)
	if err != nil {
		t.Fatal(err)
	}
	r, err := handshake.AnswerCall(cr)
	if err != nil {
		t.Fatal(err)
	}
	return dialogue{i, r, 2}
}

// patterns are the four dialogues between two parties.
func patterns(t testing.TB) map[string]func() dialogue {
	t.Helper()
	i, r := newParty(t, "ra"), newParty(t, "rb")
	tunnel := func(hybrid bool) func() dialogue {
		return func() dialogue {
			return newTunnel(t, tunnelConfig(i, 0x1001, hybrid), tunnelConfig(r, 0x2002, hybrid))
		}
	}
	call := func(hybrid bool) func() dialogue {
		return func() dialogue { ci, cr := callConfigs(i, r, hybrid); return newCall(t, ci, cr) }
	}
	return map[string]func() dialogue{"XX": tunnel(false), "XXpsk3": tunnel(true), "IK": call(false), "IKpsk2": call(true)}
}

func TestTunnel(t *testing.T) {
	for _, tt := range []struct {
		name                     string
		offers, takes, wantMixed bool
	}{
		{"neither end is hybrid", false, false, false},
		{"offered and taken", true, true, true},
		{"offered, not taken", true, false, false},
		{"not offered", false, true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, b := newParty(t, "ra"), newParty(t, "rb")
			d := newTunnel(t, tunnelConfig(a, 0x1001, tt.offers), tunnelConfig(b, 0x2002, tt.takes))
			if err := d.run(nil); err != nil {
				t.Fatal(err)
			}
			i, _ := d.i.(*handshake.Tunnel).Result()
			r, _ := d.r.(*handshake.Tunnel).Result()
			if i.Hash != r.Hash || i.Hash == [32]byte{} {
				t.Errorf("hashes %x and %x", i.Hash, r.Hash)
			}
			if !i.Out.Equal(r.In) || !i.In.Equal(r.Out) || i.Out.Equal(i.In) || i.Out.Len() != i.Suite.KeyLen() {
				t.Error("keys do not cross")
			}
			if i.Suite != esp.AES256GCM || r.Suite != i.Suite {
				t.Errorf("suites %s and %s", i.Suite, r.Suite)
			}
			if i.LocalSPI != 0x1001 || i.RemoteSPI != 0x2002 || r.LocalSPI != 0x2002 || r.RemoteSPI != 0x1001 {
				t.Errorf("SPIs %x>%x, %x>%x", i.LocalSPI, i.RemoteSPI, r.LocalSPI, r.RemoteSPI)
			}
			if i.Peer.Static != b.control.Public || r.Peer.Static != a.control.Public {
				t.Error("static keys are not the peers'")
			}
			if !bytes.Equal(i.Peer.Certificate, b.cert) || !bytes.Equal(r.Peer.Certificate, a.cert) || !bytes.Equal(r.Peer.Router, a.router) {
				t.Error("certificates are not the peers'")
			}
			if i.Peer.Caps != 5 || r.Peer.Caps != 5 {
				t.Error("caps are lost")
			}
			if i.Hybrid != tt.wantMixed || r.Hybrid != tt.wantMixed {
				t.Errorf("hybrid %v and %v, want %v", i.Hybrid, r.Hybrid, tt.wantMixed)
			}
		})
	}
}

func TestCall(t *testing.T) {
	for _, tt := range []struct {
		name                     string
		offers, takes, wantMixed bool
	}{
		{"neither end is hybrid", false, false, false},
		{"offered and taken", true, true, true},
		{"offered, not taken", true, false, false},
		{"not offered", false, true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, b := newParty(t, "alice"), newParty(t, "rb")
			ci, cr := callConfigs(a, b, tt.offers)
			cr.Hybrid = tt.takes
			var answered handshake.Peer
			ci.Verify = func(p handshake.Peer) error { answered = p; return nil }
			d := newCall(t, ci, cr)
			if err := d.run(nil); err != nil {
				t.Fatal(err)
			}
			i, _ := d.i.(*handshake.Call).Result()
			r, _ := d.r.(*handshake.Call).Result()
			if i.Hash != r.Hash || !i.Out.Equal(r.In) || !i.In.Equal(r.Out) || i.Out.Equal(i.In) {
				t.Error("keys do not cross")
			}
			if i.RemoteSPI != 0x2002 || r.RemoteSPI != 0x1001 || i.ResponderSession != 22 || r.ResponderSession != 22 {
				t.Errorf("initiator learns SPI %x session %d, responder SPI %x", i.RemoteSPI, i.ResponderSession, r.RemoteSPI)
			}
			if r.Peer.Static != a.data.Public || !bytes.Equal(r.Peer.Certificate, a.cert) || string(r.Peer.Extra) != "10.1.0.3" {
				t.Errorf("responder learns %+v", r.Peer)
			}
			if i.Peer.Static != b.data.Public || string(answered.Extra) != "welcome" {
				t.Errorf("initiator learns %+v, verifies %+v", i.Peer, answered)
			}
			if i.Hybrid != tt.wantMixed || r.Hybrid != tt.wantMixed {
				t.Errorf("hybrid %v and %v, want %v", i.Hybrid, r.Hybrid, tt.wantMixed)
			}
		})
	}
}

func TestRekeysOfControlAndData(t *testing.T) {
	a, b := newParty(t, "ra"), newParty(t, "rb")
	for _, kind := range []handshake.Kind{handshake.DataRekey, handshake.ControlRekey} {
		ci, cr := callConfigs(a, b, true)
		ci.Kind, cr.Kind, ci.Generation, cr.Generation, ci.Certificate = kind, kind, 7, 7, nil
		ci.ResponderSession = 22
		if kind == handshake.ControlRekey {
			ci.Static, ci.PeerStatic, cr.Static = a.control, b.control.Public, b.control
		}
		want := ci.Static.Public
		cr.Verify = func(p handshake.Peer) error { // the owner knows the key from the set-up
			if p.Static != want {
				return errForged
			}
			return nil
		}
		if err := newCall(t, ci, cr).run(nil); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

func TestResponderAnswersWithWhatItRead(t *testing.T) {
	ci, cr := callConfigs(newParty(t, "alice"), newParty(t, "rb"), false)
	d := newCall(t, ci, cr)
	r := d.r.(*handshake.Call)
	if err := r.SetExtra(nil); !errors.Is(err, handshake.ErrState) {
		t.Errorf("SetExtra before Read: %v", err)
	}
	msg, err := d.i.Write()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Read(msg); err != nil {
		t.Fatal(err)
	}
	if err := r.SetExtra(make([]byte, handshake.MaxExtra+1)); !errors.Is(err, handshake.ErrConfig) {
		t.Errorf("SetExtra of too much: %v", err)
	}
	if err := r.SetExtra([]byte("10.9.0.1")); err != nil {
		t.Fatal(err)
	}
	if msg, err = r.Write(); err != nil {
		t.Fatal(err)
	}
	if err := d.i.Read(msg); err != nil {
		t.Fatal(err)
	}
	if res, _ := d.i.(*handshake.Call).Result(); string(res.Peer.Extra) != "10.9.0.1" {
		t.Errorf("extra %q", res.Peer.Extra)
	}
}

func TestEachCallHasItsOwnKeys(t *testing.T) {
	a, b := newParty(t, "alice"), newParty(t, "rb")
	seen := map[string]bool{}
	for range 8 {
		ci, cr := callConfigs(a, b, false)
		d := newCall(t, ci, cr)
		if err := d.run(nil); err != nil {
			t.Fatal(err)
		}
		r, _ := d.i.(*handshake.Call).Result()
		for _, k := range [][]byte{r.In.Bytes(), r.Out.Bytes()} {
			if seen[string(k)] {
				t.Fatal("a key came twice")
			}
			seen[string(k)] = true
		}
	}
}

// Whoever holds both control keys, and everything that went over the wire, opens no call:
// message 1 of a call needs the responder's data key.
func TestLeakedControlKeyReadsNoCall(t *testing.T) {
	a, b := newParty(t, "alice"), newParty(t, "rb")
	ci, cr := callConfigs(a, b, false)
	d := newCall(t, ci, cr)
	var recorded [][]byte
	if err := d.run(func(_ int, m []byte) []byte { recorded = append(recorded, bytes.Clone(m)); return m }); err != nil {
		t.Fatal(err)
	}
	for name, leaked := range map[string]handshake.KeyPair{"terminator's": b.control, "user's": a.control, "user's data": a.data} {
		thief := cr
		thief.Static, thief.Verify = leaked, func(handshake.Peer) error { return nil }
		k, err := handshake.AnswerCall(thief)
		if err != nil {
			t.Fatal(err)
		}
		if err := k.Read(recorded[0]); !errors.Is(err, handshake.ErrStray) {
			t.Errorf("with the %s key message 1 opens: %v", name, err)
		}
	}
	// The responder's own data key opens message 1, which is not forward secret, but the
	// keys of the call stay closed: they need an ephemeral key of either end.
	later := cr
	k, err := handshake.AnswerCall(later)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Read(recorded[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Write(); err != nil {
		t.Fatal(err)
	}
	real, _ := d.r.(*handshake.Call).Result()
	guess, _ := k.Result()
	if guess.In.Equal(real.In) || guess.Out.Equal(real.Out) {
		t.Error("the static data key alone yields a past call's keys")
	}
}

func TestSignatureBindsRouterToHandshake(t *testing.T) {
	a, b, mallory := newParty(t, "ra"), newParty(t, "rb"), newParty(t, "mallory")
	for name, change := range map[string]func(*handshake.TunnelConfig){
		"signed by another key": func(c *handshake.TunnelConfig) {
			c.Sign = func(d []byte) ([]byte, error) { return ecdsa.SignASN1(rand.Reader, mallory.sign, d) }
		},
		"signature over something else": func(c *handshake.TunnelConfig) {
			c.Sign = func([]byte) ([]byte, error) { return ecdsa.SignASN1(rand.Reader, a.sign, make([]byte, 32)) }
		},
		"another's twin certificate": func(c *handshake.TunnelConfig) { c.Certificate = mallory.cert },
	} {
		ci := tunnelConfig(a, 0x1001, false)
		change(&ci)
		if err := newTunnel(t, ci, tunnelConfig(b, 0x2002, false)).run(nil); !errors.Is(err, handshake.ErrVerify) || !errors.Is(err, errForged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestConfigIsRefused(t *testing.T) {
	a := newParty(t, "ra")
	for name, change := range map[string]func(*handshake.TunnelConfig){
		"no verifier":         func(c *handshake.TunnelConfig) { c.Verify = nil },
		"no certificate":      func(c *handshake.TunnelConfig) { c.Certificate = nil },
		"certificate too big": func(c *handshake.TunnelConfig) { c.Certificate = make([]byte, handshake.MaxCertificate+1) },
		"router too big":      func(c *handshake.TunnelConfig) { c.Router = make([]byte, handshake.MaxRouter+1) },
		"no signer":           func(c *handshake.TunnelConfig) { c.Sign = nil },
		"no suite":            func(c *handshake.TunnelConfig) { c.Suites = nil },
		"suite twice":         func(c *handshake.TunnelConfig) { c.Suites = []esp.Suite{esp.AES256GCM, esp.AES256GCM} },
		"unknown suite":       func(c *handshake.TunnelConfig) { c.Suites = []esp.Suite{99} },
		"reserved SPI":        func(c *handshake.TunnelConfig) { c.SPI = 255 },
		"no random source":    func(c *handshake.TunnelConfig) { c.Rand = nil },
		"no static key":       func(c *handshake.TunnelConfig) { c.Static = handshake.KeyPair{} },
		"public key of another": func(c *handshake.TunnelConfig) {
			c.Static = handshake.KeyPair{Private: c.Static.Private, Public: [32]byte{9}}
		},
	} {
		c := tunnelConfig(a, 0x1001, false)
		change(&c)
		if _, err := handshake.DialTunnel(c); !errors.Is(err, handshake.ErrConfig) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ci, cr := callConfigs(a, a, false)
	ci.Certificate, cr.Verify = nil, nil
	if _, err := handshake.DialCall(ci); !errors.Is(err, handshake.ErrConfig) {
		t.Errorf("call without certificate: %v", err)
	}
	if _, err := handshake.AnswerCall(cr); !errors.Is(err, handshake.ErrConfig) {
		t.Errorf("answer without verifier: %v", err)
	}
	ci, _ = callConfigs(a, a, false)
	ci.Kind = 9
	if _, err := handshake.DialCall(ci); !errors.Is(err, handshake.ErrConfig) {
		t.Errorf("unknown kind: %v", err)
	}
}

// A key pair without NewKeyPair is as good, if its halves belong together.
func TestKeyPairLiteral(t *testing.T) {
	a, b := newParty(t, "ra"), newParty(t, "rb")
	ci := tunnelConfig(a, 0x1001, false)
	ci.Static = handshake.KeyPair{Private: a.control.Private, Public: a.control.Public}
	if err := newTunnel(t, ci, tunnelConfig(b, 0x2002, false)).run(nil); err != nil {
		t.Fatal(err)
	}
}

func TestTurns(t *testing.T) {
	for name, fresh := range patterns(t) {
		t.Run(name, func(t *testing.T) {
			d := fresh()
			for turn := 1; turn <= d.turns; turn++ {
				from, to := d.sides(turn)
				if err := from.Read([]byte{1}); !errors.Is(err, handshake.ErrState) {
					t.Errorf("turn %d: read by the writer: %v", turn, err)
				}
				if _, err := to.Write(); !errors.Is(err, handshake.ErrState) {
					t.Errorf("turn %d: write by the reader: %v", turn, err)
				}
				if finished(from) || finished(to) {
					t.Errorf("turn %d: a result too early", turn)
				}
				msg, err := from.Write()
				if err != nil {
					t.Fatal(err)
				}
				if err := to.Read(msg); err != nil {
					t.Fatal(err)
				}
			}
			for _, m := range []machine{d.i, d.r} {
				if _, err := m.Write(); !errors.Is(err, handshake.ErrState) {
					t.Errorf("write after the end: %v", err)
				}
				if err := m.Read([]byte{1}); !errors.Is(err, handshake.ErrState) {
					t.Errorf("read after the end: %v", err)
				}
			}
		})
	}
}

func TestFailureWipesAndStays(t *testing.T) {
	a, b := newParty(t, "ra"), newParty(t, "rb")
	cr := tunnelConfig(b, 0x2002, false)
	refusal := errors.New("revoked")
	cr.Verify = func(handshake.Peer) error { return refusal }
	d := newTunnel(t, tunnelConfig(a, 0x1001, false), cr)
	if err := d.run(nil); !errors.Is(err, handshake.ErrVerify) || !errors.Is(err, refusal) {
		t.Fatalf("err = %v", err)
	}
	if finished(d.r) {
		t.Error("a refused handshake has a result")
	}
	if err := d.r.Read([]byte{1}); !errors.Is(err, handshake.ErrDead) || !errors.Is(err, refusal) {
		t.Errorf("after death: %v", err)
	}
	res, ok := d.i.(*handshake.Tunnel).Result()
	if !ok {
		t.Fatal("the initiator cannot know of the refusal")
	}
	d.i.Wipe()
	if !bytes.Equal(res.Out.Bytes(), make([]byte, res.Out.Len())) || !bytes.Equal(res.In.Bytes(), make([]byte, res.In.Len())) {
		t.Error("Wipe left keys")
	}
	if finished(d.i) {
		t.Error("a wiped machine has a result")
	}
	if _, err := d.i.Write(); !errors.Is(err, handshake.ErrEnded) {
		t.Errorf("after Wipe: %v", err)
	}
}

func TestRandomSourceFails(t *testing.T) {
	a, b := newParty(t, "ra"), newParty(t, "rb")
	for n := range int64(96) {
		ci := tunnelConfig(a, 0x1001, true)
		ci.Rand = io.LimitReader(rand.Reader, n)
		if err := newTunnel(t, ci, tunnelConfig(b, 0x2002, true)).run(nil); err == nil {
			t.Fatalf("%d random bytes suffice", n)
		}
	}
}

func TestSuiteIsTheRespondersFirstCommonOne(t *testing.T) {
	a, b := newParty(t, "ra"), newParty(t, "rb")
	for _, tt := range []struct {
		name            string
		offers, accepts []esp.Suite
		want            esp.Suite
		err             error
	}{
		{"responder's order", []esp.Suite{esp.AES256GCM, esp.AES128GCM}, []esp.Suite{esp.AES128GCM, esp.AES256GCM}, esp.AES128GCM, nil},
		{"only one in common", []esp.Suite{esp.AES256GCM, esp.AES256CBCSHA256}, []esp.Suite{esp.AES128GCM, esp.AES256CBCSHA256}, esp.AES256CBCSHA256, nil},
		{"nothing in common", []esp.Suite{esp.NullSHA256}, []esp.Suite{esp.AES256GCM}, 0, handshake.ErrSuite},
	} {
		ci, cr := tunnelConfig(a, 0x1001, false), tunnelConfig(b, 0x2002, false)
		ci.Suites, cr.Suites = tt.offers, tt.accepts
		d := newTunnel(t, ci, cr)
		if err := d.run(nil); !errors.Is(err, tt.err) {
			t.Errorf("%s: %v", tt.name, err)
		}
		if res, ok := d.i.(*handshake.Tunnel).Result(); ok != (tt.err == nil) || res.Suite != tt.want {
			t.Errorf("%s: %s", tt.name, res.Suite)
		}
	}
}
