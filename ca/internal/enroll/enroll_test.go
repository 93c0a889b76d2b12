package enroll

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"twinkey/ca/client"
	"twinkey/pkg/twincert"
)

type box struct {
	tls           *ecdsa.PrivateKey
	control, data *ecdh.PrivateKey
}

func newBox(tb testing.TB) box {
	tb.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	b := box{tls: k}
	for _, p := range []**ecdh.PrivateKey{&b.control, &b.data} {
		if *p, err = ecdh.X25519().GenerateKey(rand.Reader); err != nil {
			tb.Fatal(err)
		}
	}
	return b
}

// request answers ch; the private keys that prove are those of p.
func (b box) request(tb testing.TB, ch client.Challenge, p box) *client.Request {
	tb.Helper()
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, b.tls)
	if err != nil {
		tb.Fatal(err)
	}
	r := &client.Request{Token: "twinkey-router.a.b", CSR: csr, Control: b.control.PublicKey().Bytes(), Data: b.data.PublicKey().Bytes(), Cookie: ch.Cookie}
	public, err := ecdh.X25519().NewPublicKey(ch.Public)
	if err != nil {
		tb.Fatal(err)
	}
	transcript := r.Transcript(ch.Public)
	if r.ControlProof, err = client.Proof(p.control, public, client.LabelControl, transcript); err != nil {
		tb.Fatal(err)
	}
	if r.DataProof, err = client.Proof(p.data, public, client.LabelData, transcript); err != nil {
		tb.Fatal(err)
	}
	return r
}

func challenger(tb testing.TB) *Challenger {
	tb.Helper()
	c, err := NewChallenger()
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func challenge(tb testing.TB, c *Challenger, now time.Time) client.Challenge {
	tb.Helper()
	ch, err := c.New(now)
	if err != nil {
		tb.Fatal(err)
	}
	return ch
}

func TestProofs(t *testing.T) {
	now := time.Now()
	c, b, thief := challenger(t), newBox(t), newBox(t)
	for _, row := range []struct {
		name   string
		prover box
		change func(*client.Request)
		want   error
	}{
		{"all proved", b, func(*client.Request) {}, nil},
		{"control key is another's", box{b.tls, thief.control, b.data}, func(*client.Request) {}, ErrPossession},
		{"data key is another's", box{b.tls, b.control, thief.data}, func(*client.Request) {}, ErrPossession},
		{"proofs swapped", b, func(r *client.Request) { r.ControlProof, r.DataProof = r.DataProof, r.ControlProof }, ErrPossession},
		{"keys swapped", b, func(r *client.Request) { r.Control, r.Data = r.Data, r.Control }, ErrPossession},
		{"other token", b, func(r *client.Request) { r.Token = "twinkey-router.a.c" }, ErrPossession},
		{"other request", b, func(r *client.Request) { r.CSR = newBox(t).request(t, challenge(t, c, now), b).CSR }, ErrPossession},
		{"one bit", b, func(r *client.Request) { r.DataProof[31] ^= 0x80 }, ErrPossession},
		{"forged cookie", b, func(r *client.Request) { r.Cookie[40] ^= 1 }, ErrChallenge},
		{"cookie of another challenge", b, func(r *client.Request) { r.Cookie = challenge(t, c, now).Cookie }, ErrPossession},
		{"cookie of another CA", b, func(r *client.Request) { r.Cookie = challenge(t, challenger(t), now).Cookie }, ErrChallenge},
		{"point of low order", b, func(r *client.Request) { r.Control = make([]byte, 32) }, ErrPossession},
		{"one key twice", box{b.tls, b.control, b.control}, func(r *client.Request) { r.Data = r.Control }, ErrRequest},
		{"tampered CSR", b, func(r *client.Request) { r.CSR[len(r.CSR)-1] ^= 1 }, ErrPossession},
		{"CSR that is none", b, func(r *client.Request) { r.CSR = []byte{0x30, 0} }, ErrRequest},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := b.request(t, challenge(t, c, now), row.prover)
			row.change(r)
			p, err := c.Check(r, now)
			if !errors.Is(err, row.want) {
				t.Fatalf("got %v, want %v", err, row.want)
			}
			if err == nil && (p.Twin.Control != [32]byte(r.Control) || p.Twin.Data != [32]byte(r.Data)) {
				t.Error("other keys came out")
			}
			if err != nil && p.Twin != (twincert.Keys{}) {
				t.Error("keys came out of a refusal")
			}
		})
	}
}

func TestOnlyP256(t *testing.T) {
	k, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b := newBox(t)
	b.tls = k
	c := challenger(t)
	if _, err := c.Check(b.request(t, challenge(t, c, time.Now()), b), time.Now()); !errors.Is(err, ErrRequest) {
		t.Errorf("P-384: %v", err)
	}
}

func TestChallengeWorksOnceAndNotForLong(t *testing.T) {
	start := time.Now()
	c, b := challenger(t), newBox(t)
	for _, row := range []struct {
		name string
		at   time.Duration
		want error
	}{
		{"at once", 0, nil}, {"in time", Lifetime - time.Second, nil}, {"late", Lifetime + 2*time.Second, ErrChallenge},
		{"clock set back a little", -time.Minute, nil}, {"clock set back a lot", -time.Hour, ErrChallenge},
	} {
		r := b.request(t, challenge(t, c, start), b)
		if _, err := c.Check(r, start.Add(row.at)); !errors.Is(err, row.want) {
			t.Errorf("%s: got %v, want %v", row.name, err, row.want)
		}
		if _, err := c.Check(r, start.Add(row.at)); !errors.Is(err, ErrChallenge) {
			t.Errorf("%s, once more: got %v", row.name, err)
		}
	}
}

func TestSpentCookiesAreBounded(t *testing.T) {
	now := time.Now()
	c := challenger(t)
	for i := range maxSpent {
		if err := c.spend([24]byte{byte(i), byte(i >> 8), byte(i >> 16)}, now.Add(Lifetime), now); err != nil {
			t.Fatal(err)
		}
	}
	b := newBox(t)
	if _, err := c.Check(b.request(t, challenge(t, c, now), b), now); !errors.Is(err, ErrBusy) {
		t.Errorf("full: %v", err)
	}
	later := now.Add(10 * Lifetime)
	if _, err := c.Check(b.request(t, challenge(t, c, later), b), later); err != nil {
		t.Errorf("when the old ones are forgotten: %v", err)
	}
	if len(c.spent) != 1 {
		t.Errorf("%d are remembered", len(c.spent))
	}
}

func TestParseRefuses(t *testing.T) {
	c, b := challenger(t), newBox(t)
	good, err := json.Marshal(b.request(t, challenge(t, c, time.Now()), b))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Parse(good); err != nil {
		t.Fatal(err)
	}
	for i := range good {
		if _, err := Parse(good[:i]); !errors.Is(err, ErrRequest) {
			t.Fatalf("the first %d bytes parse: %v", i, err)
		}
	}
	field := func(name string, value any) string {
		var m map[string]any
		if err := json.Unmarshal(good, &m); err != nil {
			t.Fatal(err)
		}
		m[name] = value
		out, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	for name, in := range map[string]string{
		"empty": "", "nothing": "{}", "two": string(good) + "{}", "an array": "[]", "null": "null",
		"unknown field": field("admin", true),
		"long token":    field("token", strings.Repeat("x", maxToken+1)),
		"long csr":      field("csr", make([]byte, client.MaxCSR+1)),
		"no csr":        field("csr", []byte{}),
		"short key":     field("control", make([]byte, 31)),
		"long key":      field("data", make([]byte, 33)),
		"one key":       field("data", []byte{}),
		"no proof":      field("data_proof", []byte{}),
		"short cookie":  field("cookie", make([]byte, cookieLen-1)),
		"too long":      field("token", strings.Repeat("x", client.MaxRequest)),
	} {
		if _, err := Parse([]byte(in)); !errors.Is(err, ErrRequest) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What parses encodes back and parses the same; Check never passes what nobody proved.
func FuzzParse(f *testing.F) {
	c, b := challenger(f), newBox(f)
	now := time.Now()
	good, err := json.Marshal(b.request(f, challenge(f, c, now), b))
	if err != nil {
		f.Fatal(err)
	}
	directory := *b.request(f, challenge(f, c, now), b)
	directory.Control, directory.Data, directory.ControlProof, directory.DataProof = nil, nil, nil, nil
	plain, err := json.Marshal(directory)
	if err != nil {
		f.Fatal(err)
	}
	old := newBox(f)
	user, err := json.Marshal(b.userRequest(f, challenge(f, c, now), &old))
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range [][]byte{good, plain, user, []byte("{}"), []byte(`{"csr":"MAA="}`), good[:len(good)/2]} {
		f.Add(seed)
	}
	other := challenger(f)
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := Parse(in)
		if err != nil {
			if !errors.Is(err, ErrRequest) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		out, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(out)
		if err != nil || !bytes.Equal(again.Transcript(nil), r.Transcript(nil)) || !bytes.Equal(again.DataProof, r.DataProof) || !bytes.Equal(again.OldDataProof, r.OldDataProof) {
			t.Fatalf("%v: %s", err, out)
		}
		if _, err := other.Check(r, now); err == nil {
			t.Fatal("a cookie of another CA was taken")
		}
	})
}

func BenchmarkChallengeAndCheck(b *testing.B) {
	c, x := challenger(b), newBox(b)
	now := time.Now()
	for b.Loop() {
		r := x.request(b, challenge(b, c, now), x)
		if _, err := c.Check(r, now); err != nil {
			b.Fatal(err)
		}
		clear(c.spent)
	}
}
