package station

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"log/slog"
	"math/big"
	"net/http"
	"net/netip"
	"testing"
	"time"

	ca "twinkey/ca/client"
	"twinkey/pkg/twincert"
	"twinkey/proto/handshake"
	"twinkey/proto/secret"
	"twinkey/router/internal/native"
	"twinkey/router/internal/trust"
	"twinkey/router/internal/voluntary"
)

// alice is a user with keys.
func alice() native.Credentials {
	pair := func() handshake.KeyPair {
		return must(handshake.NewKeyPair(secret.New(must(ecdh.X25519().GenerateKey(rand.Reader)).Bytes())))
	}
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign}
	issuer := must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key))))
	c := native.Credentials{Control: pair(), Data: pair()}
	c.Certificate = must(twincert.Parse(must(twincert.Create(rand.Reader, &twincert.Template{Profile: twincert.Paper, Role: twincert.User, Name: "alice", Group: "staff",
		Serial: big.NewInt(7), Keys: twincert.Keys{Control: c.Control.Public, Data: c.Data.Public}, NotBefore: issuer.NotBefore, NotAfter: issuer.NotAfter}, issuer, key))))
	return c
}

// Where the router asks for it, the end of the session is proved beforehand: to the CA, for this router and this certificate. Where it does not,
// nothing is sent.
func TestTheEndIsProvedWhereItIsAskedFor(t *testing.T) {
	var got []voluntary.CloseRequest
	at, root := stub(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/close" {
			var in voluntary.CloseRequest
			if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
				t.Error(err)
			}
			got = append(got, in)
		}
		w.WriteHeader(http.StatusNoContent)
	})
	s := must(New(Home{Dir: t.TempDir(), Router: at, Root: root}, Options{User: "alice", Local: netip.MustParseAddr("127.0.0.1")}, slog.New(slog.DiscardHandler)))
	defer s.front.Close()
	s.adm.Token = make([]byte, 32)
	if err := s.front.Logout(t.Context(), s.adm.Token); err != nil { // from then on it knows whom it speaks to
		t.Fatal(err)
	}
	r := &run{s: s, trust: trust.New(time.Minute), cred: alice()}
	if err := r.take(t.Context(), voluntary.Word{Heard: -1}, time.Now()); err != nil || len(got) != 0 {
		t.Fatalf("unasked: %+v, %v", got, err)
	}
	key := must(ecdh.X25519().GenerateKey(rand.Reader))
	if err := r.take(t.Context(), voluntary.Word{Heard: -1, Close: key.PublicKey().Bytes()}, time.Now()); err != nil || len(got) != 1 {
		t.Fatalf("asked: %+v, %v", got, err)
	}
	public := must(ecdh.X25519().NewPublicKey(r.cred.Data.Public[:]))
	if want := must(ca.CloseProof(key, public, "ra", r.cred.Certificate.Raw)); got[0].Serial != "7" || !bytes.Equal(got[0].Proof, want) {
		t.Errorf("sent %+v", got[0])
	}
	if err := r.proveEnd(t.Context(), make([]byte, 32)); !isCode(err, voluntary.CodeRouter) || len(got) != 1 {
		t.Errorf("against a key that is none: %v, %d proofs", err, len(got))
	}
}
