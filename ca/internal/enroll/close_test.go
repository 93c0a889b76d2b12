package enroll

import (
	"bytes"
	"crypto/ecdh"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"twinkey/ca/client"
	"twinkey/proto/secret"
)

func closeKey(tb testing.TB, group string) *ecdh.PrivateKey {
	tb.Helper()
	k, err := CloseKey(secret.New([]byte(group)))
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

const groupKey = "0123456789abcdef0123456789abcdef"

func TestCloseProof(t *testing.T) {
	own, b := closeKey(t, groupKey), newBox(t)
	if !closeKey(t, groupKey).Equal(own) {
		t.Fatal("the key changes from one start to the next")
	}
	certificate := []byte("certificate of alice")
	proof := func(private *ecdh.PrivateKey, ca *ecdh.PrivateKey, router string, certificate []byte) []byte {
		p, err := client.CloseProof(private, ca.PublicKey(), router, certificate)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	good := proof(b.data, own, "berlin", certificate)
	flipped := bytes.Clone(good)
	flipped[31] ^= 1
	for name, tt := range map[string]struct {
		proof []byte
		ok    bool
	}{
		"right": {good, true}, "one bit": {flipped, false}, "none": {nil, false}, "cut": {good[:31], false},
		"by the control key":      {proof(b.control, own, "berlin", certificate), false},
		"by another's data key":   {proof(newBox(t).data, own, "berlin", certificate), false},
		"of another router":       {proof(b.data, own, "paris", certificate), false},
		"for another certificate": {proof(b.data, own, "berlin", []byte("certificate of bob")), false},
		"for another CA":          {proof(b.data, closeKey(t, strings.Repeat("x", 32)), "berlin", certificate), false},
	} {
		err := CheckClose(own, "berlin", certificate, [32]byte(b.data.PublicKey().Bytes()), tt.proof)
		if (err == nil) != tt.ok || err != nil && !errors.Is(err, ErrPossession) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := CheckClose(own, "berlin", certificate, [32]byte{}, good); !errors.Is(err, ErrPossession) {
		t.Errorf("a point of low order: %v", err)
	}
}

func closing(n int) []byte {
	var r client.CloseRequest
	for i := range n {
		r.Closed = append(r.Closed, client.Closed{Serial: fmt.Sprint("1461501637330902918203684832716283019655932", i), Proof: bytes.Repeat([]byte{0xff}, proofLen)})
	}
	b, err := json.Marshal(r)
	if err != nil {
		panic(err)
	}
	return b
}

func TestParseClose(t *testing.T) {
	if got, err := ParseClose(closing(client.MaxClosed)); err != nil || len(got) != client.MaxClosed {
		t.Errorf("as many as there may be: %v", err)
	}
	one := func(serial string, proof int) string {
		b, err := json.Marshal(client.CloseRequest{Closed: []client.Closed{{Serial: serial, Proof: make([]byte, proof)}}})
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if _, err := ParseClose([]byte(one("12", proofLen))); err != nil {
		t.Error(err)
	}
	for name, in := range map[string]string{
		"empty": "", "nobody": "{}", "null": "null", "two": one("12", proofLen) + "{}", "unknown": `{"closed":[],"all":true}`,
		"one too many": string(closing(client.MaxClosed + 1)), "no number": one("", proofLen), "hexadecimal": one("0x12", proofLen), "negative": one("-1", proofLen),
		"with a zero before it": one("012", proofLen), "endless": one(strings.Repeat("1", maxSerial+1), proofLen),
		"no proof": one("12", 0), "short proof": one("12", proofLen-1), "long proof": one("12", proofLen+1),
		"twice":    strings.Replace(one("12", proofLen), "[", "["+one("12", proofLen)[11:len(one("12", proofLen))-2]+",", 1),
		"too long": one("12", proofLen) + strings.Repeat(" ", client.MaxRequest),
	} {
		if _, err := ParseClose([]byte(in)); !errors.Is(err, ErrRequest) {
			t.Errorf("%s: %v (%s)", name, err, in)
		}
	}
}

// What parses encodes back and parses the same.
func FuzzParseClose(f *testing.F) {
	f.Add(closing(1))
	f.Add(closing(2))
	f.Add([]byte(`{"closed":[{"serial":"1","proof":"AAAA"}]}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		c, err := ParseClose(in)
		if err != nil {
			if !errors.Is(err, ErrRequest) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		out, err := json.Marshal(client.CloseRequest{Closed: c})
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseClose(out)
		if err != nil || len(again) != len(c) {
			t.Fatalf("%v: %s", err, out)
		}
		for i := range c {
			if again[i].Serial != c[i].Serial || !bytes.Equal(again[i].Proof, c[i].Proof) {
				t.Fatalf("entry %d differs", i)
			}
		}
	})
}
