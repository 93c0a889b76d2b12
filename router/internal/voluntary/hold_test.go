package voluntary

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	ca "twinkey/ca/client"
	"twinkey/directory/client"
	"twinkey/pkg/limit"
	"twinkey/router/internal/authn"
)

// ask has the handler answer a request that comes from an address, and returns what a client makes of it.
func (w *world) ask(from netip.Addr, path string, in any) Code {
	r := httptest.NewRequestWithContext(w.t.Context(), http.MethodPost, path, bytes.NewReader(must(json.Marshal(in))))
	r.RemoteAddr = netip.AddrPortFrom(from, 40000).String()
	rec := httptest.NewRecorder()
	w.Handler().ServeHTTP(rec, r)
	if rec.Code == http.StatusOK {
		return ""
	}
	var out refusal
	if err := json.Unmarshal(rec.Body.Bytes(), &out); err != nil {
		w.t.Errorf("%s: %s", path, rec.Body)
	}
	return out.Code
}

// proof is what erin answers to a challenge that she was given; wrong: not what she ought to.
func (w *world) proof(from netip.Addr, wrong bool) ProveRequest {
	erin := w.ca.own("erin", "staff")
	ch := must(w.challenges.give("erin", from, []byte("channel"), time.Now()))
	transcript := ca.LoginTranscript(w.c.Name, "erin", erin.cert.Raw, ch.key.PublicKey().Bytes(), ch.nonce[:], ch.channel)
	out := ProveRequest{User: "erin", Nonce: ch.nonce[:], Certificate: erin.cert.Raw}
	out.Control = must(ca.Proof(erin.control, ch.key.PublicKey(), ca.LabelLoginControl, transcript))
	out.Data = must(ca.Proof(erin.data, ch.key.PublicKey(), ca.LabelLoginData, transcript))
	if wrong {
		out.Data[0] ^= 1
	}
	return out
}

// Whatever is asked, and whoever finds out: who is refused for who they are hears it at the same moments. Nothing else waits, and whoever waits
// keeps no try from the others.
func TestRefusalsAreHeld(t *testing.T) {
	denied := &client.Error{Code: client.CodeDenied}
	login := func(uid string) func(*world, netip.Addr) (string, any) {
		return func(*world, netip.Addr) (string, any) {
			return pathLogin, LoginRequest{uid, bytes.Clone(proofOf("alice").Bytes())}
		}
	}
	params := func(*world, netip.Addr) (string, any) { return pathParams, ParamsRequest{"alice"} }
	prove := func(wrong bool) func(*world, netip.Addr) (string, any) {
		return func(w *world, from netip.Addr) (string, any) { return pathProve, w.proof(from, wrong) }
	}
	for name, tt := range map[string]struct {
		ask  func(*world, netip.Addr) (path string, in any)
		code string // of what the directory refuses
		own  error  // likewise of keys of a user's own
		took time.Duration
		want time.Duration
		said Code
	}{
		"unknown user":               {login("nobody"), "", nil, 50 * time.Millisecond, 4 * time.Second, CodeDenied},
		"wrong password":             {login("bob"), "", nil, 900 * time.Millisecond, 4 * time.Second, CodeDenied},
		"late":                       {login("bob"), "", nil, 4100 * time.Millisecond, 8 * time.Second, CodeDenied},
		"parameters":                 {params, client.CodeDenied, nil, 0, 4 * time.Second, CodeDenied},
		"keys that are not proved":   {prove(true), "", nil, 0, 4 * time.Second, CodeDenied},
		"keys that are not let in":   {prove(false), "", denied, 0, 4 * time.Second, CodeDenied},
		"locked":                     {login("alice"), client.CodeLocked, nil, time.Second, time.Second, CodeLocked},
		"directory away":             {login("alice"), client.CodeUnavailable, nil, time.Second, time.Second, CodeUnavailable},
		"parameters are told":        {params, "", nil, 0, 0, ""},
		"alice":                      {login("alice"), "", nil, time.Second, time.Second, ""},
		"erin, with keys of her own": {prove(false), "", nil, 0, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newRouter(t)
				w.c.Hold = authn.Hold
				w.wrongs.All = limit.Bucket{Rate: 1, Burst: 2}
				w.c.Guesses = limit.NewFailures(w.wrongs)
				w.code, w.notOwn, w.during = tt.code, tt.own, func() { time.Sleep(tt.took) }
				here := netip.MustParseAddr("10.1.1.3")
				path, in := tt.ask(w, here)
				began, done := time.Now(), make(chan time.Duration, 1)
				go func() {
					if said := w.ask(here, path, in); said != tt.said {
						t.Errorf("says %q", said)
					}
					done <- time.Since(began)
				}()
				if tt.want > tt.took {
					time.Sleep(tt.took + time.Millisecond)
					synctest.Wait()
					try, wait := w.c.Guesses.Begin(netip.MustParseAddr("10.1.1.4"), time.Now())
					if wait > 0 || !w.mu.TryLock() {
						t.Errorf("what others need is taken while the answer waits: they wait for %s", wait)
					} else {
						w.mu.Unlock()
					}
					try.Close()
				}
				if got := <-done; got != tt.want {
					t.Errorf("after %s, want %s", got, tt.want)
				}
				for _, e := range w.desk.all() { // and with it its timers
					w.desk.remove(e, "the test is over")
				}
			})
		})
	}
}

// Whoever has a request read slowly does not choose how long after the question the answer comes.
func TestHeldFromWhenItWasRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newRouter(t)
		w.c.Hold = authn.Hold
		body := must(json.Marshal(LoginRequest{"nobody", bytes.Clone(proofOf("bob").Bytes())}))
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, pathLogin, &slow{Reader: bytes.NewReader(body), pause: 3900 * time.Millisecond})
		r.RemoteAddr = "10.1.1.3:40000"
		w.during = func() { time.Sleep(200 * time.Millisecond) }
		began := time.Now()
		w.Handler().ServeHTTP(httptest.NewRecorder(), r)
		if got := time.Since(began); got != 7900*time.Millisecond {
			t.Errorf("after %s", got)
		}
	})
}

// slow is a body whose sender draws it out.
type slow struct {
	*bytes.Reader
	pause time.Duration
}

func (s *slow) Read(b []byte) (int, error) {
	time.Sleep(s.pause)
	s.pause = 0
	return s.Reader.Read(b)
}

// Answers that wait are no more than the limits on tries let ask meanwhile, and keep nobody out.
func TestHeldAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newRouter(t)
		w.c.Hold = authn.Hold
		var busy, denied atomic.Int64
		flood := func(n byte, many int) {
			for i := range many {
				go func() {
					if w.ask(netip.AddrFrom4([4]byte{10, n, byte(i >> 8), byte(i)}), pathLogin, LoginRequest{"alice", bytes.Clone(proofOf("bob").Bytes())}) == CodeBusy {
						busy.Add(1)
					} else {
						denied.Add(1)
					}
				}()
			}
			synctest.Wait()
		}
		for n := range byte(4) { // as long as the first are held
			flood(n, 1000)
			time.Sleep(900 * time.Millisecond)
		}
		if held := 4000 - busy.Load() - denied.Load(); denied.Load() != 0 || held > triesInAllBurst+4*triesInAll || held > maxConns/10 {
			t.Errorf("%d are held, %d were sent away at once, %d refused", held, busy.Load(), denied.Load())
		}
		time.Sleep(200 * time.Millisecond)
		alice := netip.MustParseAddr("10.9.1.3")
		if said := w.ask(alice, pathLogin, LoginRequest{"alice", bytes.Clone(proofOf("alice").Bytes())}); said != "" {
			t.Errorf("alice, meanwhile: %s", said)
		}
		time.Sleep(4 * time.Second)
		synctest.Wait()
		if busy.Load()+denied.Load() != 4000 || denied.Load() == 0 {
			t.Errorf("%d were sent away, %d refused", busy.Load(), denied.Load())
		}
		for _, e := range w.desk.all() {
			w.desk.remove(e, "the test is over")
		}
	})
}
