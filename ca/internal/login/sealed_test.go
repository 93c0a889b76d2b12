package login

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"twinkey/ca/internal/ledger"
	"twinkey/pkg/sealedlogin"
	"twinkey/pkg/twincert"
	"twinkey/proto/secret"
)

// caTLS is a certificate as the CA's.
func caTLS(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), URIs: []*url.URL{{Scheme: "twinkey", Host: "ca"}}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// sealing is a world whose CA has login keys.
func sealing(t *testing.T) *world {
	w := newWorld(t)
	by := caTLS(t)
	w.ring.by, w.cfg.TLS = func() tls.Certificate { return by }, func() tls.Certificate { return by }
	return w
}

// key is the login key of the moment, as a machine reads it.
func (w *world) key() sealedlogin.Key {
	w.Helper()
	statement, err := w.LoginKey()
	w.check(err)
	s, err := sealedlogin.ParseStatement(statement)
	w.check(err)
	return s.Key
}

// sealed is a password, as alice's machine sends it by way of berlin.
func (w *world) sealed(router, uid, password string) []byte {
	w.Helper()
	b, _, err := sealedlogin.Seal(w.key(), router, uid, []byte(password))
	w.check(err)
	return b
}

// A sealed password is as good as any: the first login issues, and the answer is the same.
func TestSealedLogin(t *testing.T) {
	w := sealing(t)
	w.corp.session = 8 * time.Hour
	sealed, answer, err := sealedlogin.Seal(w.key(), "berlin", "alice", []byte("spring"))
	w.check(err)
	a, err := w.LoginSealed(t.Context(), w.berlin, "alice", sealed)
	if err != nil || a.Session != 8*time.Hour || sealedlogin.Confirmed(answer, a.Params, a.Confirm) != nil {
		t.Fatalf("session %s, %v\n%s", a.Session, err, w.log)
	}
	first := w.user("alice")
	if again := w.mustIn("alice", "spring", "staff"); again.ID.Serial == "" || w.user("alice").Serial != first.Serial {
		t.Error("typed at the router the same password brings another certificate")
	}
	if w.vouches() != 2 {
		t.Errorf("vouched %d times", w.vouches())
	}
	if strings.Contains(w.log.String(), "spring") {
		t.Errorf("the password stands in the log:\n%s", w.log)
	}
}

// What does not open, for whatever reason, is a wrong password: refused as one, counted as one, and no source is asked.
func TestSealedForOthers(t *testing.T) {
	w := sealing(t)
	w.corp.set("bob", "spring", "staff")
	shown := w.sealed("berlin", "alice", "spring")
	if _, err := w.LoginSealed(t.Context(), w.berlin, "alice", shown); err != nil {
		t.Fatal(err)
	}
	asked, noted := w.corp.timesAsked(), len(w.dir.refused)
	altered := w.sealed("berlin", "alice", "spring")
	altered[len(altered)-1] ^= 1
	cases := map[string]struct {
		uid    string
		sealed []byte
		cause  string
	}{
		"shown before":                     {"alice", shown, "shown before"},
		"what another user's machine sent": {"bob", w.sealed("berlin", "alice", "spring"), "does not open"},
		"by way of another router":         {"alice", w.sealed("paris", "alice", "spring"), "does not open"},
		"altered":                          {"alice", altered, "does not open"},
		"too short":                        {"alice", shown[:len(shown)-1], "does not open"},
		"nothing":                          {"alice", []byte{}, "does not open"},
	}
	for name, tt := range cases {
		w.log.Reset()
		if _, err := w.LoginSealed(t.Context(), w.berlin, tt.uid, tt.sealed); !errors.Is(err, ErrDenied) || err.Error() != ErrDenied.Error() {
			t.Errorf("%s: %v", name, err)
		}
		if !strings.Contains(w.log.String(), tt.cause) {
			t.Errorf("%s: the log does not say %q:\n%s", name, tt.cause, w.log)
		}
	}
	if w.corp.timesAsked() != asked {
		t.Error("the source was asked")
	}
	if n := len(w.dir.refused) - noted; n != len(cases) {
		t.Errorf("%d refusals were noted", n)
	}
	w.check(w.led.View(func(tx *ledger.Tx) error {
		if th, ok, err := tx.Throttle("u/alice"); err != nil || !ok {
			t.Errorf("nothing is counted: %+v, %v", th, err)
		}
		return nil
	}))
	// A wrong one that does open is as wrong, is asked about, and locks in the end.
	for range 20 {
		if _, err := w.LoginSealed(t.Context(), w.berlin, "alice", w.sealed("berlin", "alice", "guess")); errors.Is(err, ErrLocked) {
			return
		} else if !errors.Is(err, ErrDenied) {
			t.Fatal(err)
		}
	}
	t.Error("guesses do not lock")
}

// The refusal of a sealed password has its moment, as any.
func TestSealedRefusalsTakeTheSameTime(t *testing.T) {
	w := sealing(t)
	w.floor, w.corp.delay = refuseAfter, 1300*time.Millisecond
	unknown, garbage := w.sealed("berlin", "nobody", "guess"), w.sealed("paris", "alice", "guess")
	synctest.Test(t, func(t *testing.T) {
		for uid, sealed := range map[string][]byte{"nobody": unknown, "alice": garbage} {
			began := time.Now()
			if _, err := w.LoginSealed(t.Context(), w.berlin, uid, sealed); !errors.Is(err, ErrDenied) || time.Since(began) != refuseAfter {
				t.Errorf("%s: %v after %s", uid, err, time.Since(began))
			}
		}
	})
}

// The password of a local user, that a router has brought here, is not even opened.
func TestSealedPasswordOfALocalUser(t *testing.T) {
	w := sealing(t)
	w.check(second(w.desk.AddUser(t.Context(), "operator:test", w.local("local"))))
	sealed := w.sealed("berlin", "local", "password of local")
	if _, err := w.LoginSealed(t.Context(), w.berlin, "local", sealed); !errors.Is(err, ErrDenied) || !strings.Contains(w.log.String(), "a local user") {
		t.Errorf("%v\n%s", err, w.log)
	}
	if len(w.ring.present.shown) != 0 || w.corp.timesAsked() != 0 {
		t.Error("it was opened")
	}
}

// A login key is handed out for ten minutes and opens for twenty; what was sealed to it opens no more after that, though whoever asks has it.
func TestLoginKeysGo(t *testing.T) {
	w := sealing(t)
	first := w.key()
	early, late := w.sealed("berlin", "alice", "spring"), w.sealed("berlin", "alice", "spring")
	w.now = w.now.Add(keyLife - time.Second)
	if w.key() != first {
		t.Error("another key too early")
	}
	w.now = w.now.Add(time.Second)
	second := w.key()
	if second == first {
		t.Error("the same key after its time")
	}
	private := w.ring.last.private
	w.now = w.now.Add(keyLife - time.Second)
	if _, err := w.LoginSealed(t.Context(), w.berlin, "alice", early); err != nil {
		t.Errorf("a second before its end: %v", err)
	}
	if _, err := w.LoginSealed(t.Context(), w.berlin, "alice", early); !errors.Is(err, ErrDenied) {
		t.Errorf("shown again, to the key before: %v", err)
	}
	w.now = w.now.Add(time.Second)
	if _, err := w.LoginSealed(t.Context(), w.berlin, "alice", late); !errors.Is(err, ErrLoginKey) {
		t.Errorf("after its end: %v", err)
	}
	if !bytes.Equal(private.Bytes(), make([]byte, 32)) {
		t.Error("the key is still in memory")
	}
	// Nobody asks, and it goes all the same; so does all when the CA stops, or its clock is set back.
	sealed := w.sealed("berlin", "alice", "spring")
	private = w.ring.present.private
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		var now atomic.Int64
		go func() { w.ring.run(ctx, func() time.Time { return w.now.Add(time.Duration(now.Load())) }); close(done) }()
		now.Store(int64(keyEnd))
		time.Sleep(keyTick)
		synctest.Wait()
		w.ring.mu.Lock()
		if w.ring.present != nil || w.ring.last != nil || !bytes.Equal(private.Bytes(), make([]byte, 32)) {
			t.Error("a key that nobody asks about stays")
		}
		w.ring.mu.Unlock()
		if _, err := w.ring.statement(w.now); err != nil {
			t.Error(err)
		}
		private = w.ring.present.private
		stop()
		<-done
		if w.ring.present != nil || !bytes.Equal(private.Bytes(), make([]byte, 32)) {
			t.Error("a CA that has stopped has a key")
		}
	})
	if _, err := w.LoginSealed(t.Context(), w.berlin, "alice", sealed); !errors.Is(err, ErrLoginKey) {
		t.Errorf("after a stop: %v", err)
	}
	sealed = w.sealed("berlin", "alice", "spring")
	w.now = w.now.Add(-time.Hour)
	if _, err := w.LoginSealed(t.Context(), w.berlin, "alice", sealed); !errors.Is(err, ErrLoginKey) {
		t.Errorf("a clock that went back: %v", err)
	}
}

// A CA that has got another certificate says so of the same key by that one; one without sources has no word to give.
func TestLoginKeyStatement(t *testing.T) {
	w := sealing(t)
	by := caTLS(t)
	old, err := w.LoginKey()
	w.check(err)
	w.ring.by = func() tls.Certificate { return by }
	fresh, err := w.LoginKey()
	w.check(err)
	a, err := sealedlogin.ParseStatement(old)
	w.check(err)
	b, err := sealedlogin.ParseStatement(fresh)
	w.check(err)
	if a.Key != b.Key || !a.NotAfter.Equal(b.NotAfter) || !bytes.Equal(b.Chain[0], by.Certificate[0]) || bytes.Equal(a.Chain[0], b.Chain[0]) {
		t.Errorf("%+v and then %+v", a, b)
	}
	roots := x509.NewCertPool()
	leaf, err := x509.ParseCertificate(by.Certificate[0])
	w.check(err)
	roots.AddCert(leaf)
	if err := b.Verify(roots, w.now); err != nil || !b.NotAfter.Equal(w.now.Add(keyEnd).Truncate(time.Second).UTC()) {
		t.Errorf("until %s: %v", b.NotAfter, err)
	}
	w.ring.by = func() tls.Certificate { return tls.Certificate{} }
	if s, err := w.LoginKey(); !errors.Is(err, twincert.ErrKey) || s != nil {
		t.Errorf("without a key to sign by: %v", err)
	}
	w.cfg.Sources = nil
	if s, err := w.LoginKey(); s != nil || err != nil {
		t.Errorf("without sources: %x, %v", s, err)
	}
}

func opens(_ []byte, _ secret.Key, err error) error { return err }

// However many show the same sealed password at once, one of them has it opened.
func TestShownAtOnce(t *testing.T) {
	w := sealing(t)
	sealed := w.sealed("berlin", "alice", "spring")
	var opened atomic.Int32
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if _, _, err := w.ring.open(w.now, "berlin", "alice", sealed); err == nil {
				opened.Add(1)
			}
		})
	}
	wg.Wait()
	if opened.Load() != 1 {
		t.Errorf("opened %d times", opened.Load())
	}
}

// What a key has opened it remembers, so much and no more: then there is another key, and nothing opens twice.
func TestWhatALoginKeyRemembersIsBounded(t *testing.T) {
	w := sealing(t)
	was := w.key()
	shown, sealed := w.sealed("berlin", "alice", "spring"), w.sealed("berlin", "alice", "spring")
	w.check(opens(w.ring.open(w.now, "berlin", "alice", shown)))
	for i := len(w.ring.present.shown); i < maxShown; i++ {
		w.ring.present.shown[[32]byte{1, byte(i), byte(i >> 8), byte(i >> 16)}] = struct{}{}
	}
	for name, b := range map[string][]byte{"one more": sealed, "one more, again": sealed, "one that it has opened": shown} {
		if p, _, err := w.ring.open(w.now, "berlin", "alice", b); err == nil || p != nil {
			t.Errorf("%s: it is opened", name)
		}
	}
	if w.key() == was {
		t.Error("the same key goes on")
	}
	w.check(opens(w.ring.open(w.now, "berlin", "alice", w.sealed("berlin", "alice", "spring"))))
}
