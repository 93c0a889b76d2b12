package enroll

import (
	"crypto/ecdh"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"twinkey/ca/client"
	"twinkey/pkg/twincert"
)

// certified is a user's certificate for the keys of b, by somebody.
func (b box) certified(tb testing.TB, uid string) []byte {
	tb.Helper()
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, b.tls.Public(), b.tls)
	if err != nil {
		tb.Fatal(err)
	}
	ca, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	twin, err := twincert.Create(rand.Reader, &twincert.Template{Profile: twincert.Paper, Role: twincert.User, Name: uid, Group: "staff", Serial: big.NewInt(2),
		Keys:      twincert.Keys{Control: [32]byte(b.control.PublicKey().Bytes()), Data: [32]byte(b.data.PublicKey().Bytes())},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter}, ca, b.tls)
	if err != nil {
		tb.Fatal(err)
	}
	return twin
}

// userRequest is that of a user, who renews if there are old keys.
func (b box) userRequest(tb testing.TB, ch client.Challenge, old *box) *client.Request {
	tb.Helper()
	r := &client.Request{Name: "alice", Control: b.control.PublicKey().Bytes(), Data: b.data.PublicKey().Bytes(), Cookie: ch.Cookie}
	if old == nil {
		r.Token = "twinkey-user.a.b"
	} else {
		r.Old = old.certified(tb, "alice")
	}
	public, err := ecdh.X25519().NewPublicKey(ch.Public)
	if err != nil {
		tb.Fatal(err)
	}
	transcript := r.Transcript(ch.Public)
	prove := func(k *ecdh.PrivateKey, label string) []byte {
		p, err := client.Proof(k, public, label, transcript)
		if err != nil {
			tb.Fatal(err)
		}
		return p
	}
	r.ControlProof, r.DataProof = prove(b.control, client.LabelControl), prove(b.data, client.LabelData)
	if old != nil {
		r.OldControlProof, r.OldDataProof = prove(old.control, client.LabelOldControl), prove(old.data, client.LabelOldData)
	}
	return r
}

// A user proves two keys, or to renew four, all in one exchange.
func TestUserProofs(t *testing.T) {
	now := time.Now()
	c, b, old, thief := challenger(t), newBox(t), newBox(t), newBox(t)
	for name, tt := range map[string]struct {
		old    *box
		change func(*client.Request)
		want   error
	}{
		"enrols":               {nil, func(*client.Request) {}, nil},
		"renews":               {&old, func(*client.Request) {}, nil},
		"as somebody else":     {nil, func(r *client.Request) { r.Name = "bob" }, ErrPossession},
		"with another token":   {nil, func(r *client.Request) { r.Token = "twinkey-user.a.c" }, ErrPossession},
		"another control key":  {nil, func(r *client.Request) { r.Control = thief.control.PublicKey().Bytes() }, ErrPossession},
		"another data key":     {nil, func(r *client.Request) { r.Data = thief.data.PublicKey().Bytes() }, ErrPossession},
		"proofs swapped":       {nil, func(r *client.Request) { r.ControlProof, r.DataProof = r.DataProof, r.ControlProof }, ErrPossession},
		"one key twice":        {nil, func(r *client.Request) { r.Data = r.Control }, ErrRequest},
		"another's old one":    {&old, func(r *client.Request) { r.Old = thief.certified(t, "alice") }, ErrPossession},
		"old proofs swapped":   {&old, func(r *client.Request) { r.OldControlProof, r.OldDataProof = r.OldDataProof, r.OldControlProof }, ErrPossession},
		"new proofs as old":    {&old, func(r *client.Request) { r.OldControlProof, r.OldDataProof = r.ControlProof, r.DataProof }, ErrPossession},
		"old data key unknown": {&old, func(r *client.Request) { r.OldDataProof = make([]byte, 32) }, ErrPossession},
		"old one that is none": {&old, func(r *client.Request) { r.Old = []byte{0x30, 0} }, ErrRequest},
		"forged cookie":        {&old, func(r *client.Request) { r.Cookie[40] ^= 1 }, ErrChallenge},
	} {
		t.Run(name, func(t *testing.T) {
			r := b.userRequest(t, challenge(t, c, now), tt.old)
			tt.change(r)
			p, err := c.Check(r, now)
			if !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			if err == nil && (p.CSR != nil || p.User != "alice" || p.Twin.Data != [32]byte(r.Data) || (p.Old != nil) != (tt.old != nil)) {
				t.Errorf("proved: %+v", p)
			}
			if err != nil && p != (Proved{}) {
				t.Error("something came out of a refusal")
			}
			if _, err := c.Check(r, now); err == nil {
				t.Error("the same once more was taken")
			}
		})
	}
}

func TestParseUserRefuses(t *testing.T) {
	c, b, old := challenger(t), newBox(t), newBox(t)
	encode := func(r *client.Request) []byte {
		out, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for _, o := range []*box{nil, &old} {
		if _, err := Parse(encode(b.userRequest(t, challenge(t, c, time.Now()), o))); err != nil {
			t.Fatal(err)
		}
	}
	for name, spoil := range map[string]func(*client.Request){
		"no name":             func(r *client.Request) { r.Name = "" },
		"bad name":            func(r *client.Request) { r.Name = "Alice Smith" },
		"long name":           func(r *client.Request) { r.Name = strings.Repeat("a", 64) },
		"a TLS key":           func(r *client.Request) { r.CSR = []byte{0x30, 0} },
		"no keys":             func(r *client.Request) { r.Control, r.Data, r.ControlProof, r.DataProof = nil, nil, nil, nil },
		"one key":             func(r *client.Request) { r.Data = nil },
		"no proof":            func(r *client.Request) { r.DataProof = nil },
		"old without proof":   func(r *client.Request) { r.OldControlProof = nil },
		"proof without old":   func(r *client.Request) { r.Old = nil },
		"endless old":         func(r *client.Request) { r.Old = make([]byte, client.MaxCSR+1) },
		"a router's with old": func(r *client.Request) { r.Name, r.CSR = "", []byte{0x30, 0} },
	} {
		r := b.userRequest(t, challenge(t, c, time.Now()), &old)
		spoil(r)
		if _, err := Parse(encode(r)); !errors.Is(err, ErrRequest) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
