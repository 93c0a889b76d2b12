package handshake_test

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/cryptotest"

	"twinkey/proto/handshake"
	"twinkey/proto/secret"
)

var update = flag.Bool("update", false, "write testdata/*.hex anew")

// counter is a random source that counts.
type counter byte

func (c *counter) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(*c)
		*c++
	}
	return len(b), nil
}

func fixedKey(t *testing.T, fill byte) handshake.KeyPair {
	t.Helper()
	k, err := handshake.NewKeyPair(secret.New(bytes.Repeat([]byte{fill}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// Whole handshakes, byte for byte: what is on the wire and which keys come out of it must
// not change without anybody noticing.
func TestGolden(t *testing.T) {
	for _, hybrid := range []bool{false, true} {
		for _, kind := range []string{"tunnel", "call"} {
			name := fmt.Sprintf("%s_hybrid_%v", kind, hybrid)
			t.Run(name, func(t *testing.T) {
				cryptotest.SetGlobalRandom(t, 1) // ML-KEM encapsulation draws its own
				i := party{control: fixedKey(t, 1), data: fixedKey(t, 2), router: []byte("router certificate")}
				r := party{control: fixedKey(t, 3), data: fixedKey(t, 4)}
				i.cert = append(append(i.control.Public[:], i.data.Public[:]...), "initiator"...)
				r.cert = append(append(r.control.Public[:], r.data.Public[:]...), "responder"...)
				golden(t, name, goldenDialogue(t, kind, i, r, hybrid))
			})
		}
	}
}

func goldenDialogue(t *testing.T, kind string, i, r party, hybrid bool) dialogue {
	t.Helper()
	ri, rr := counter(0x20), counter(0x41)
	if kind == "call" {
		ci, cr := callConfigs(i, r, hybrid)
		ci.Rand, cr.Rand = &ri, &rr
		return newCall(t, ci, cr)
	}
	ci, cr := tunnelConfig(i, 0x1001, hybrid), tunnelConfig(r, 0x2002, hybrid)
	ci.Rand, cr.Rand = &ri, &rr
	ci.Sign = func(d []byte) ([]byte, error) { return d, nil }
	cr.Verify = func(handshake.Peer) error { return nil }
	return newTunnel(t, ci, cr)
}

func golden(t *testing.T, name string, d dialogue) {
	t.Helper()
	var b bytes.Buffer
	err := d.run(func(turn int, m []byte) []byte {
		fmt.Fprintf(&b, "# message %d, %d bytes\n%s\n", turn, len(m), hex.EncodeToString(m))
		return m
	})
	if err != nil {
		t.Fatal(err)
	}
	var hash [32]byte
	var out, in secret.Key
	switch m := d.i.(type) {
	case *handshake.Tunnel:
		res, _ := m.Result()
		hash, out, in = res.Hash, res.Out, res.In
	case *handshake.Call:
		res, _ := m.Result()
		hash, out, in = res.Hash, res.Out, res.In
	}
	fmt.Fprintf(&b, "# handshake hash\n%x\n# key material, initiator to responder\n%x\n# key material, responder to initiator\n%x\n", hash, out.Bytes(), in.Bytes())
	file := filepath.Join("testdata", name+".hex")
	if *update {
		if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Bytes(), want) {
		t.Errorf("handshake differs from %s; got\n%s", file, b.Bytes())
	}
}
