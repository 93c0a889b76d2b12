package sitemap_test

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"math/big"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"twinkey/directory/client"
	"twinkey/pkg/twincert"
)

// crl is one that revokes these.
func (a authority) crl(number int64, revoked ...*twincert.Certificate) []byte {
	l := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: time.Now().Add(time.Hour)}
	for _, c := range revoked {
		serial, ok := new(big.Int).SetString(c.ID().Serial, 10)
		if !ok {
			panic(c.ID().Serial)
		}
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: serial, RevocationTime: time.Now()})
	}
	return must(x509.CreateRevocationList(rand.Reader, l, a.cert, a.key))
}

// ended is what was ended since the start.
func (w *world) ended() (out []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, h := range w.heard {
		if strings.HasPrefix(h, "revoked ") {
			out = append(out, h)
		}
	}
	slices.Sort(out)
	return out
}

// While the directory is away, and not before, the CA is asked for its CRL; what that revokes ends, once, and its site goes.
func TestTheCAsCRLWhileTheDirectoryIsAway(t *testing.T) {
	a := newAuthority()
	rb, rc := a.site("rb", 2), a.site("rc", 3)
	alice := a.twin(twincert.Template{Role: twincert.User, Name: "alice", Group: "staff"})
	gone := must(twincert.Parse(rc.Certificate))
	var asked atomic.Int32
	w := followFrom(t, a, &directory{sites: []client.Site{rb, rc}}, func(context.Context) ([]byte, error) {
		if asked.Add(1) == 1 {
			return a.crl(5, alice, gone), nil
		}
		return nil, errors.New("the CA is away as well")
	})
	w.until("peers rb rc")
	if asked.Load() > 0 {
		t.Error("the CA was asked while the directory answered")
	}
	w.dir.set(func() {
		w.dir.down = true
		close(w.dir.events)
	})
	w.until("peers rb") // rc's certificate is in the CRL
	want := []string{"revoked " + alice.ID().Serial, "revoked " + gone.ID().Serial}
	if got := w.ended(); !slices.Equal(got, slices.Sorted(slices.Values(want))) {
		t.Errorf("ended: %v, want %v", got, want)
	}
	if !w.trust.Revoked(alice.ID()) {
		t.Error("alice is believed")
	}
	if err := w.trust.Fresh(time.Now().Add(59 * time.Minute)); err != nil {
		t.Errorf("new calls go by the CRL: %v", err)
	}
	if asked.Load() != 1 {
		t.Errorf("asked %d times in a moment", asked.Load())
	}
	w.dir.set(func() {
		w.dir.down, w.dir.events = false, make(chan client.Event)
		w.dir.sites = []client.Site{rb}
	})
	for end := time.Now().Add(10 * time.Second); w.f.Problem() != nil; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still a problem: %v", w.f.Problem())
		}
	}
	if asked.Load() != 1 {
		t.Errorf("asked %d times, also after the directory was back", asked.Load())
	}
}

// A CRL that nobody of ours has signed ends nothing.
func TestACRLOfSomebodyElse(t *testing.T) {
	a, stranger := newAuthority(), newAuthority()
	rb := a.site("rb", 2)
	var asked atomic.Int32
	w := followFrom(t, a, &directory{sites: []client.Site{rb}}, func(context.Context) ([]byte, error) {
		asked.Add(1)
		return stranger.crl(9, must(twincert.Parse(rb.Certificate))), nil
	})
	w.until("peers rb")
	w.dir.set(func() {
		w.dir.down = true
		close(w.dir.events)
	})
	for end := time.Now().Add(10 * time.Second); asked.Load() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("nobody asked the CA")
		}
	}
	for end := time.Now().Add(10 * time.Second); w.f.Problem() == nil; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("nobody noticed")
		}
	}
	if got := w.ended(); len(got) > 0 || w.trust.Revoked(rb.ID) {
		t.Errorf("ended: %v", got)
	}
}
