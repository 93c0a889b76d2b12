package station

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/netip"
	"testing"
	"time"

	ca "twinkey/ca/client"
	"twinkey/pkg/twincert"
	"twinkey/router/internal/native"
	"twinkey/router/internal/trust"
	"twinkey/router/internal/voluntary"
)

// alice is a user with keys.
func alice() native.Credentials {
	return newCompany().twin(twincert.Template{Role: twincert.User, Name: "alice", Group: "staff"})
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
	if want := must(ca.CloseProof(key, public, "ra", r.cred.Certificate.Raw)); got[0].Serial != r.cred.Certificate.Serial.String() || !bytes.Equal(got[0].Proof, want) {
		t.Errorf("sent %+v", got[0])
	}
	if err := r.proveEnd(t.Context(), make([]byte, 32)); !isCode(err, voluntary.CodeRouter) || len(got) != 1 {
		t.Errorf("against a key that is none: %v, %d proofs", err, len(got))
	}
}
