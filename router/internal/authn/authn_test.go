package authn_test

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/subtle"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	caclient "twinkey/ca/client"
	"twinkey/directory/client"
	"twinkey/pkg/keybundle"
	"twinkey/pkg/twincert"
	"twinkey/proto/secret"
	"twinkey/router/internal/authn"
	"twinkey/router/internal/native"
	"twinkey/router/internal/trust"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// world is a CA and a directory that holds alice; tests change what the directory answers.
type world struct {
	ca  *x509.Certificate
	key *ecdsa.PrivateKey

	params   keybundle.Params
	askCA    bool
	told     keybundle.Params // what the CA says of params
	caSays   error
	asked    int
	released int    // how often keys were asked for
	auth     []byte // that proves her password
	verifier []byte // of what proves it
	release  client.Release
	code     string // of a refusal of Release; empty: it is granted
	refuse   string // likewise of Reseal
	changed  int    // how often Reseal was granted
	trust    *trust.Store
}

const password = "correct horse battery staple"

func newWorld() *world {
	w := &world{key: must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), trust: trust.New(time.Hour)}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	w.ca = must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, tmpl, tmpl, w.key.Public(), w.key))))
	w.trust.SetAnchors([]*x509.Certificate{w.ca}, nil)
	w.trust.Heard(time.Now())
	w.params = keybundle.Params{Salt: make([]byte, keybundle.SaltLen), Time: 1, MemoryKiB: 8 << 10, Threads: 1} // the least
	w.auth = bytes.Clone(must(keybundle.Derive([]byte(password), w.params)).Auth.Bytes())
	w.verifier = keybundle.Verifier(w.auth)
	w.release = w.sealed(w.user("alice"))
	return w
}

// keys are a user's private ones, and their certificate.
type keys struct {
	private keybundle.Private
	der     []byte
}

func (w *world) user(name string) keys {
	return w.certify(twincert.Template{Role: twincert.User, Name: name, Group: "staff"})
}

func (w *world) certify(tmpl twincert.Template) (k keys) {
	pair := func(public *[32]byte) secret.Key {
		priv := must(ecdh.X25519().GenerateKey(rand.Reader))
		*public = [32]byte(priv.PublicKey().Bytes())
		return secret.New(priv.Bytes())
	}
	k.private = keybundle.Private{Control: pair(&tmpl.Keys.Control), Data: pair(&tmpl.Keys.Data)}
	tmpl.Profile, tmpl.Serial = twincert.Paper, must(rand.Int(rand.Reader, big.NewInt(1<<60)))
	tmpl.NotBefore, tmpl.NotAfter = time.Now().Add(-time.Minute), time.Now().Add(50*time.Minute)
	k.der = must(twincert.Create(rand.Reader, &tmpl, w.ca, w.key))
	return k
}

// sealed is what the directory keeps of k under alice's password.
func (w *world) sealed(k keys) client.Release {
	proof := must(keybundle.Derive([]byte(password), w.params))
	return client.Release{Certificate: k.der, Sealed: must(keybundle.Seal(rand.Reader, k.private, proof.Seal, k.der))}
}

// succeeded adds to what the directory keeps of alice a certificate over the same data key and another control key; change
// adjusts the certificate.
func (w *world) succeeded(k keys, change func(*twincert.Template)) {
	old := must(twincert.Parse(k.der))
	next := must(ecdh.X25519().GenerateKey(rand.Reader))
	tmpl := twincert.Template{Profile: twincert.Paper, Role: twincert.User, Name: "alice", Group: "staff", Serial: must(rand.Int(rand.Reader, big.NewInt(1<<60))),
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(50 * time.Minute), Keys: twincert.Keys{Control: [32]byte(next.PublicKey().Bytes()), Data: old.Keys.Data}}
	if change != nil {
		change(&tmpl)
	}
	der := must(twincert.Create(rand.Reader, &tmpl, w.ca, w.key))
	w.release = w.sealed(k)
	w.release.Successor = &client.Successor{Certificate: der, Sealed: must(keybundle.SealControl(secret.New(next.Bytes()), old.Keys.Data, der))}
}

// ServeHTTP answers as the directory does.
func (w *world) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	refuse := func(code string) {
		var b client.ErrorBody
		b.Error.Code = code
		out.WriteHeader(http.StatusForbidden)
		_ = json.NewEncoder(out).Encode(b)
	}
	switch r.URL.Path {
	case client.PathParams:
		_ = json.NewEncoder(out).Encode(client.LoginParams{Params: w.params, AskCA: w.askCA})
	case client.PathRelease:
		w.released++
		var in client.ReleaseBody
		_ = json.NewDecoder(r.Body).Decode(&in)
		switch {
		case w.code != "":
			refuse(w.code)
		case subtle.ConstantTimeCompare(keybundle.Verifier(in.Auth), w.verifier) != 1:
			refuse(client.CodeDenied)
		default:
			_ = json.NewEncoder(out).Encode(w.release)
		}
	case client.PathReseal:
		var in client.Reseal
		_ = json.NewDecoder(r.Body).Decode(&in)
		switch {
		case w.refuse != "":
			refuse(w.refuse)
		case subtle.ConstantTimeCompare(keybundle.Verifier(in.Auth), keybundle.Verifier(w.auth)) != 1 || in.UID != "alice" || in.ID != must(twincert.Parse(w.release.Certificate)).ID():
			refuse(client.CodeDenied)
		default:
			w.changed++
			w.params, w.verifier, w.release.Sealed = in.Params, in.Verifier, in.Sealed
			out.WriteHeader(http.StatusNoContent)
		}
	default:
		refuse(client.CodeNotFound)
	}
}

// ask is the CA.
func (w *world) ask(_ context.Context, uid string, pass []byte) (caclient.Admission, error) {
	w.asked++
	if uid != "alice" || string(pass) == "" {
		panic("asked about " + uid)
	}
	return caclient.Admission{Params: w.told, SessionMS: 3_600_000}, w.caSays
}

// login is what a router does.
func (w *world) login(t *testing.T, dir *client.Client, pass string) (native.Credentials, time.Duration, error) {
	t.Helper()
	params, session, err := authn.Ask(t.Context(), dir, w.ask, "alice", []byte(pass))
	if err != nil {
		return native.Credentials{}, 0, err
	}
	c, err := authn.Fetch(t.Context(), dir, keybundle.NewGate(), w.trust, "alice", []byte(pass), params)
	return c, session, err
}

// What a directory answers is believed as far as certificate and password bear it out, whatever directory it is.
func TestLogin(t *testing.T) {
	anyError := errors.New("any")
	for name, tt := range map[string]struct {
		change   func(w *world)
		password string
		want     error
	}{
		"the password":         {nil, password, nil},
		"another password":     {nil, "guess", client.ErrDenied},
		"locked":               {func(w *world) { w.code = client.CodeLocked }, password, client.ErrLocked},
		"directory in trouble": {func(w *world) { w.code = client.CodeUnavailable }, password, client.ErrUnavailable},
		"certificate revoked": {func(w *world) {
			w.trust.Revoke(must(twincert.Parse(w.release.Certificate)).ID())
		}, password, twincert.ErrRevoked},
		"no word of revocations": {func(w *world) { w.trust.Heard(time.Now().Add(-2 * time.Hour)) }, password, trust.ErrStale},
		"certificate of another CA": {func(w *world) {
			w.release = newWorld().release
		}, password, anyError},
		"a router's certificate": {func(w *world) {
			w.release = w.sealed(w.certify(twincert.Template{Role: twincert.Router, Name: "alice"}))
		}, password, anyError},
		"somebody else's keys": {func(w *world) { w.release = w.sealed(w.user("bob")) }, password, anyError},
		"keys under another certificate": {func(w *world) {
			w.release.Sealed = w.sealed(w.user("alice")).Sealed
		}, password, keybundle.ErrOpen},
		"keys that are not the certificate's": {func(w *world) {
			k := w.user("alice")
			k.private = w.user("alice").private
			w.release = w.sealed(k)
		}, password, anyError},
		"one key of two": {func(w *world) {
			k := w.user("alice")
			k.private.Data = w.user("alice").private.Data
			w.release = w.sealed(k)
		}, password, anyError},
		"sealed under another password": {func(w *world) {
			k := w.user("alice")
			proof := must(keybundle.Derive([]byte("another"), w.params))
			w.release = client.Release{Certificate: k.der, Sealed: must(keybundle.Seal(rand.Reader, k.private, proof.Seal, k.der))}
		}, password, keybundle.ErrOpen},
		"params without bound": {func(w *world) { w.params.MemoryKiB = 1 << 30 }, password, client.ErrUnavailable},
		"params of the CA without bound": {func(w *world) {
			w.askCA, w.told = true, w.params
			w.told.MemoryKiB = 1 << 30
		}, password, keybundle.ErrParams},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			if tt.change != nil {
				tt.change(w)
			}
			s := httptest.NewServer(w)
			defer s.Close()
			dir := client.New(s.URL, nil)
			defer dir.CloseIdle()
			cred, session, err := w.login(t, dir, tt.password)
			if tt.want != nil {
				if err == nil || tt.want != anyError && !errors.Is(err, tt.want) {
					t.Errorf("err = %v, want %v", err, tt.want)
				}
				if cred.Control.Private.Len() != 0 || cred.Data.Private.Len() != 0 {
					t.Error("keys came with the failure")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if session != 0 || w.asked != 0 {
				t.Errorf("the CA was asked %d times, session %s", w.asked, session)
			}
			if cred.Certificate.Name != "alice" || cred.Control.Public != cred.Certificate.Keys.Control || cred.Data.Public != cred.Certificate.Keys.Data {
				t.Errorf("credentials of %s do not fit", cred.Certificate.Name)
			}
		})
	}
}

// Where the directory says so the CA is asked first. What it refuses goes no further; what it says of the password's parameters
// counts, since the keys may just have been sealed anew.
func TestLoginAsksTheCA(t *testing.T) {
	login := func(w *world, pass string) (time.Duration, error) {
		s := httptest.NewServer(w)
		defer s.Close()
		dir := client.New(s.URL, nil)
		defer dir.CloseIdle()
		_, session, err := w.login(t, dir, pass)
		return session, err
	}
	w := newWorld()
	w.askCA, w.told = true, w.params
	w.params.Salt = bytes.Repeat([]byte("stale"), 4) // of yesterday's password
	if session, err := login(w, password); err != nil || session != time.Hour || w.asked != 1 {
		t.Errorf("session %s, asked %d times: %v", session, w.asked, err)
	}
	for name, says := range map[string]error{
		"denied":      &caclient.Error{Code: caclient.CodeDenied},
		"locked":      &caclient.Error{Code: caclient.CodeLocked},
		"CA away":     &caclient.Error{Code: caclient.CodeUnavailable},
		"source away": &caclient.Error{Code: caclient.CodeSource},
	} {
		w.caSays = says
		if _, err := login(w, password); !errors.Is(err, says) || w.released != 1 {
			t.Errorf("%s: %v; the directory was asked for keys %d times", name, err, w.released-1)
		}
	}
}

// How long a refusal takes tells nothing: not whether the directory or the CA refused, nor how soon. Nothing else is held.
func TestHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, tt := range map[string]struct {
			err  error
			took time.Duration
			want time.Duration // in all
		}{
			"by the directory": {fmt.Errorf("x: %w", &client.Error{Code: client.CodeDenied}), 300 * time.Millisecond, 4 * time.Second},
			"by the CA":        {fmt.Errorf("x: %w", &caclient.Error{Code: caclient.CodeDenied}), 3100 * time.Millisecond, 4 * time.Second},
			"late":             {&caclient.Error{Code: caclient.CodeDenied}, 6200 * time.Millisecond, 8 * time.Second},
			"locked":           {&client.Error{Code: client.CodeLocked}, 300 * time.Millisecond, 300 * time.Millisecond},
			"source away":      {&caclient.Error{Code: caclient.CodeSource}, time.Second, time.Second},
			"it worked":        {nil, time.Second, time.Second},
		} {
			began := time.Now()
			time.Sleep(tt.took)
			authn.Hold(t.Context(), began, tt.err)
			if got := time.Since(began); got != tt.want {
				t.Errorf("%s: after %s, want %s", name, got, tt.want)
			}
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		began := time.Now()
		authn.Hold(gone, began, &client.Error{Code: client.CodeDenied})
		if time.Since(began) != 0 {
			t.Error("held for somebody who has gone")
		}
	})
}

// With a successor it is that certificate which counts: the one before opens the sealed keys and may be anything else.
func TestLoginWithASuccessor(t *testing.T) {
	anyError := errors.New("any")
	revoke := func(w *world, der []byte) { w.trust.Revoke(must(twincert.Parse(der)).ID()) }
	for name, tt := range map[string]struct {
		change func(w *world, k keys)
		want   error
	}{
		"good":                   {func(w *world, k keys) { w.succeeded(k, nil) }, nil},
		"the one before revoked": {func(w *world, k keys) { w.succeeded(k, nil); revoke(w, k.der) }, nil},
		"revoked":                {func(w *world, k keys) { w.succeeded(k, nil); revoke(w, w.release.Successor.Certificate) }, twincert.ErrRevoked},
		"somebody else's":        {func(w *world, k keys) { w.succeeded(k, func(t *twincert.Template) { t.Name = "bob" }) }, anyError},
		"a data key that is not hers": {func(w *world, k keys) {
			w.succeeded(k, func(t *twincert.Template) { t.Keys.Data = must(twincert.Parse(w.user("alice").der)).Keys.Data })
		}, anyError},
		"a control key that is not the certificate's": {func(w *world, k keys) {
			w.succeeded(k, nil)
			s := w.release.Successor
			s.Sealed = must(keybundle.SealControl(secret.New(bytes.Repeat([]byte{7}, 32)), must(twincert.Parse(k.der)).Keys.Data, s.Certificate))
		}, anyError},
		"sealed for another certificate": {func(w *world, k keys) {
			w.succeeded(k, nil)
			sealed := w.release.Successor.Sealed
			w.succeeded(k, nil)
			w.release.Successor.Sealed = sealed
		}, keybundle.ErrSuccessor},
		"the bundle beside the newer certificate": {func(w *world, k keys) {
			w.succeeded(k, nil)
			w.release.Certificate = w.release.Successor.Certificate
		}, keybundle.ErrOpen},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			k := w.user("alice")
			tt.change(w, k)
			s := httptest.NewServer(w)
			defer s.Close()
			dir := client.New(s.URL, nil)
			defer dir.CloseIdle()
			cred, _, err := w.login(t, dir, password)
			if tt.want != nil {
				if err == nil || tt.want != anyError && !errors.Is(err, tt.want) {
					t.Errorf("err = %v, want %v", err, tt.want)
				}
				if cred.Control.Private.Len() != 0 || cred.Data.Private.Len() != 0 {
					t.Error("keys came with the failure")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			c := must(twincert.Parse(w.release.Successor.Certificate))
			if cred.Certificate.ID() != c.ID() || cred.Control.Public != c.Keys.Control || cred.Data.Public != c.Keys.Data || !cred.Data.Private.Equal(k.private.Data) {
				t.Errorf("credentials of certificate %s do not fit", cred.Certificate.Serial)
			}
		})
	}
}
