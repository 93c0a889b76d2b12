package voluntary

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"twinkey/directory/client"
	"twinkey/pkg/limit"
	"twinkey/pkg/strictjson"
	"twinkey/pkg/twincert"
	"twinkey/proto/handshake"
	"twinkey/proto/secret"
	"twinkey/router/internal/engine"
	"twinkey/router/internal/native"
	"twinkey/router/internal/policy"
)

func codeOf(err error) Code {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return ""
}

// From the fingerprint to the logout.
func TestSession(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	w.Sites([]client.Site{{Name: "rb", Endpoint: "198.51.100.2:1701", ID: twincert.ID{Issuer: "00", Serial: "2"}}})
	w.CRL([]byte("a CRL"))
	gone := twincert.ID{Issuer: "00", Serial: "7"}
	w.Revoked(gone)
	root, err := FetchRoot(ctx, w.at, netip.Addr{}, strings.ToUpper(fingerprint(w.ca.cert)))
	if err != nil || !root.Equal(w.ca.cert) {
		t.Fatalf("root %v, %v", root, err)
	}
	c := NewClient(w.at, netip.Addr{}, root)
	defer c.Close()
	if p, err := c.Params(ctx, "alice"); err != nil || !reflect.DeepEqual(p, ParamsAnswer{Params: w.params}) {
		t.Fatalf("params %+v, %v", p, err)
	}
	adm, err := c.Login(ctx, "alice", proofOf("alice"))
	if err != nil {
		t.Fatal(err)
	}
	alice := w.users["alice"]
	if adm.Router != "ra" || !bytes.Equal(adm.Certificate, alice.Raw) || string(adm.Sealed) != "sealed keys of alice" ||
		adm.Address != netip.MustParseAddr("127.0.0.1") || !adm.Until.Equal(alice.NotAfter) {
		t.Fatalf("admission %+v", adm)
	}
	words, ended := watching(t, c, adm.Token)
	first := heard(t, words, "what there is", func(Word) bool { return true })
	if first.Sites == nil || len(*first.Sites) != 1 || (*first.Sites)[0].Name != "rb" || string(first.CRL) != "a CRL" || len(first.Revoked) != 1 || first.Revoked[0] != gone || first.Heard < 0 {
		t.Errorf("first word %+v", first)
	}
	if r := first.Rules; r == nil || len(*r) != 1 || (*r)[0].Groups[0] != "staff" || len((*r)[0].Groups) != 1 || len((*r)[0].To) != 1 {
		t.Errorf("rules %+v: what other groups there are is not alice's to know", r)
	}
	other := twincert.ID{Issuer: "00", Serial: "8"}
	w.Revoked(other, gone)
	if n := heard(t, words, "a revocation", func(w Word) bool { return len(w.Revoked) > 0 }); len(n.Revoked) != 1 || n.Revoked[0] != other || n.Sites != nil || n.CRL != nil || n.Rules != nil {
		t.Errorf("more than what changed: %+v", n)
	}

	// What is signed is for this handshake, her control key and certificate, this address, and a while.
	hash := [32]byte{1, 2, 3}
	v, good, err := c.Sign(ctx, adm.Token, hash)
	if err != nil {
		t.Fatal(err)
	}
	h, err := native.ParseHeld(v.Bound)
	if left := time.Until(h.Until); err != nil || h.Address != adm.Address || left > vouch || left < vouch-time.Minute || good != vouch {
		t.Errorf("held to %+v, %v", h, err)
	}
	key := must(x509.ParseCertificate(v.Router)).PublicKey.(*ecdsa.PublicKey)
	isGood := func(s handshake.Statement) bool {
		d := s.Digest()
		return twincert.VerifyLowS(key, d[:], v.Signature)
	}
	s := handshake.Statement{Hash: hash, Control: alice.Keys.Control, Certificate: alice.Raw, Bound: v.Bound}
	if !isGood(s) {
		t.Error("the signature is not over the statement")
	}
	for what, s := range map[string]handshake.Statement{
		"unbound":           {Hash: hash, Control: alice.Keys.Control},
		"bob's certificate": {Hash: hash, Control: alice.Keys.Control, Certificate: w.users["bob"].Raw, Bound: v.Bound},
		"bob's key":         {Hash: hash, Control: w.users["bob"].Keys.Control, Certificate: alice.Raw, Bound: v.Bound},
	} {
		if isGood(s) {
			t.Errorf("the signature is good for another statement: %s", what)
		}
	}
	if twincert.VerifyLowS(key, hash[:], v.Signature) {
		t.Error("the router has signed what it was handed")
	}

	if err := c.Logout(ctx, adm.Token); err != nil {
		t.Fatal(err)
	}
	if last := heard(t, words, "the end", func(w Word) bool { return w.Ended != "" }); last.Ended != "logged out" {
		t.Errorf("ended: %q", last.Ended)
	}
	if err := <-ended; err != nil {
		t.Errorf("after its last word: %v", err)
	}
	if len(w.guests) != 0 || len(w.left) != 1 || w.left[0] != "logged out" {
		t.Errorf("guests %v, left %v", w.guests, w.left)
	}
}

// What a token is good for, and what it is not.
func TestTokens(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	c, adm := w.login("alice", 1)
	other, bobs := w.login("bob", 2)
	over, old := w.login("bob", 3)
	if err := over.Logout(ctx, old.Token); err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(adm.Token)
	flipped[31] ^= 1
	var hash [32]byte
	for name, tt := range map[string]struct {
		c     *Client
		token []byte
		want  Code
	}{
		"hers":                          {c, adm.Token, ""},
		"bob's, from his":               {other, bobs.Token, ""},
		"none":                          {c, nil, CodeToken},
		"of no session":                 {c, make([]byte, tokenLen), CodeToken},
		"one bit else":                  {c, flipped, CodeToken},
		"too short":                     {c, adm.Token[:31], CodeToken},
		"bob's, from her address":       {c, bobs.Token, CodeToken},
		"hers, from bob's address":      {other, adm.Token, CodeToken},
		"of a session that is over":     {over, old.Token, CodeToken},
		"the same, from where alice is": {c, old.Token, CodeToken},
	} {
		if _, _, err := tt.c.Sign(ctx, tt.token, hash); codeOf(err) != tt.want {
			t.Errorf("%s: sign: %v", name, err)
		}
		if tt.want == "" {
			continue
		}
		if err := tt.c.Logout(ctx, tt.token); codeOf(err) != tt.want {
			t.Errorf("%s: logout: %v", name, err)
		}
		for _, err := range tt.c.Watch(ctx, tt.token) {
			if codeOf(err) != tt.want {
				t.Errorf("%s: watch: %v", name, err)
			}
		}
	}
}

// Requests as they come over the wire.
func TestBadRequests(t *testing.T) {
	w := newWorld(t)
	c, adm := w.login("alice", 1)
	long := strings.Repeat("A", maxRequest)
	for name, tt := range map[string]struct {
		method, path, body string
		want               Code
	}{
		"hash too short":     {"POST", pathSign, `{"hash":"AAAA"}`, CodeInvalid},
		"hash too long":      {"POST", pathSign, `{"hash":"` + strings.Repeat("AAAA", 12) + `"}`, CodeInvalid},
		"no hash":            {"POST", pathSign, `{}`, CodeInvalid},
		"a digest beside it": {"POST", pathSign, `{"hash":"AAAA","digest":"AAAA"}`, CodeInvalid},
		"a user beside it":   {"POST", pathSign, `{"hash":"AAAA","user":"bob"}`, CodeInvalid},
		"no JSON":            {"POST", pathSign, `hello`, CodeInvalid},
		"something follows":  {"POST", pathParams, `{"user":"alice"} {}`, CodeInvalid},
		"too long":           {"POST", pathLogin, `{"user":"` + long + `"}`, CodeInvalid},
		"no UserID":          {"POST", pathParams, `{"user":"Alice Smith"}`, CodeInvalid},
		"another method":     {"GET", pathSign, ``, CodeInvalid},
		"nothing there":      {"GET", "/v1/", ``, CodeInvalid},
		"an address with it": {"POST", pathLogin, `{"user":"alice","auth":"AAAA","address":"10.1.1.9"}`, CodeInvalid},
	} {
		req := must(http.NewRequestWithContext(t.Context(), tt.method, "https://"+w.at+tt.path, strings.NewReader(tt.body)))
		req.Header.Set("Authorization", bearer(adm.Token))
		res, err := c.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var r refusal
		err = json.NewDecoder(res.Body).Decode(&r)
		_ = res.Body.Close()
		if err != nil || r.Code != tt.want || res.StatusCode == http.StatusOK {
			t.Errorf("%s: %s %+v, %v", name, res.Status, r, err)
		}
	}
}

// What a person is told who cannot log in.
func TestLoginRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		set      func(w *world)
		uid      string
		auth     secret.Key
		want     Code
		released int
	}{
		"wrong password":         {nil, "alice", proofOf("bob"), CodeDenied, 1},
		"unknown user":           {nil, "nobody", proofOf("nobody"), CodeDenied, 1},
		"an empty proof":         {nil, "alice", secret.New(nil), CodeDenied, 1},
		"locked":                 {func(w *world) { w.code = client.CodeLocked }, "alice", proofOf("alice"), CodeLocked, 1},
		"directory busy":         {func(w *world) { w.code = client.CodeTooMany }, "alice", proofOf("alice"), CodeBusy, 1},
		"directory away":         {func(w *world) { w.code = client.CodeUnavailable }, "alice", proofOf("alice"), CodeUnavailable, 1},
		"from a foreign address": {func(w *world) { w.vacant = engine.ErrNotOurs }, "alice", proofOf("alice"), CodeAddress, 0},
		"from a site's address":  {func(w *world) { w.vacant = engine.ErrBridged }, "alice", proofOf("alice"), CodeAddress, 0},
		"where a user is":        {func(w *world) { w.vacant = engine.ErrBusy }, "alice", proofOf("alice"), CodeTaken, 0},
		"the policy":             {func(w *world) { w.welcome = policy.ErrDenied }, "alice", proofOf("alice"), CodePolicy, 1},
		"another's keys":         {func(w *world) { w.users["alice"] = w.users["bob"] }, "alice", proofOf("alice"), CodeUnavailable, 1},
		"keys of another CA":     {func(w *world) { w.users["alice"] = newAuthority("other", nil).user("alice") }, "alice", proofOf("alice"), CodeUnavailable, 1},
		"keys that are revoked":  {func(w *world) { w.trust.Revoke(w.users["alice"].ID()) }, "alice", proofOf("alice"), CodeUnavailable, 1},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			if tt.set != nil {
				tt.set(w)
			}
			_, err := w.client(1).Login(t.Context(), tt.uid, tt.auth)
			if codeOf(err) != tt.want || w.released != tt.released {
				t.Errorf("%v, asked the directory %d times", err, w.released)
			}
			if e, _ := errors.AsType[*Error](err); tt.want == CodeLocked && e.RetryAfter != time.Minute {
				t.Errorf("again in %s", e.RetryAfter)
			}
			if len(w.guests) != 0 || len(w.desk.all()) != 0 {
				t.Error("there is a session")
			}
		})
	}
	// From elsewhere nobody has the directory asked anything.
	far := newWorld(t)
	far.vacant = engine.ErrNotOurs
	if _, err := far.client(1).Params(t.Context(), "alice"); codeOf(err) != CodeAddress {
		t.Errorf("parameters, from a foreign address: %v", err)
	}
	// Whether there is such a user, and whether a source may know them, nobody is told.
	w := newWorld(t)
	w.sources = true
	for _, uid := range []string{"alice", "nobody"} {
		if p, err := w.client(3).Params(t.Context(), uid); err != nil || !reflect.DeepEqual(p, ParamsAnswer{Params: w.params}) {
			t.Errorf("parameters of %s: %+v, %v", uid, p, err)
		}
	}
	_, wrong := w.client(1).Login(t.Context(), "alice", proofOf("bob"))
	_, unknown := w.client(2).Login(t.Context(), "nobody", proofOf("bob"))
	if wrong.Error() != unknown.Error() || strings.Contains(wrong.Error(), "alice") {
		t.Errorf("%q and %q", wrong, unknown)
	}
}

// Tries are counted by address before the directory is asked, whatever comes of them.
func TestTriesAreLimited(t *testing.T) {
	w := newWorld(t)
	c := w.client(1)
	var err error
	for range triesBurst {
		if _, err = c.Login(t.Context(), "alice", proofOf("bob")); codeOf(err) != CodeDenied {
			t.Fatal(err)
		}
	}
	_, err = c.Login(t.Context(), "alice", proofOf("alice"))
	e, _ := errors.AsType[*Error](err)
	if codeOf(err) != CodeBusy || e.RetryAfter <= 0 || w.released != triesBurst {
		t.Errorf("%v, asked the directory %d times", err, w.released)
	}
	if _, err := c.Params(t.Context(), "alice"); codeOf(err) != CodeBusy {
		t.Errorf("questions are not counted: %v", err)
	}
	if _, err := w.client(2).Login(t.Context(), "alice", proofOf("alice")); err != nil {
		t.Errorf("from elsewhere: %v", err)
	}
}

func TestLimiter(t *testing.T) {
	l, now := newLimiter(), time.Unix(1_000_000, 0)
	a := func(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}) }
	for range triesInAllBurst {
		if d := l.wait(a(int(l.all.TokensAt(now))), now); d != 0 {
			t.Fatalf("waits %s", d)
		}
	}
	if d := l.wait(a(70_000), now); d <= 0 || d > time.Second {
		t.Errorf("beyond all that may be: waits %s", d)
	}
	// Neighbours in an IPv6 network count by themselves, as on a LAN they are all; but they leave some to the others.
	now = now.Add(time.Hour)
	host := func(n int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", n+1)) }
	for range 2 * triesBurst {
		l.wait(host(0), now)
	}
	if l.wait(host(0), now) == 0 || l.wait(host(1), now) > 0 {
		t.Error("one host has used up what its neighbour may")
	}
	for n := range 2 * triesInAllBurst {
		l.wait(host(n), now)
	}
	if l.wait(host(1000), now) == 0 || l.wait(a(80_000), now) > 0 {
		t.Error("one host with many addresses has used up what the others may")
	}
}

// Wrong passwords are counted with the router's others: what fails here cannot lock it at the directory.
func TestGuessesAreLimited(t *testing.T) {
	w := newWorld(t)
	few := func(n int) limit.Bucket { return limit.Bucket{Rate: rate.Every(time.Hour), Burst: n} }
	w.wrongs.All, w.wrongs.Known = few(3), few(1)
	w.c.Guesses = limit.NewFailures(w.wrongs)
	w.login("bob", 2)
	for _, code := range []string{client.CodeInvalid, client.CodeUnavailable, client.CodeLocked, client.CodeTooMany} {
		w.code = code
		if _, err := w.client(3).Login(t.Context(), "alice", proofOf("bob")); err == nil {
			t.Fatal("let in")
		}
	}
	w.code = ""
	other, _ := w.c.Guesses.Begin(netip.MustParseAddr("10.1.1.1"), time.Now()) // the portal's
	other.Fail(time.Now())
	// One that hangs up is a guess, too.
	ctx, hangUp := context.WithCancel(t.Context())
	body := must(json.Marshal(LoginRequest{User: "alice", Auth: proofOf("bob").Bytes()}))
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, pathLogin, bytes.NewReader(body))
	w.during = hangUp
	if _, err := w.Server.login(&request{w: httptest.NewRecorder(), http: r, from: netip.MustParseAddr("127.0.0.4")}); codeOf(err) != CodeUnavailable {
		t.Error(err)
	}
	w.during = nil
	if _, err := w.client(5).Login(t.Context(), "alice", proofOf("bob")); codeOf(err) != CodeDenied {
		t.Error(err)
	}
	asked := w.released
	_, err := w.client(6).Login(t.Context(), "alice", proofOf("bob"))
	if e, _ := errors.AsType[*Error](err); codeOf(err) != CodeBusy || e.RetryAfter <= 0 || w.released != asked {
		t.Errorf("%v, asked the directory %d times more", err, w.released-asked)
	}
	if _, err := w.client(2).Login(t.Context(), "bob", proofOf("bob")); err != nil {
		t.Errorf("from where bob has logged in before: %v", err)
	}
}

// A client that hangs up right after its logout has left all the same.
func TestLeavingOutlivesTheRequest(t *testing.T) {
	w := newWorld(t)
	_, adm := w.login("alice", 1)
	ctx, hangUp := context.WithCancel(t.Context())
	hangUp()
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, pathLogout, nil)
	r.Header.Set("Authorization", bearer(adm.Token))
	if _, err := w.logout(&request{http: r, from: netip.MustParseAddr("127.0.0.1")}); err != nil || len(w.guests) != 0 {
		t.Errorf("%v, %d guests are left", err, len(w.guests))
	}
}

func TestSigningIsLimited(t *testing.T) {
	w := newWorld(t)
	c, adm := w.login("alice", 1)
	for i := range signsBurst {
		if _, _, err := c.Sign(t.Context(), adm.Token, [32]byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	for range 8 { // a few may have been earned meanwhile
		if _, _, err = c.Sign(t.Context(), adm.Token, [32]byte{}); err != nil {
			break
		}
	}
	if codeOf(err) != CodeBusy {
		t.Errorf("err = %v", err)
	}
	other, bobs := w.login("bob", 2)
	if _, _, err := other.Sign(t.Context(), bobs.Token, [32]byte{}); err != nil {
		t.Errorf("another session: %v", err)
	}
}

// Who may not place calls at the router gets none vouched for.
func TestNothingIsSignedWithoutNewsOfRevocations(t *testing.T) {
	w := newWorld(t)
	c, adm := w.login("alice", 1)
	w.trust.Heard(time.Now().Add(-2 * time.Hour))
	if _, _, err := c.Sign(t.Context(), adm.Token, [32]byte{}); codeOf(err) != CodeUnavailable {
		t.Errorf("err = %v", err)
	}
}

// One client for each address: one that is there is not displaced, one that has gone is by its user.
func TestOneClientForEachAddress(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	c, adm := w.login("alice", 1)
	words, _ := watching(t, c, adm.Token)
	heard(t, words, "anything", func(Word) bool { return true })
	for _, uid := range []string{"bob", "alice"} {
		if _, err := w.client(1).Login(ctx, uid, proofOf(uid)); codeOf(err) != CodeTaken {
			t.Errorf("%s, from where alice is: %v", uid, err)
		}
	}
	if _, err := w.client(1).Params(ctx, "bob"); codeOf(err) != CodeTaken {
		t.Errorf("bob is asked for a password first: %v", err)
	}
	if w.released != 1 {
		t.Error("a try at a password was spent on it")
	}
	c2, bobs := w.login("bob", 2) // he never watches: as good as gone
	if _, err := w.client(2).Login(ctx, "alice", proofOf("alice")); codeOf(err) != CodeTaken {
		t.Errorf("alice, in the place of bob: %v", err)
	}
	next, err := w.client(2).Login(ctx, "bob", proofOf("bob"))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := c2.Sign(ctx, bobs.Token, [32]byte{}); codeOf(err) != CodeToken {
		t.Errorf("the session that was replaced: %v", err)
	}
	if _, _, err := c2.Sign(ctx, next.Token, [32]byte{}); err != nil {
		t.Error(err)
	}
}

// A watch that a client has lost gives way to the next one; the session stays.
func TestWatchAgain(t *testing.T) {
	w := newWorld(t)
	c, adm := w.login("alice", 1)
	first, ended := watching(t, c, adm.Token)
	heard(t, first, "anything", func(Word) bool { return true })
	second, _ := watching(t, c, adm.Token)
	heard(t, second, "all of it anew", func(w Word) bool { return w.Rules != nil })
	select {
	case err := <-ended:
		if err == nil {
			t.Error("the first watch ended as if the session had")
		}
	case <-time.After(5 * time.Second):
		t.Error("the first watch is still there")
	}
	if _, _, err := c.Sign(t.Context(), adm.Token, [32]byte{}); err != nil {
		t.Error(err)
	}
}

// The end of a session by others than its client.
func TestSessionsEnd(t *testing.T) {
	t.Run("by the router", func(t *testing.T) {
		w := newWorld(t)
		c, adm := w.login("alice", 1)
		words, _ := watching(t, c, adm.Token)
		heard(t, words, "anything", func(Word) bool { return true })
		w.mu.Lock()
		g := w.guests[adm.Address]
		w.mu.Unlock()
		g.Dismissed("certificate revoked")
		if last := heard(t, words, "the end", func(w Word) bool { return w.Ended != "" }); last.Ended != "certificate revoked" {
			t.Errorf("ended: %q", last.Ended)
		}
		if _, _, err := c.Sign(t.Context(), adm.Token, [32]byte{}); codeOf(err) != CodeToken {
			t.Errorf("the token is still good: %v", err)
		}
	})
	t.Run("by the policy's time", func(t *testing.T) {
		w := newWorld(t)
		w.terms.Session = 1500 * time.Millisecond
		c, adm := w.login("alice", 1)
		v, good, err := c.Sign(t.Context(), adm.Token, [32]byte{})
		if err != nil {
			t.Fatal(err)
		}
		if h := must(native.ParseHeld(v.Bound)); h.Until.After(adm.Until) || good != 0 {
			t.Errorf("vouched for until %s, the session ends at %s", h.Until, adm.Until)
		}
		words, _ := watching(t, c, adm.Token)
		if last := heard(t, words, "the end", func(w Word) bool { return w.Ended != "" }); last.Ended != "its time is over" {
			t.Errorf("ended: %q", last.Ended)
		}
	})
}

// A client speaks to a router of the company, and to nobody else.
func TestClientBelievesARouterOfTheCompany(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	stranger := newAuthority("stranger", nil)
	for name, box := range map[string]tls.Certificate{
		"of another company": stranger.box("twinkey://router/ra"),
		"the directory":      w.ca.box("twinkey://directory"),
		"nobody":             w.ca.box("https://ra.example"),
	} {
		at := serve(t, w.Server, box)
		c := NewClient(at, netip.Addr{}, w.ca.cert)
		if _, err := c.Login(ctx, "alice", proofOf("alice")); codeOf(err) != CodeRouter {
			t.Errorf("%s: %v", name, err)
		}
		c.Close()
	}
	if w.released != 0 {
		t.Error("a proof was shown to one of them")
	}
	if _, err := FetchRoot(ctx, w.at, netip.Addr{}, fingerprint(stranger.cert)); codeOf(err) != CodeRouter {
		t.Errorf("a root of another fingerprint: %v", err)
	}
	for _, f := range []string{"", "5f3a", strings.Repeat("x", 64)} {
		if _, err := FetchRoot(ctx, "127.0.0.1:1", netip.Addr{}, f); codeOf(err) != CodeInvalid {
			t.Errorf("fingerprint %q: %v", f, err)
		}
	}
	if _, err := w.client(1).Params(ctx, "alice"); err != nil {
		t.Error(err)
	}
	gone := NewClient("127.0.0.1:1", netip.Addr{}, w.ca.cert)
	if _, err := gone.Params(ctx, "alice"); codeOf(err) != CodeUnavailable {
		t.Errorf("nobody there: %v", err)
	}
}

// A router that shows an intermediate of its own making forges nothing with it.
func TestIntermediates(t *testing.T) {
	root := newAuthority("root", nil)
	inter := newAuthority("intermediate", root)
	below := newAuthority("below", inter)
	forged := newAuthority("intermediate", newAuthority("root", nil))
	leaf := must(x509.ParseCertificate(root.box("twinkey://router/ra").Certificate[0]))
	got := Intermediates(root.cert, []*x509.Certificate{forged.cert, inter.cert, leaf, below.cert}, time.Now())
	if len(got) != 2 || !got[0].Equal(inter.cert) || !got[1].Equal(below.cert) {
		t.Errorf("believed: %d", len(got))
	}
	if got := Intermediates(root.cert, []*x509.Certificate{inter.cert}, time.Now().Add(2*time.Hour)); len(got) != 0 {
		t.Error("an expired one is believed")
	}
}

// What a lying or broken router answers is an error, and bounded.
func TestNonsense(t *testing.T) {
	w := newWorld(t)
	for name, h := range map[string]http.HandlerFunc{
		"a page":  func(out http.ResponseWriter, _ *http.Request) { http.Error(out, "<html>", http.StatusBadGateway) },
		"no JSON": func(out http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(out, "hello") },
		"a redirect": func(out http.ResponseWriter, r *http.Request) {
			http.Redirect(out, r, "https://elsewhere/", http.StatusFound)
		},
		"no token": func(out http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(out, `{"address":"10.1.1.3"}`) },
		"without end": func(out http.ResponseWriter, _ *http.Request) {
			_, _ = out.Write(bytes.Repeat([]byte(" "), maxAnswer+2))
		},
	} {
		l := must(net.Listen("tcp", "127.0.0.1:0"))
		srv := &http.Server{Handler: h, ReadHeaderTimeout: time.Second}
		go func() {
			_ = srv.Serve(tls.NewListener(l, &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{w.box}}))
		}()
		c := NewClient(l.Addr().String(), netip.Addr{}, w.ca.cert)
		if _, err := c.Login(t.Context(), "alice", proofOf("alice")); codeOf(err) != CodeUnavailable && codeOf(err) != CodeRouter {
			t.Errorf("%s: %v", name, err)
		}
		for _, err := range c.Watch(t.Context(), make([]byte, tokenLen)) {
			if err != nil {
				break
			}
		}
		c.Close()
		_ = srv.Close()
	}
}

// A router that says nothing is given up.
func TestWatchEndsWithItsContext(t *testing.T) {
	w := newWorld(t)
	c, adm := w.login("alice", 1)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	var last error
	for _, err := range c.Watch(ctx, adm.Token) {
		last = err
	}
	if !errors.Is(last, context.DeadlineExceeded) {
		t.Errorf("ended by %v", last)
	}
}

// Whoever opens connections and says nothing has a limited number of them.
func TestConnectionsAreLimited(t *testing.T) {
	w := newWorld(t)
	var conns []net.Conn
	for range maxConnsOfAddr + 4 {
		conns = append(conns, must(net.Dial("tcp", w.at)))
	}
	// All at once: the others are closed, too, when nothing is heard of them for headerTimeout.
	var closed atomic.Int32
	var wg sync.WaitGroup
	deadline := time.Now().Add(headerTimeout / 5)
	for _, c := range conns {
		_ = c.SetReadDeadline(deadline)
		wg.Go(func() {
			if _, err := c.Read(make([]byte, 1)); errors.Is(err, io.EOF) || err != nil && strings.Contains(err.Error(), "reset") {
				closed.Add(1)
			}
		})
	}
	wg.Wait()
	if closed.Load() != 4 {
		t.Errorf("%d connections were closed, want 4", closed.Load())
	}
	if n := w.Refused.Load(); n != 4 {
		t.Errorf("%d are counted, want 4", n)
	}
	if _, err := w.client(2).Params(t.Context(), "alice"); err != nil {
		t.Errorf("from elsewhere: %v", err)
	}
	for _, c := range conns {
		_ = c.Close()
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"user":"alice","auth":"AAAA"}`))
	f.Add([]byte(`{"user":"alice","auth":"AAAA"} x`))
	f.Add([]byte(`{"hash":"AAAA"}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		var l LoginRequest
		if err := strictjson.Decode(in, &l); err != nil {
			return
		}
		var again LoginRequest
		if err := strictjson.Decode(must(json.Marshal(l)), &again); err != nil || again.User != l.User || !bytes.Equal(again.Auth, l.Auth) {
			t.Fatalf("%+v came back as %+v, %v", l, again, err)
		}
	})
}

func FuzzParseWord(f *testing.F) {
	f.Add([]byte(`{"heard_ms":12,"sites":[{"name":"rb","id":"2@00"}],"rules":[{"groups":["staff"],"allow":["tcp/22"]}],"revoked":["7@00"]}`))
	f.Add([]byte(`{"heard_ms":-1,"ended":"logged out"}`))
	f.Add([]byte(`{"heard_ms":-1,"something":"new"}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		w, err := parseWord(in)
		if err != nil || w.Sites != nil && slices.ContainsFunc(*w.Sites, func(s client.Site) bool { return s.ID.IsZero() }) {
			return // a site without an ID is one that no directory writes
		}
		once := must(json.Marshal(w))
		again, err := parseWord(once)
		if err != nil {
			t.Fatalf("%s: %v", once, err)
		}
		if twice := must(json.Marshal(again)); !bytes.Equal(once, twice) {
			t.Fatalf("%s came back as %s", once, twice)
		}
	})
}

func FuzzParseToken(f *testing.F) {
	f.Add(bearer(bytes.Repeat([]byte{7}, tokenLen)))
	f.Add("Bearer ")
	f.Add("Bearer " + strings.Repeat("\r", 15) + strings.Repeat("0", 28))
	f.Add("Basic " + strings.Repeat("A", 43))
	f.Fuzz(func(t *testing.T, in string) {
		if token, ok := parseToken(in); ok && (len(token) != tokenLen || bearer(token) != in) {
			t.Fatalf("%q became %x", in, token)
		}
	})
}
