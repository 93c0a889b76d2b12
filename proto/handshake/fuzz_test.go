package handshake_test

import (
	"crypto/rand"
	"testing"

	"twinkey/proto/esp"
	"twinkey/proto/handshake"
)

// Arbitrary bytes as any message of any machine: never a panic, never a result, and a
// machine that was waiting for an answer still takes the right one.
func FuzzRead(f *testing.F) {
	a, b := newParty(f, "ra"), newParty(f, "rb")
	for n, hybrid := range []bool{false, true} {
		d := newTunnel(f, tunnelConfig(a, 0x1001, hybrid), tunnelConfig(b, 0x2002, hybrid))
		if err := d.run(func(turn int, m []byte) []byte { f.Add(byte(n), byte(turn), m); return m }); err != nil {
			f.Fatal(err)
		}
		ci, cr := callConfigs(a, b, hybrid)
		d = newCall(f, ci, cr)
		if err := d.run(func(turn int, m []byte) []byte { f.Add(byte(2+n), byte(turn), m); return m }); err != nil {
			f.Fatal(err)
		}
	}
	f.Fuzz(func(t *testing.T, which, turn byte, msg []byte) {
		hybrid := which%2 == 1
		d := newTunnel(t, tunnelConfig(a, 0x1001, hybrid), tunnelConfig(b, 0x2002, hybrid))
		if which%4 >= 2 {
			ci, cr := callConfigs(a, b, hybrid)
			d = newCall(t, ci, cr)
		}
		at := 1 + int(turn)%d.turns
		var right []byte
		err := d.run(func(n int, m []byte) []byte {
			if n != at {
				return m
			}
			right = m
			return msg
		})
		if err == nil || d.through() {
			t.Fatal("a stranger's message completed a handshake")
		}
		if at == 1 {
			return
		}
		if err := d.resume(at, right); err != nil {
			t.Fatalf("the right message after a strange one: %v", err)
		}
	})
}

// Both sides on one core, without checking certificates and signatures, which is the owner's.
func benchmark(b *testing.B, fresh func() dialogue) {
	b.Helper()
	b.ReportAllocs()
	for b.Loop() {
		d := fresh()
		if err := d.run(nil); err != nil {
			b.Fatal(err)
		}
		d.i.Wipe()
		d.r.Wipe()
	}
}

func benchmarkTunnel(b *testing.B, hybrid bool) {
	b.Helper()
	i, r := newParty(b, "ra"), newParty(b, "rb")
	ci, cr := tunnelConfig(i, 0x1001, hybrid), tunnelConfig(r, 0x2002, hybrid)
	ci.Sign = func([]byte) ([]byte, error) { return make([]byte, 72), nil }
	ci.Verify = func(handshake.Peer) error { return nil }
	cr.Verify = ci.Verify
	benchmark(b, func() dialogue { return newTunnel(b, ci, cr) })
}

func benchmarkCall(b *testing.B, hybrid bool) {
	b.Helper()
	ci, cr := callConfigs(newParty(b, "alice"), newParty(b, "rb"), hybrid)
	benchmark(b, func() dialogue { return newCall(b, ci, cr) })
}

func BenchmarkXX(b *testing.B)     { benchmarkTunnel(b, false) }
func BenchmarkXXpsk3(b *testing.B) { benchmarkTunnel(b, true) }
func BenchmarkIK(b *testing.B)     { benchmarkCall(b, false) }
func BenchmarkIKpsk2(b *testing.B) { benchmarkCall(b, true) }

// One end alone: what a router pays for a call that is placed to it.
func BenchmarkIKResponder(b *testing.B) {
	ci, cr := callConfigs(newParty(b, "alice"), newParty(b, "rb"), false)
	i, err := handshake.DialCall(ci)
	if err != nil {
		b.Fatal(err)
	}
	msg, err := i.Write()
	if err != nil {
		b.Fatal(err)
	}
	cr.Rand, cr.Suites = rand.Reader, esp.Suites()[:1]
	b.ReportAllocs()
	for b.Loop() {
		r, err := handshake.AnswerCall(cr)
		if err != nil {
			b.Fatal(err)
		}
		if err := r.Read(msg); err != nil {
			b.Fatal(err)
		}
		if _, err := r.Write(); err != nil {
			b.Fatal(err)
		}
	}
}
