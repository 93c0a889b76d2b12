package succession

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
	"fmt"
	"log/slog"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"twinkey/directory/client"
	"twinkey/pkg/twincert"
	"twinkey/router/internal/engine"
	"twinkey/router/internal/links"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// world is a router's logins and a directory, under synctest's clock.
type world struct {
	mu sync.Mutex // of what the keeper asks for, too
	t  *testing.T
	*Keeper
	ca     *x509.Certificate
	key    *ecdsa.PrivateKey
	serial int64

	users []engine.User
	state map[string]string // that the directory answers, by user; none: current
	down  bool
	bad   error // of Succeed
	life  time.Duration
	warns time.Duration

	asked []string // "alice", one a holding, "|" between requests
	taken []string
	log   bytes.Buffer
}

// logWriter writes the log under the lock.
type logWriter struct{ w *world }

func (l logWriter) Write(p []byte) (n int, err error) {
	l.w.set(func() { n, err = l.w.log.Write(p) })
	return n, err
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, key: must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), serial: 1, state: map[string]string{}, life: 10 * time.Hour}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0), KeyUsage: x509.KeyUsageCertSign,
	}
	w.ca = must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, tmpl, tmpl, w.key.Public(), w.key))))
	text := slog.NewTextHandler(logWriter{w}, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == "not_after" || a.Key == "serial" {
			return slog.Attr{}
		}
		return a
	}})
	w.Keeper = New(Config{
		Users: func(context.Context) (users []engine.User, _ error) {
			w.set(func() { users = slices.Clone(w.users) })
			return users, nil
		},
		Ask: w.ask, Succeed: w.succeed, Warn: func() time.Duration { return w.warns }, Log: slog.New(text),
	})
	return w
}

func (w *world) set(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

// answers says what the directory answers for a user from now on.
func (w *world) answers(uid, state string) { w.set(func() { w.state[uid] = state }) }

func (w *world) took() (all []string) {
	w.set(func() { all = slices.Clone(w.taken) })
	return all
}

func (w *world) logged() (text string) {
	w.set(func() { text = w.log.String() })
	return text
}

// run runs the keeper.
func (w *world) run() (stop func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan struct{})
	go func() { w.Run(ctx); close(done) }()
	return func() { cancel(); <-done }
}

func (w *world) certificate(uid string) *twincert.Certificate {
	w.serial++
	tmpl := twincert.Template{Profile: twincert.Paper, Role: twincert.User, Name: uid, Group: "staff", Serial: big.NewInt(w.serial), NotBefore: time.Now(), NotAfter: time.Now().Add(w.life)}
	for _, k := range []*[32]byte{&tmpl.Keys.Control, &tmpl.Keys.Data} {
		*k = [32]byte(must(ecdh.X25519().GenerateKey(rand.Reader)).PublicKey().Bytes())
	}
	return must(twincert.Parse(must(twincert.Create(rand.Reader, &tmpl, w.ca, w.key))))
}

func (w *world) login(uid, peer string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.users = append(w.users, engine.User{Key: links.Key{User: uid, Peer: peer}, Since: time.Now(), Certificate: w.certificate(uid)})
}

func (w *world) ask(ctx context.Context, hs []client.Holding) ([]client.Held, error) {
	hangs := false
	w.set(func() { hangs = w.state[hs[0].UID] == "hangs" })
	if hangs {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second) // the client's own
		defer cancel()
		<-ctx.Done()
		return nil, client.ErrUnavailable
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.asked) > 0 {
		w.asked = append(w.asked, "|")
	}
	if len(hs) > client.MaxHoldings {
		w.t.Errorf("%d at once", len(hs))
	}
	if w.down {
		w.asked = append(w.asked, "down")
		return nil, client.ErrUnavailable
	}
	var out []client.Held
	for _, h := range hs {
		w.asked = append(w.asked, h.UID)
		held := client.Held{UID: h.UID, State: client.HoldingCurrent}
		if s, ok := w.state[h.UID]; ok {
			held.State = s
		}
		if held.State == client.HoldingSucceeded {
			held.Successor = &client.Successor{}
		}
		out = append(out, held)
	}
	return out, nil
}

func (w *world) succeed(_ context.Context, u engine.User, _ client.Successor) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.taken = append(w.taken, u.Key.String())
	if w.bad != nil {
		return w.bad
	}
	for i := range w.users {
		if w.users[i].Key == u.Key {
			w.users[i].Certificate = w.certificate(u.Key.User)
		}
	}
	delete(w.state, u.Key.User)
	return nil
}

func (w *world) said() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := strings.Join(w.asked, " ")
	w.asked = nil
	return s
}

func last(s []string) string { return s[len(s)-1] }

// News of a certificate are followed at once, for those who are logged in, in all their calls.
func TestHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.login("alice", "rb")
		w.login("alice", "rc")
		w.login("bob", "rb")
		defer w.run()()
		synctest.Wait()
		if s := w.said(); s != "" {
			t.Errorf("asked for %s without need", s)
		}
		w.answers("alice", client.HoldingSucceeded)
		w.Heard("alice")
		w.Heard("carol") // somewhere else
		synctest.Wait()
		if s := w.said(); s != "alice alice" || len(w.took()) != 1 && len(w.took()) != 2 {
			t.Errorf("asked for %q, taken %v", s, w.took())
		}
		time.Sleep(time.Minute)
		if s := w.said(); s != "" {
			t.Errorf("and again for %q", s)
		}
		w.Heard("") // the watch had a gap
		synctest.Wait()
		if s := w.said(); s != "alice alice bob" {
			t.Errorf("after a gap asked for %q", s)
		}
	})
}

func TestManyAreAskedForInBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for i := range 2*client.MaxHoldings + 1 {
			w.login(fmt.Sprintf("u%d", i), "rb")
			w.answers(fmt.Sprintf("u%d", i), client.HoldingSucceeded)
		}
		w.Heard("")
		defer w.run()()
		synctest.Wait()
		if n := strings.Count(w.said(), "|"); n != 2 || len(w.took()) != len(w.users) {
			t.Errorf("%d requests, %d taken", n+1, len(w.took()))
		}
	})
}

// What was heard is not forgotten while the directory is away, nor while a login is under way.
func TestNothingHeardIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.login("alice", "rb")
		w.set(func() { w.down = true })
		stop := w.run()
		synctest.Wait()
		w.Heard("alice")
		time.Sleep(5 * time.Second)
		if s := w.said(); s != "down | down | down" {
			t.Errorf("asked %q", s)
		}
		w.set(func() { w.down = false })
		w.answers("alice", client.HoldingSucceeded)
		time.Sleep(2 * time.Second)
		if w.said() != "alice" || len(w.took()) != 1 {
			t.Errorf("taken %v", w.took())
		}
		for _, gap := range []bool{false, true} {
			over := w.Expect("bob")
			if w.Heard("bob"); gap {
				w.Heard("")
			}
			time.Sleep(time.Minute)
			w.said()
			w.set(func() { w.users = w.users[:1] })
			w.login("bob", "rb")
			w.answers("bob", client.HoldingSucceeded)
			over()
			time.Sleep(lookEvery)
			// Twice if a look of its own came in between.
			if s := w.said(); s != "bob" && s != "bob | bob" || last(w.took()) != "bob@rb" {
				t.Errorf("after bob's login asked for %q, taken %v", s, w.took())
			}
		}
		stop()
		if len(w.expected) != 0 || len(w.heard) != 0 {
			t.Errorf("kept %v %v", w.expected, w.heard)
		}
	})
}

// From two thirds of a certificate's life on the directory is asked now and then, whatever was heard.
func TestAsksByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.login("alice", "rb")
		defer w.run()()
		time.Sleep(6 * time.Hour)
		if s := w.said(); s != "" {
			t.Errorf("asked for %q too early", s)
		}
		time.Sleep(time.Hour)
		if n := strings.Count(w.said(), "alice"); n < 3 || n > 4 {
			t.Errorf("asked %d times in the first 20 minutes", n)
		}
		w.answers("alice", client.HoldingSucceeded)
		time.Sleep(10 * time.Minute)
		if len(w.took()) != 1 {
			t.Errorf("taken %v", w.took())
		}
		if s := w.said(); s != "alice" {
			t.Errorf("asked for %q", s)
		}
	})
}

// A certificate that ends is warned of once a stage, with the reason; the status says so all along. A new one ends the
// warning.
func TestWarnings(t *testing.T) {
	for name, c := range map[string]struct {
		state  string
		down   bool
		bad    error
		reason string
	}{
		"not renewed":            {"", false, nil, problemNone},
		"new keys":               {client.HoldingReplaced, false, nil, problemReplaced},
		"gone":                   {client.HoldingNone, false, nil, problemGone},
		"an answer that is none": {"perhaps", false, nil, problemGone},
		"does not open":          {client.HoldingSucceeded, false, errors.New("does not open"), "does not open"},
		"directory away":         {"", true, nil, client.ErrUnavailable.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.login("alice", "rb")
				w.down, w.bad = c.down, c.bad
				if c.state != "" {
					w.answers("alice", c.state)
				}
				stop := w.run()
				time.Sleep(9*time.Hour - time.Minute)
				if len(w.Warnings()) != 0 || strings.Contains(w.logged(), "ends soon") {
					t.Errorf("too early: %v, log %s", w.Warnings(), w.logged())
				}
				time.Sleep(2 * time.Minute)
				for _, last := range []bool{false, true} {
					if got := w.Warnings()[links.Key{User: "alice", Peer: "rb"}]; got != (Warning{c.reason, last}) {
						t.Errorf("in the last hour: %+v, want %q, last %v", got, c.reason, last)
					}
					time.Sleep(54 * time.Minute)
				}
				stop()
				if n := strings.Count(w.logged(), "ends soon"); n != 2 || !strings.Contains(w.logged(), c.reason) {
					t.Errorf("%d warnings: %s", n, w.logged())
				}
			})
		})
	}
}

func TestWarningsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.warns = 5 * time.Hour // as configured
		w.login("alice", "rb")
		w.login("bob", "rb")
		defer w.run()()
		time.Sleep(5*time.Hour + time.Minute)
		if got := w.Warnings(); len(got) != 2 {
			t.Fatalf("%v", got)
		}
		w.set(func() { w.users = w.users[:1] }) // bob logs out
		w.answers("alice", client.HoldingSucceeded)
		w.Heard("alice")
		time.Sleep(2 * lookEvery)
		if got := w.Warnings(); len(got) != 0 {
			t.Errorf("%v", got)
		}
		time.Sleep(6 * time.Hour)
		if got := w.Warnings(); len(got) != 1 {
			t.Errorf("of the next certificate: %v", got)
		}
	})
}

// Who has a newer certificate goes over to it before anything happens to the calls on the old one. Nobody is asked for without need, or waited for
// long.
func TestOvertake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.login("alice", "rb")
		w.login("bob", "rb")
		alice, bob := w.users[0].Certificate.ID(), w.users[1].Certificate.ID()
		stranger := twincert.ID{Issuer: "30", Serial: "4711"}
		w.Heard("") // there was a gap
		w.Overtake(t.Context(), []twincert.ID{stranger})
		if s := w.said(); s != "" {
			t.Errorf("asked for %q though nobody is concerned", s)
		}
		w.answers("alice", client.HoldingSucceeded)
		w.Overtake(t.Context(), []twincert.ID{stranger, alice})
		if s := w.said(); s != "alice bob" || len(w.took()) != 1 {
			t.Errorf("asked for %q, taken %v", s, w.took())
		}
		w.Overtake(t.Context(), []twincert.ID{bob}) // he is revoked, and that is all
		if s := w.said(); s != "" {
			t.Errorf("asked for %q though nothing newer was heard of", s)
		}
		w.Heard("bob") // in the same moment
		w.answers("bob", "hangs")
		begin := time.Now()
		w.Overtake(t.Context(), []twincert.ID{bob})
		if took := time.Since(begin); took != overtaking {
			t.Errorf("waited for %s", took)
		}
		// Also while another question hangs.
		stop := w.run()
		time.Sleep(time.Second)
		begin = time.Now()
		w.Overtake(t.Context(), []twincert.ID{bob})
		if took := time.Since(begin); took != overtaking {
			t.Errorf("behind another, waited for %s", took)
		}
		w.answers("bob", client.HoldingSucceeded)
		time.Sleep(time.Minute)
		stop()
		if last(w.took()) != "bob@rb" {
			t.Errorf("taken %v", w.took())
		}
	})
}
