package client

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// The flows against the real server are tests of ca/internal/api and ca/internal/cmd.

func TestTranscriptTellsItsPartsApart(t *testing.T) {
	seen := map[string]string{}
	for name, r := range map[string]Request{
		"plain":        {Token: "ab", CSR: []byte("cd")},
		"moved":        {Token: "abc", CSR: []byte("d")},
		"other field":  {Token: "ab", Cookie: []byte("cd")},
		"control":      {Token: "ab", CSR: []byte("cd"), Control: []byte("k")},
		"data":         {Token: "ab", CSR: []byte("cd"), Data: []byte("k")},
		"named":        {Token: "ab", CSR: []byte("cd"), Name: "x"},
		"with an old":  {Token: "ab", CSR: []byte("cd"), Old: []byte("x")},
		"with a proof": {Token: "ab", CSR: []byte("cd"), Cookie: []byte("x"), ControlProof: []byte("p")},
	} {
		h := string(r.Transcript([]byte("public")))
		if other, ok := seen[h]; ok {
			t.Errorf("%s and %s have one transcript", name, other)
		}
		seen[h] = name
	}
	r := Request{Token: "ab"}
	if bytes.Equal(r.Transcript([]byte("a")), r.Transcript([]byte("b"))) {
		t.Error("the challenge is not in it")
	}
	with := Request{Token: "ab", ControlProof: []byte("p"), DataProof: []byte("q")}
	if !bytes.Equal(r.Transcript(nil), with.Transcript(nil)) {
		t.Error("a proof cannot stand in what it proves")
	}
}

func TestProofIsTheSameOnBothEnds(t *testing.T) {
	var k [2]*ecdh.PrivateKey
	for i := range k {
		var err error
		if k[i], err = ecdh.X25519().GenerateKey(rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	a, err := Proof(k[0], k[1].PublicKey(), LabelControl, []byte("transcript"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := Proof(k[1], k[0].PublicKey(), LabelControl, []byte("transcript"))
	if err != nil || !bytes.Equal(a, b) {
		t.Errorf("%x and %x, %v", a, b, err)
	}
	c, err := Proof(k[1], k[0].PublicKey(), LabelData, []byte("transcript"))
	if err != nil || bytes.Equal(a, c) {
		t.Errorf("both labels yield one proof (%v)", err)
	}
	zero, err := ecdh.X25519().NewPublicKey(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Proof(k[0], zero, LabelControl, nil); err == nil {
		t.Error("a point of low order was taken")
	}
}

// An unknown server may say what it likes: all that comes of it is a typed error.
func TestAnswersOfAnUnknownServer(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"not JSON": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) },
		"no root":  func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"crts":[]}`)) },
		"no PEM":   func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"crts":["hello"]}`)) },
		"another": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(`{"crts":["-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]}`))
		},
		"endless":    func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(bytes.Repeat([]byte(" "), 2*maxAnswer)) },
		"a redirect": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) },
		"an error":   func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusTeapot) },
		"our error": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(403)
			_, _ = w.Write([]byte(`{"error":{"code":"denied","message":"no"}}`))
		},
		"code of his": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(403)
			_, _ = w.Write([]byte(`{"error":{"code":"fancy"}}`))
		},
	} {
		s := httptest.NewTLSServer(h)
		_, err := fetchRoot(t.Context(), s.URL, strings.Repeat("ab", 32))
		s.Close()
		if e, ok := errors.AsType[*Error](err); !ok || e.Op == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTokenRole(t *testing.T) {
	for token, want := range map[string]string{
		"twinkey-router.id.secret": "router", "twinkey-directory.x.y": "directory",
		"": "", "twinkey-": "", "twinkey-router": "", "twinkey-router.": "", "twinkey-.x": "", "router.id.secret": "",
	} {
		if got, ok := tokenRole(token); ok != (want != "") || ok && got != want {
			t.Errorf("%q: %q %v", token, got, ok)
		}
	}
}

// A login is written as JSON would be, in memory that was made for it.
func TestLoginIsEncoded(t *testing.T) {
	for _, l := range []Login{{UID: "alice", Password: []byte("\x00\xff\"secret")}, {}, {UID: `a"b\é<`, Password: []byte("x")}} {
		b, err := encode(l)
		if err != nil || len(b) != cap(b) {
			t.Errorf("%s: %d bytes in a buffer of %d, %v", b, len(b), cap(b), err)
		}
		var got Login
		if err := json.Unmarshal(b, &got); err != nil || got.UID != l.UID || !bytes.Equal(got.Password, l.Password) {
			t.Errorf("%s: %+v, %v", b, got, err)
		}
	}
	if b, err := encode(Login{UID: "alice", Sealed: []byte("sealed")}); err != nil || string(b) != `{"uid":"alice","sealed":"c2VhbGVk"}` {
		t.Errorf("sealed: %s, %v", b, err)
	}
}
