package handshake

import (
	"bufio"
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/hex"
	"os"
	"strings"
	"testing"

	"twinkey/proto/secret"
)

// The published vectors of our four protocols, through our own DH function.
func TestNoiseVectors(t *testing.T) {
	names := map[string]pattern{"XX": patternXX, "XXpsk3": patternXXpsk3, "IK": patternIK, "IKpsk2": patternIKpsk2}
	for i, v := range readVectors(t) {
		name := strings.Split(v["handshake"], "_")[1]
		t.Run(name, func(t *testing.T) { checkVector(t, names[name], v) })
		if i == 0 && name == "" {
			t.Fatal("no vectors")
		}
	}
}

type vector map[string]string

func (v vector) bytes(t *testing.T, key string) []byte {
	t.Helper()
	b, err := hex.DecodeString(v[key])
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func readVectors(t *testing.T) []vector {
	t.Helper()
	f, err := os.Open("testdata/noise_vectors.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []vector
	for s := bufio.NewScanner(f); s.Scan(); {
		key, value, ok := strings.Cut(s.Text(), "=")
		if !ok {
			continue
		}
		if key == "handshake" {
			all = append(all, vector{})
		}
		all[len(all)-1][key] = value
	}
	if len(all) != 16 {
		t.Fatalf("%d vectors, want 16", len(all))
	}
	return all
}

func checkVector(t *testing.T, p pattern, v vector) {
	t.Helper()
	pair := func(key string) KeyPair {
		k, err := NewKeyPair(secret.New(v.bytes(t, key)))
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	is, rs := pair("init_static"), pair("resp_static")
	var peer []byte
	turns := 3
	if p == patternIK || p == patternIKpsk2 {
		peer, turns = rs.Public[:], 2
	}
	prologue := v.bytes(t, "prologue")
	i, err := newExchange(p, is, true, bytes.NewReader(v.bytes(t, "gen_init_ephemeral")), prologue, peer)
	if err != nil {
		t.Fatal(err)
	}
	r, err := newExchange(p, rs, false, bytes.NewReader(v.bytes(t, "gen_resp_ephemeral")), prologue, nil)
	if err != nil {
		t.Fatal(err)
	}
	if p.hybrid() {
		for _, x := range []*exchange{i, r} {
			if err := x.setPSK(v.bytes(t, "preshared_key")); err != nil {
				t.Fatal(err)
			}
		}
	}
	number := func(n int) string { return "msg_" + string(rune('0'+n)) }
	for n := range turns {
		from, to := i, r
		if n%2 == 1 {
			from, to = r, i
		}
		payload := v.bytes(t, number(n)+"_payload")
		msg, err := from.write(nil, payload)
		if err != nil {
			t.Fatal(err)
		}
		if want := v.bytes(t, number(n)+"_ciphertext"); !bytes.Equal(msg, want) {
			t.Fatalf("message %d\n got %x\nwant %x", n, msg, want)
		}
		// Something false first: the exchange must come back from it.
		if _, err := to.read(append(bytes.Clone(msg[:len(msg)-1]), msg[len(msg)-1]^1)); n > 0 && err == nil {
			t.Fatalf("message %d with a false last byte passes", n)
		} else if err == nil {
			to.past = to.past[:0] // message 1 of XX is in the clear
			if err := to.restart(); err != nil {
				t.Fatal(err)
			}
		}
		got, err := to.read(msg)
		if err != nil || !bytes.Equal(got, payload) {
			t.Fatalf("message %d reads as %x, %v", n, got, err)
		}
	}
	for n, key := range [][32]byte{i.initiatorKey, r.responderKey} {
		block, err := aes.NewCipher(key[:])
		if err != nil {
			t.Fatal(err)
		}
		gcm, err := cipher.NewGCM(block)
		if err != nil {
			t.Fatal(err)
		}
		got := gcm.Seal(nil, make([]byte, 12), v.bytes(t, number(turns+n)+"_payload"), nil)
		if want := v.bytes(t, number(turns+n)+"_ciphertext"); !bytes.Equal(got, want) {
			t.Errorf("transport message %d\n got %x\nwant %x", n, got, want)
		}
	}
	if i.hash() != r.hash() {
		t.Error("hashes differ")
	}
}
