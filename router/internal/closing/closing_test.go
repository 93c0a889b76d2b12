package closing

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"twinkey/ca/client"
	"twinkey/pkg/twincert"
	"twinkey/proto/handshake"
	"twinkey/proto/secret"
	"twinkey/router/internal/native"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// desk is a CA that takes what is proved, or does not answer.
type desk struct {
	own    *ecdh.PrivateKey
	ca     *x509.Certificate
	key    *ecdsa.PrivateKey
	serial int64

	mu      sync.Mutex
	away    error
	no      []string // serials that it refuses
	asked   int
	largest int
	keys    int // how often it was asked for its key
	got     []string
	certs   map[string]*twincert.Certificate
}

func newDesk() *desk {
	d := &desk{own: must(ecdh.X25519().GenerateKey(rand.Reader)), key: must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), certs: map[string]*twincert.Certificate{}}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign}
	d.ca = must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, tmpl, tmpl, d.key.Public(), d.key))))
	return d
}

// session is a user's who was logged in.
func (d *desk) session(uid string) native.Credentials {
	pair := func() handshake.KeyPair {
		return must(handshake.NewKeyPair(secret.New(must(ecdh.X25519().GenerateKey(rand.Reader)).Bytes())))
	}
	c := native.Credentials{Control: pair(), Data: pair()}
	d.serial++
	c.Certificate = must(twincert.Parse(must(twincert.Create(rand.Reader, &twincert.Template{Profile: twincert.Paper, Role: twincert.User, Name: uid, Group: "staff",
		Serial: big.NewInt(d.serial), Keys: twincert.Keys{Control: c.Control.Public, Data: c.Data.Public}, NotBefore: d.ca.NotBefore, NotAfter: d.ca.NotAfter}, d.ca, d.key))))
	d.mu.Lock()
	defer d.mu.Unlock()
	d.certs[c.Certificate.Serial.String()] = c.Certificate
	return c
}

func (d *desk) set(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

func (d *desk) closeKey(context.Context) (*ecdh.PublicKey, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.keys++
	return d.own.PublicKey(), d.away
}

func (d *desk) tell(_ context.Context, closed []client.Closed) (refused []string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked++
	d.largest = max(d.largest, len(closed))
	if d.away != nil {
		return nil, d.away
	}
	for _, c := range closed {
		cert := d.certs[c.Serial]
		if cert == nil || slices.Contains(d.no, c.Serial) {
			refused = append(refused, c.Serial)
			continue
		}
		public := must(ecdh.X25519().NewPublicKey(cert.Keys.Data[:]))
		if want := must(client.CloseProof(d.own, public, "ra", cert.Raw)); !bytes.Equal(want, c.Proof) {
			refused = append(refused, c.Serial)
			continue
		}
		d.got = append(d.got, cert.Name)
	}
	return refused, nil
}

func (d *desk) config(path string, wanted bool) Config {
	return Config{Path: path, Router: "ra", Wanted: func() bool { return wanted }, Key: d.closeKey, Tell: d.tell, Log: slog.New(slog.DiscardHandler)}
}

// run runs a queue until stop.
func run(t *testing.T, c Config) (q *Queue, stop func()) {
	t.Helper()
	q, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); q.Run(ctx) }()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return q, stop
}

func (d *desk) hasHeardOf(t *testing.T, want ...string) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if !slices.Equal(d.got, want) {
		t.Errorf("the CA has heard of %q, want %q", d.got, want)
	}
}

// logout is what the engine does.
func logout(q *Queue, c native.Credentials) {
	q.Add(c)
	c.Data.Private.Wipe()
	c.Control.Private.Wipe()
}

func TestToldAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk()
		q, stop := run(t, d.config(filepath.Join(t.TempDir(), "closing.json"), true))
		synctest.Wait()
		if d.set(func() {}); d.keys != 1 {
			t.Errorf("the key was asked for %d times before it was needed", d.keys)
		}
		logout(q, d.session("alice"))
		synctest.Wait()
		d.hasHeardOf(t, "alice")
		logout(q, d.session("bob"))
		synctest.Wait()
		d.hasHeardOf(t, "alice", "bob")
		if s := q.Status(); s != (Status{}) {
			t.Errorf("status %+v", s)
		}
		stop()
	})
}

// What a user's own machine has proved beforehand is told like what is proved here, and needs no key of the user's.
func TestProvedBeforehand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk()
		d.away = errors.New("no route to host")
		path := filepath.Join(t.TempDir(), "closing.json")
		q, _ := run(t, d.config(path, true))
		synctest.Wait()
		if k := q.Key(); k != nil {
			t.Errorf("a key that was never had: %x", k)
		}
		d.set(func() { d.away = nil })
		time.Sleep(2 * time.Minute)
		key := must(ecdh.X25519().NewPublicKey(q.Key()))
		alice, eve := d.session("alice"), d.session("eve")
		own := must(ecdh.X25519().NewPrivateKey(alice.Data.Private.Bytes()))
		proof := must(client.CloseProof(own, key, "ra", alice.Certificate.Raw))
		q.AddProved(alice.Certificate, proof)
		q.AddProved(alice.Certificate, proof) // twice is once
		clear(proof)                          // which is the caller's
		q.AddProved(eve.Certificate, make([]byte, 32))
		time.Sleep(time.Minute)
		d.hasHeardOf(t, "alice")
		if s := q.Status(); s != (Status{Refused: 1}) {
			t.Errorf("status %+v", s)
		}
	})
}

// While the CA is away what waits is shown; it is told when the CA is back, in batches, and nobody twice.
func TestAwayAndBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk()
		path := filepath.Join(t.TempDir(), "closing.json")
		q, _ := run(t, d.config(path, true))
		synctest.Wait()
		d.set(func() { d.away = errors.New("no route to host") })
		var want []string
		for range 250 {
			logout(q, d.session("alice"))
			want = append(want, "alice")
		}
		time.Sleep(10 * time.Minute)
		if s := q.Status(); s.Waiting != 250 || s.Problem != "no route to host" || s.Since.IsZero() {
			t.Errorf("status %+v", s)
		}
		asked := 0
		if d.set(func() { asked = d.asked; d.away = nil }); asked < 10 || asked > 20 {
			t.Errorf("asked %d times in ten minutes", asked)
		}
		time.Sleep(2 * time.Minute)
		d.hasHeardOf(t, want...)
		if d.largest != client.MaxClosed {
			t.Errorf("up to %d at a time", d.largest)
		}
		if s := q.Status(); s != (Status{}) {
			t.Errorf("status %+v", s)
		}
	})
}

// What waits outlives the process, in good order or killed, and without any key in the file.
func TestOutlivesTheProcess(t *testing.T) {
	for name, killed := range map[string]bool{"stopped": false, "killed": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDesk()
				path := filepath.Join(t.TempDir(), "closing.json")
				q, stop := run(t, d.config(path, true))
				synctest.Wait()
				d.set(func() { d.away = errors.New("away") })
				alice := d.session("alice")
				key := bytes.Clone(alice.Data.Private.Bytes())
				logout(q, alice)
				time.Sleep(5 * time.Second)
				if !killed {
					stop()
				}
				b := must(os.ReadFile(path))
				if st := must(os.Stat(path)); st.Mode().Perm() != 0o600 || bytes.Contains(b, key) || !strings.Contains(string(b), "alice") {
					t.Errorf("mode %v: %s", st.Mode(), b)
				}
				d.set(func() { d.away = nil })
				left := path + ".left"
				if err := os.WriteFile(left, b, 0o600); err != nil {
					t.Fatal(err)
				}
				d.set(func() { d.got = nil })
				run(t, d.config(left, false))
				synctest.Wait()
				d.hasHeardOf(t, "alice")
				if c := must(load(left)); len(c.waiting) != 0 {
					t.Errorf("%d are still in the file", len(c.waiting))
				}
			})
		})
	}
}

// The CA was never reached: the data key waits, in memory alone, and is gone when it has been used.
func TestKeyOfTheCAComesLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk()
		d.away = errors.New("away")
		path := filepath.Join(t.TempDir(), "closing.json")
		q, _ := run(t, d.config(path, false))
		synctest.Wait()
		if d.set(func() {}); d.keys != 0 {
			t.Error("asked for a key that no policy wants")
		}
		logout(q, d.session("alice"))
		time.Sleep(5 * time.Second)
		if b := must(os.ReadFile(path)); strings.Contains(string(b), "alice") {
			t.Errorf("in the file without a proof: %s", b)
		}
		d.set(func() { d.away = nil })
		time.Sleep(time.Minute)
		d.hasHeardOf(t, "alice")
	})
}

// A CA that was made anew has another key: it is asked once in each run, and the one from before does while it is away.
func TestKeyOfTheRunBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before, d := newDesk(), newDesk()
		path := filepath.Join(t.TempDir(), "closing.json")
		_, stop := run(t, before.config(path, true))
		synctest.Wait()
		stop()
		d.own, d.away = before.own, errors.New("away")
		q, stop := run(t, d.config(path, true))
		logout(q, d.session("alice"))
		time.Sleep(5 * time.Second)
		if b := must(os.ReadFile(path)); !strings.Contains(string(b), "alice") {
			t.Errorf("not proved with the key that there is: %s", b)
		}
		d.set(func() { d.away = nil })
		time.Sleep(time.Minute)
		d.hasHeardOf(t, "alice")
		stop()
		other := newDesk()
		q, _ = run(t, other.config(path, true))
		synctest.Wait()
		logout(q, other.session("bob"))
		synctest.Wait()
		other.hasHeardOf(t, "bob")
	})
}

// What the CA refuses holds nobody up, is counted, and is not asked again.
func TestRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk()
		q, _ := run(t, d.config(filepath.Join(t.TempDir(), "closing.json"), true))
		synctest.Wait()
		eve, bob := d.session("eve"), d.session("bob")
		d.set(func() { d.no = []string{eve.Certificate.Serial.String()}; d.away = errors.New("away") })
		logout(q, eve)
		logout(q, bob)
		d.set(func() { d.away = nil })
		time.Sleep(time.Minute)
		d.hasHeardOf(t, "bob")
		if s := q.Status(); s != (Status{Refused: 1}) {
			t.Errorf("status %+v", s)
		}
	})
}

func TestBounded(t *testing.T) {
	d := newDesk()
	q := must(Open(d.config(filepath.Join(t.TempDir(), "closing.json"), false)))
	alice := d.session("alice")
	q.Add(alice)
	q.Add(alice) // twice the same is once
	if s := q.Status(); s.Waiting != 1 {
		t.Errorf("status %+v", s)
	}
	q.waiting = make([]waiting, maxWaiting)
	q.Add(d.session("alice"))
	if s := q.Status(); s.Waiting != maxWaiting || s.Lost != 1 {
		t.Errorf("status %+v", s)
	}
}

func TestFilesThatAreNone(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"empty": "", "no JSON": "hello", "two": `{"waiting":[]}{}`, "unknown": `{"waiting":[],"x":1}`, "a key that is none": `{"ca_key":"AAAA","waiting":[]}`,
		"no user":   `{"waiting":[{"user":"","serial":"1","since":"2026-01-01T00:00:00Z","proof":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}]}`,
		"no serial": `{"waiting":[{"user":"a","serial":"x","since":"2026-01-01T00:00:00Z","proof":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}]}`,
		"no proof":  `{"waiting":[{"user":"a","serial":"1","since":"2026-01-01T00:00:00Z"}]}`,
		"too long":  strings.Repeat(" ", maxFile+1),
	} {
		path := filepath.Join(dir, "closing.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(newDesk().config(path, false)); !errors.Is(err, ErrFile) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What parses encodes back and parses the same.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"waiting":[]}`))
	f.Add([]byte(`{"ca_key":"AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","waiting":[{"user":"a","serial":"1","since":"2026-01-01T00:00:00Z","proof":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}]}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		c, err := parse(in)
		if err != nil {
			if !errors.Is(err, ErrFile) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		b, err := encode(c)
		if err != nil {
			t.Fatal(err)
		}
		again, err := parse(b)
		if err != nil || len(again.waiting) != len(c.waiting) || (again.key == nil) != (c.key == nil) {
			t.Fatalf("%v: %s", err, b)
		}
		for i, w := range c.waiting {
			if o := again.waiting[i]; o.serial != w.serial || o.user != w.user || !o.since.Equal(w.since) || !bytes.Equal(o.proof, w.proof) {
				t.Fatalf("entry %d: %+v and %+v", i, w, o)
			}
		}
	})
}
