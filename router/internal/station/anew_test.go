package station

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"twinkey/directory/client"
	"twinkey/pkg/keybundle"
	"twinkey/pkg/netcfg"
	"twinkey/pkg/netlab"
	"twinkey/pkg/twincert"
	"twinkey/router/internal/policy"
	"twinkey/router/internal/voluntary"
)

var errPrivileges error

// TestMain gives the tests a network of their own, where that can be.
func TestMain(m *testing.M) {
	if errPrivileges = netlab.EnsurePrivileges(); errPrivileges == nil {
		errPrivileges = netlab.CheckTUN()
	}
	os.Exit(m.Run())
}

// fickle is a router in front that sees alice under one address after the other, and tells of sites in her first session alone.
type fickle struct {
	t         *testing.T
	addresses []netip.Addr
	adm       voluntary.Admission
	word      voluntary.Word

	mu      sync.Mutex
	logins  int
	watches int           // of the last session
	over    chan struct{} // closed when that is
}

func (f *fickle) answer(w http.ResponseWriter, r *http.Request) {
	say := func(v any) { _ = json.NewEncoder(w).Encode(v) }
	f.mu.Lock()
	defer f.mu.Unlock()
	switch path.Base(r.URL.Path) {
	case "params":
		say(voluntary.ParamsAnswer{Params: usual(1)})
	case "login":
		adm := f.adm
		adm.Address = f.addresses[min(f.logins, len(f.addresses)-1)]
		f.logins++
		f.watches, f.over, adm.Token = 0, make(chan struct{}), f.token()
		say(adm)
	case "watch":
		if r.Header.Get("Authorization") != "Bearer "+base64.RawURLEncoding.EncodeToString(f.token()) || f.over == nil {
			w.WriteHeader(http.StatusUnauthorized)
			say(map[string]any{"code": voluntary.CodeToken})
			return
		}
		word := voluntary.Word{}
		if f.logins == 1 {
			word = f.word
		}
		say(word)
		w.(http.Flusher).Flush()
		f.watches++
		over := f.over
		f.mu.Unlock()
		select {
		case <-over:
		case <-r.Context().Done():
		}
		f.mu.Lock()
	case "logout":
		w.WriteHeader(http.StatusNoContent)
	default:
		f.t.Errorf("asked for %s", r.URL.Path)
	}
}

// token is that of the last login.
func (f *fickle) token() []byte {
	b := make([]byte, 32)
	b[0] = byte(f.logins)
	return b
}

// forget ends the session, so that the client logs in anew.
func (f *fickle) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.over)
	f.over = nil
}

// watched says whether the client follows its nth session.
func (f *fickle) watched(n int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.logins == n && f.watches > 0
}

// own are addresses that the machine has anyway.
var own = [2]netip.Addr{netip.MustParseAddr("10.1.1.5"), netip.MustParseAddr("fd00:1::5")}

// routed says whether the kernel has a way to an address, from one that stays: where it chooses one itself that one may have gone before it is looked at again.
// Nothing but the client makes a way here.
func routed(a netip.Addr) bool {
	from := own[0]
	if a.Is6() {
		from = own[1]
	}
	d := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
	c, err := d.Dial("udp", netip.AddrPortFrom(a, 9).String())
	if err != nil {
		return false
	}
	return c.Close() == nil
}

// A router in front that has everything begin anew, and then tells of no sites any more, does not get what is for them in the clear: there is not a moment without
// a route into the client's interface. Without a map the client ends, and says so.
func TestBeginningAnewWithholds(t *testing.T) {
	switch {
	case errPrivileges != nil && os.Getenv("TWINKEY_NO_SKIP") == "1":
		t.Fatal("needs root:", errPrivileges)
	case errPrivileges != nil:
		t.Skip("needs root:", errPrivileges)
	}
	c := newCompany()
	alice := c.twin(twincert.Template{Role: twincert.User, Name: "alice", Group: "staff"})
	site := func(name, endpoint string, certified ...string) client.Site {
		cert := c.twin(twincert.Template{Role: twincert.Router, Name: name, Prefixes: prefixes(certified...)}).Certificate
		return client.Site{Name: name, Endpoint: endpoint, Prefixes: cert.Prefixes, Certificate: cert.Raw, ID: cert.ID()}
	}
	sites := []client.Site{site("rb", "198.51.100.2:1701", "10.2.0.0/24", "fd00:2::/48"), site("rc", "", "10.3.0.0/24")} // rc nobody can dial
	undo, err := netcfg.Apply(t.Context(), netcfg.Plan{Link: "lo", Addresses: []netip.Prefix{netip.PrefixFrom(own[0], 32), netip.PrefixFrom(own[1], 128)}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := undo(); err != nil {
			t.Error(err)
		}
	}()
	f := &fickle{t: t, addresses: []netip.Addr{netip.MustParseAddr("10.1.1.3"), netip.MustParseAddr("10.1.1.4"), own[0]}}
	f.word = voluntary.Word{CRL: c.crl(), Sites: &sites, Rules: &[]policy.Rule{{Groups: []string{"staff"}}}}
	f.adm = voluntary.Admission{Router: "ra", Certificate: alice.Certificate.Raw, Until: alice.Certificate.NotAfter}
	f.adm.Sealed = must(keybundle.Seal(rand.Reader, keybundle.Private{Control: alice.Control.Private, Data: alice.Data.Private}, proofs()[1].Seal, alice.Certificate.Raw))
	at := c.stub(t, f.answer)
	o := Options{User: "alice", Device: "tk0", Say: func(string) {}, Password: func() ([]byte, error) { return []byte(typed), nil }}
	s := must(New(Home{Dir: t.TempDir(), Router: at, Root: c.root}, o, slog.New(slog.DiscardHandler)))
	s.patience = 6 * time.Second

	far := []netip.Addr{netip.MustParseAddr("10.2.0.9"), netip.MustParseAddr("10.3.0.9"), netip.MustParseAddr("fd00:2::9")}
	for _, a := range far {
		if routed(a) {
			t.Fatalf("%s is routed without a client", a)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	defer stop()
	until := func(what string, ok func() bool) {
		t.Helper()
		for late := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
			select {
			case err := <-ended:
				t.Fatalf("%s: the client has ended: %v", what, err)
			default:
			}
			if time.Now().After(late) {
				t.Fatalf("not in time: %s", what)
			}
		}
	}
	for _, a := range far {
		until("a route to "+a.String(), func() bool { return routed(a) })
	}
	leaks := make(chan string, 1)
	watch, unwatch := context.WithCancel(t.Context())
	go func() {
		defer close(leaks)
		for watch.Err() == nil {
			for _, a := range far {
				if !routed(a) {
					leaks <- fmt.Sprintf("%s, in session %d", a, f.session())
					return
				}
			}
		}
	}()
	has := func(a netip.Addr) bool {
		as, err := net.InterfaceAddrs()
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range as {
			if strings.HasPrefix(x.String(), a.String()+"/") {
				return true
			}
		}
		return false
	}
	for n := 2; n <= 3; n++ {
		before, now := f.addresses[n-2], f.addresses[n-1]
		until("a watch", func() bool { return f.watched(n-1) && has(before) })
		f.forget()
		until(fmt.Sprintf("session %d", n), func() bool { return f.watched(n) && has(now) && !has(before) })
	}
	unwatch()
	if leak, leaked := <-leaks; leaked {
		t.Errorf("left in the clear: what is for %s", leak)
	}
	select {
	case err := <-ended:
		if !errors.Is(err, ErrNoMap) {
			t.Errorf("ended by %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it goes on without a map")
	}
	for _, a := range far {
		if routed(a) {
			t.Errorf("%s is routed after the client has ended", a)
		}
	}
}

// session is which one there is.
func (f *fickle) session() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.logins
}

// A router in front has so long to say which sites there are; then the client ends, unless it knows them by then.
func TestNoMapIsTheEnd(t *testing.T) {
	for name, told := range map[string]bool{"told": true, "not told": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, stop := context.WithCancelCause(t.Context())
				defer stop(nil)
				r := &run{s: &Station{patience: mapTime}, stop: stop}
				go r.awaitMap(ctx)
				time.Sleep(mapTime - time.Second)
				if told {
					r.maps.Lock()
					r.around = &surroundings{}
					r.maps.Unlock()
				}
				if synctest.Wait(); ctx.Err() != nil {
					t.Fatal("too early")
				}
				time.Sleep(2 * time.Second)
				if synctest.Wait(); errors.Is(context.Cause(ctx), ErrNoMap) == told {
					t.Errorf("ended by %v", context.Cause(ctx))
				}
			})
		})
	}
}

// What calls carry has a second route into the interface, without a source, for when the kernel takes away the first with the address.
func TestRoutesOutlastTheAddress(t *testing.T) {
	got := fmt.Sprint(routes(prefixes("10.2.0.0/24", "fd00:2::/48"), prefixes("10.2.0.0/24", "10.3.0.0/24"), netip.MustParseAddr("10.1.1.3")))
	want := fmt.Sprintf("[10.2.0.0/24 src 10.1.1.3 10.2.0.0/24 metric %[1]d fd00:2::/48 fd00:2::/48 metric %[1]d 10.3.0.0/24 metric %[1]d]", lastResort)
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
