package handshake_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"github.com/flynn/noise"

	"twinkey/proto/handshake"
)

// Whatever single byte of whatever message is changed, the two ends never both finish;
// and where the answer was changed, the right one still completes the handshake.
func TestEveryByteCounts(t *testing.T) {
	for name, fresh := range patterns(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			turns := fresh().turns
			for turn := 1; turn <= turns; turn++ {
				for at, length := 0, 1; at < length; at++ {
					d := fresh()
					var right []byte
					err := d.run(func(n int, msg []byte) []byte {
						if n != turn {
							return msg
						}
						right, length = msg, len(msg)
						wrong := bytes.Clone(msg)
						wrong[min(at, len(wrong)-1)] ^= 1 << (at % 8) // an ECDSA signature may be a byte shorter the next time
						return wrong
					})
					if err == nil || d.through() {
						t.Fatalf("message %d, byte %d of %d: nobody noticed", turn, at, length)
					}
					if turn == 1 {
						continue // machines that met a false beginning do not come back
					}
					if !errors.Is(err, handshake.ErrStray) {
						t.Fatalf("message %d, byte %d: %v, want a stray", turn, at, err)
					}
					if err := d.resume(turn, right); err != nil || !d.through() {
						t.Fatalf("message %d, byte %d: the right message after it: %v", turn, at, err)
					}
				}
			}
		})
	}
}

// resume delivers the right message of turn and runs the rest.
func (d dialogue) resume(turn int, right []byte) error {
	_, to := d.sides(turn)
	if err := to.Read(right); err != nil {
		return err
	}
	for turn++; turn <= d.turns; turn++ {
		from, to := d.sides(turn)
		msg, err := from.Write()
		if err != nil {
			return err
		}
		if err := to.Read(msg); err != nil {
			return err
		}
	}
	return nil
}

func TestTruncatedAndExtended(t *testing.T) {
	for name, fresh := range patterns(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for turn := 1; turn <= fresh().turns; turn++ {
				for _, cut := range []int{-8300, -1, 1, 2, 3, 15, 16, 17, 31, 32, 33, 64, 96, 500, 1 << 20} {
					d := fresh()
					err := d.run(func(n int, msg []byte) []byte {
						if n != turn {
							return msg
						}
						if cut < 0 {
							return append(bytes.Clone(msg), make([]byte, -cut)...)
						}
						return msg[:max(0, len(msg)-cut)]
					})
					if err == nil || d.through() {
						t.Errorf("message %d less %d bytes: nobody noticed", turn, cut)
					}
				}
			}
		})
	}
}

func TestStraysAreBounded(t *testing.T) {
	i, r := newParty(t, "ra"), newParty(t, "rb")
	d := newTunnel(t, tunnelConfig(i, 0x1001, false), tunnelConfig(r, 0x2002, false))
	if _, err := d.i.Write(); err != nil {
		t.Fatal(err)
	}
	n := 0
	for ; n < 1000; n++ {
		if err := d.i.Read([]byte{0x12, 1, 2, 3}); errors.Is(err, handshake.ErrDead) {
			break
		}
	}
	if n > 64 {
		t.Errorf("%d strays were tried", n)
	}
}

// Message 1 of a tunnel is protected against nobody: an attacker on the path can open it
// and write another with the same ephemeral key. The responder must fall for that, else
// the test proves nothing, and the initiator must notice.
func TestNothingCanBeStrippedFromMessage1(t *testing.T) {
	dropSuite := func(p []byte) []byte {
		n := binary.BigEndian.Uint16(p[2:])
		return append([]byte{p[0], p[1], 0, byte(n - 1)}, p[5:]...)
	}
	dropKEM := func(p []byte) []byte { return p[:len(p)-4-1184] }
	same := func(p []byte) []byte { return p }
	for _, tt := range []struct {
		name     string
		from, to string // pattern as it was sent, as it arrives
		change   func(payload []byte) []byte
	}{
		{"strongest suite gone", "XX", "XX", dropSuite},
		{"strongest suite gone", "XXpsk3", "XXpsk3", dropSuite},
		{"KEM key and pattern gone", "XXpsk3", "XX", dropKEM},
		{"KEM key of the attacker", "XXpsk3", "XXpsk3", func(p []byte) []byte {
			m, err := patterns(t)["XXpsk3"]().i.Write()
			if err != nil {
				t.Fatal(err)
			}
			return openFirst(t, m)
		}},
		{"unknown field added", "XX", "XX", func(p []byte) []byte { return append(p, 0x70, 0, 0, 0) }},
	} {
		t.Run(tt.from+"/"+tt.name, func(t *testing.T) {
			d := patterns(t)[tt.from]()
			msg, err := d.i.Write()
			if err != nil {
				t.Fatal(err)
			}
			if got := sealFirst(t, tt.from, msg, same); !bytes.Equal(got, msg) {
				t.Fatalf("the attacker's tool is broken: %x is not %x", got, msg)
			}
			if err := d.r.Read(sealFirst(t, tt.to, msg, tt.change)); err != nil {
				t.Fatalf("the responder did not fall for it: %v", err)
			}
			answer, err := d.r.Write()
			if err != nil {
				t.Fatal(err)
			}
			answer[0] = msg[0]&0xF0 | 2 // the attacker hides the change of pattern here too
			if err := d.i.Read(answer); !errors.Is(err, handshake.ErrStray) {
				t.Errorf("the initiator did not notice: %v", err)
			}
		})
	}
}

// attacker is Noise as somebody runs it who knows only what is public.
func attacker(t *testing.T, pattern string, initiator bool, ephemeral []byte) *noise.HandshakeState {
	t.Helper()
	c := noise.Config{Pattern: noise.HandshakeXX, Initiator: initiator,
		CipherSuite: noise.NewCipherSuite(publicOnly{noise.DH25519, ephemeral}, noise.CipherAESGCM, noise.HashSHA256),
		Prologue:    []byte("twinkey tunnel v1\x00\x00\x00\x0ftunnels 7 and 9")}
	if pattern == "XXpsk3" {
		c.PresharedKeyPlacement = 3
	}
	hs, err := noise.NewHandshakeState(c)
	if err != nil {
		t.Fatal(err)
	}
	return hs
}

// publicOnly claims an ephemeral key of which it has the public half.
type publicOnly struct {
	noise.DHFunc
	ephemeral []byte
}

func (p publicOnly) GenerateKeypair(io.Reader) (noise.DHKey, error) {
	return noise.DHKey{Public: p.ephemeral}, nil
}

// openFirst returns the payload of a tunnel's message 1.
func openFirst(t *testing.T, msg []byte) []byte {
	t.Helper()
	pattern := map[byte]string{0x11: "XX", 0x21: "XXpsk3"}[msg[0]]
	p, _, _, err := attacker(t, pattern, false, nil).ReadMessage(nil, msg[1:])
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// sealFirst writes msg, a tunnel's message 1, anew with a changed payload.
func sealFirst(t *testing.T, pattern string, msg []byte, change func([]byte) []byte) []byte {
	t.Helper()
	first := map[string]byte{"XX": 0x11, "XXpsk3": 0x21}[pattern]
	out, _, _, err := attacker(t, pattern, true, msg[1:33]).WriteMessage([]byte{first}, change(openFirst(t, msg)))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// In the answer to a call the ciphertext and the pattern stand outside.
func TestNothingCanBeStrippedFromACall(t *testing.T) {
	other := func(t *testing.T) []byte {
		t.Helper()
		var second []byte
		if err := patterns(t)["IKpsk2"]().run(func(_ int, m []byte) []byte { second = m; return m }); err != nil {
			t.Fatal(err)
		}
		return second[3 : 3+1088]
	}
	for _, tt := range []struct {
		name, pattern string
		turn          int
		change        func([]byte) []byte
	}{
		{"psk pattern called plain", "IKpsk2", 1, func(m []byte) []byte { m[0] = 0x31; return m }},
		{"plain pattern called psk", "IK", 1, func(m []byte) []byte { m[0] = 0x41; return m }},
		{"psk pattern called plain", "IKpsk2", 2, func(m []byte) []byte { m[0] = 0x32; return m }},
		{"ciphertext gone", "IKpsk2", 2, func(m []byte) []byte { return append([]byte{m[0], 0, 0}, m[3+1088:]...) }},
		{"ciphertext gone, pattern plain", "IKpsk2", 2, func(m []byte) []byte { return append([]byte{0x32}, m[3+1088:]...) }},
		{"ciphertext of another", "IKpsk2", 2, func(m []byte) []byte { copy(m[3:], other(t)); return m }},
		{"ciphertext of zeros", "IKpsk2", 2, func(m []byte) []byte { copy(m[3:], make([]byte, 1088)); return m }},
		{"ciphertext too short", "IKpsk2", 2, func(m []byte) []byte { m[2]--; return append(m[:3], m[4:]...) }},
	} {
		t.Run(tt.pattern+"/"+tt.name, func(t *testing.T) {
			d := patterns(t)[tt.pattern]()
			var right []byte
			err := d.run(func(n int, msg []byte) []byte {
				if n != tt.turn {
					return msg
				}
				right = msg
				return tt.change(bytes.Clone(msg))
			})
			if !errors.Is(err, handshake.ErrStray) || finished(d.i) {
				t.Fatalf("nobody noticed: %v", err)
			}
			if tt.turn == 2 {
				if err := d.resume(2, right); err != nil || !d.through() {
					t.Errorf("the right answer after it: %v", err)
				}
			}
		})
	}
}

func TestReflection(t *testing.T) {
	for name, fresh := range patterns(t) {
		d := fresh()
		first, err := d.i.Write()
		if err != nil {
			t.Fatal(err)
		}
		if err := d.i.Read(first); !errors.Is(err, handshake.ErrStray) {
			t.Errorf("%s: own message 1 as message 2: %v", name, err)
		}
		if err := d.r.Read(first); err != nil {
			t.Fatal(err)
		}
		second, err := d.r.Write()
		if err != nil {
			t.Fatal(err)
		}
		if d.turns == 3 {
			if err := d.r.Read(second); !errors.Is(err, handshake.ErrStray) {
				t.Errorf("%s: own message 2 as message 3: %v", name, err)
			}
		}
		if err := d.resume(2, second); err != nil {
			t.Errorf("%s: after the reflection: %v", name, err)
		}
	}
	// Both ends are ourselves: an attacker connects our initiator to our responder.
	a := newParty(t, "ra")
	if err := newTunnel(t, tunnelConfig(a, 0x1001, false), tunnelConfig(a, 0x2002, false)).run(nil); !errors.Is(err, handshake.ErrSelf) {
		t.Errorf("tunnel to ourselves: %v", err)
	}
	ci, cr := callConfigs(a, a, false)
	if err := newCall(t, ci, cr).run(nil); !errors.Is(err, handshake.ErrSelf) {
		t.Errorf("call to ourselves: %v", err)
	}
}

func TestReplay(t *testing.T) {
	a, b := newParty(t, "ra"), newParty(t, "rb")
	var recorded [4][]byte
	record := func(n int, m []byte) []byte { recorded[n] = bytes.Clone(m); return m }
	if err := newTunnel(t, tunnelConfig(a, 0x1001, true), tunnelConfig(b, 0x2002, true)).run(record); err != nil {
		t.Fatal(err)
	}
	again := newTunnel(t, tunnelConfig(a, 0x1001, true), tunnelConfig(b, 0x2002, true))
	if err := again.r.Read(recorded[1]); err != nil {
		t.Fatal(err) // anybody may say message 1
	}
	if _, err := again.r.Write(); err != nil {
		t.Fatal(err)
	}
	if err := again.r.Read(recorded[3]); !errors.Is(err, handshake.ErrStray) {
		t.Errorf("message 3 of another handshake: %v", err)
	}
	if _, err := again.i.Write(); err != nil {
		t.Fatal(err)
	}
	if err := again.i.Read(recorded[2]); !errors.Is(err, handshake.ErrStray) {
		t.Errorf("message 2 of another handshake: %v", err)
	}
}

// A call is opened by what both ends agree on and by nothing else.
func TestCallIsBoundToItsPlace(t *testing.T) {
	a, b, c := newParty(t, "alice"), newParty(t, "rb"), newParty(t, "rc")
	for name, change := range map[string]func(ci, cr *handshake.CallConfig){
		"another tunnel":     func(_, cr *handshake.CallConfig) { cr.TunnelHash[0]++ },
		"another kind":       func(_, cr *handshake.CallConfig) { cr.Kind = handshake.DataRekey },
		"another generation": func(_, cr *handshake.CallConfig) { cr.Generation++ },
		"another session":    func(_, cr *handshake.CallConfig) { cr.InitiatorSession++ },
		"another responder":  func(ci, _ *handshake.CallConfig) { ci.PeerStatic = c.data.Public },
		"low-order peer key": func(ci, _ *handshake.CallConfig) { ci.PeerStatic = [32]byte{} },
		"answer for another session": func(ci, _ *handshake.CallConfig) {
			ci.ResponderSession = 23
		},
		"another's certificate": func(ci, _ *handshake.CallConfig) { ci.Certificate = c.cert },
		"refused by initiator": func(ci, _ *handshake.CallConfig) {
			ci.Verify = func(handshake.Peer) error { return errForged }
		},
	} {
		ci, cr := callConfigs(a, b, false)
		change(&ci, &cr)
		d := newCall(t, ci, cr)
		if err := d.run(nil); err == nil || finished(d.i) {
			t.Errorf("%s: nobody noticed", name)
		}
	}
}

func TestTunnelPrologueMustAgree(t *testing.T) {
	a, b := newParty(t, "ra"), newParty(t, "rb")
	cr := tunnelConfig(b, 0x2002, false)
	cr.Prologue = []byte("tunnels 7 and 8")
	if err := newTunnel(t, tunnelConfig(a, 0x1001, false), cr).run(nil); !errors.Is(err, handshake.ErrStray) {
		t.Errorf("err = %v", err)
	}
}

// RFC 7748 section 6.1: a point of low order makes every secret zero.
func TestLowOrderEphemeralIsRefused(t *testing.T) {
	for name, fresh := range patterns(t) {
		for _, point := range [][]byte{make([]byte, 32), append([]byte{1}, make([]byte, 31)...)} {
			d := fresh()
			err := d.run(func(turn int, m []byte) []byte {
				at := 1
				switch {
				case turn == 3:
					return m
				case turn == 2 && name == "IKpsk2":
					at += 2 + 1088
				}
				m = bytes.Clone(m)
				copy(m[at:], point)
				return m
			})
			if err == nil || d.through() {
				t.Errorf("%s: a low-order point passed", name)
			}
		}
	}
}
