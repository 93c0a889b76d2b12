package voluntary

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"

	ca "twinkey/ca/client"
	"twinkey/directory/client"
	"twinkey/pkg/keybundle"
	"twinkey/pkg/limit"
	"twinkey/pkg/sealedlogin"
	"twinkey/pkg/strictjson"
	"twinkey/proto/secret"
)

// corp is a CA with a source that knows carol and dave, and whose login keys tests change.
type corp struct {
	w        *world
	accounts map[string]string // passwords
	session  time.Duration
	unsaid   bool // the directory does not say yet that the CA is to be asked

	mu      sync.Mutex
	private *ecdh.PrivateKey            // of the login key
	away    error                       // what asking for a login key fails with
	says    error                       // what a login fails with, whatever is sealed
	params  map[string]keybundle.Params // under which keys are sealed: of those who have some
	vouched map[string]bool
	asked   []string // UID and password
	fetched int
	held    []error
}

// sourced gives a world a CA with sources.
func sourced(w *world, c *Config) {
	w.corp = &corp{w: w, accounts: map[string]string{"carol": "spring of carol", "dave": "spring of dave"}, params: map[string]keybundle.Params{}, vouched: map[string]bool{}}
	w.corp.renew()
	for uid := range w.corp.accounts {
		w.users[uid] = w.ca.user(uid)
	}
	c.LoginKey, c.Ask = w.corp.statement, w.corp.ask
	c.Hold = func(_ context.Context, _ time.Time, err error) {
		w.corp.mu.Lock()
		defer w.corp.mu.Unlock()
		if errors.Is(err, client.ErrDenied) {
			w.corp.held = append(w.corp.held, err)
		}
	}
}

// renew makes another login key, and forgets the one before, as a CA that is restarted does.
func (c *corp) renew() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.private = must(ecdh.X25519().GenerateKey(rand.Reader))
}

func (c *corp) statement(context.Context) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fetched++
	if c.away != nil {
		return nil, c.away
	}
	s := must(sealedlogin.Sign(sealedlogin.Key(c.private.PublicKey().Bytes()), time.Now().Add(20*time.Minute), c.w.ca.box("twinkey://ca")))
	return must(s.Bytes()), nil
}

// sealedUnder is how the password of uid is stretched once they have keys.
func sealedUnder(uid string) keybundle.Params {
	return keybundle.Params{Salt: []byte(fmt.Sprintf("%-16s", "salt of "+uid)), Time: 1, MemoryKiB: 8 << 10, Threads: 1}
}

func (c *corp) ask(_ context.Context, uid string, sealed []byte) (ca.Admission, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	refused := func(code string) (ca.Admission, error) {
		return ca.Admission{}, &ca.Error{Op: "asking", Code: code, RetryAfter: time.Minute, Message: "wifi"}
	}
	if c.says != nil {
		return ca.Admission{}, c.says
	}
	e, _ := sealedlogin.ParseEnvelope(sealed)
	if !bytes.Equal(e.To[:], c.private.PublicKey().Bytes()) {
		return refused(ca.CodeLoginKey)
	}
	password, _, err := sealedlogin.Open(secret.Copy(c.private.Bytes()), "ra", uid, sealed)
	c.asked = append(c.asked, uid+" "+string(password))
	if err != nil || c.accounts[uid] == "" || string(password) != c.accounts[uid] {
		return refused(ca.CodeDenied)
	}
	c.params[uid], c.vouched[uid] = sealedUnder(uid), true
	return ca.Admission{Params: c.params[uid], SessionMS: c.session.Milliseconds(), Confirm: []byte("the word about " + uid)}, nil
}

// loginParams is the directory's.
func (c *corp) loginParams(uid string, fake keybundle.Params, known bool) client.LoginParams {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p, ok := c.params[uid]; ok {
		return client.LoginParams{Params: p, AskCA: !c.unsaid}
	}
	return client.LoginParams{Params: fake, AskCA: !known || c.accounts[uid] != ""}
}

// sourceProof is what proves a password under the parameters that there are.
func sourceProof(uid, password string, p keybundle.Params) secret.Key {
	return secret.New([]byte(fmt.Sprintf("%s under %s", password, p.Salt)))
}

func (c *corp) release(uid string, auth secret.Key, refused func(string) (client.Release, error)) (client.Release, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	right := subtle.ConstantTimeCompare(auth.Bytes(), sourceProof(uid, c.accounts[uid], sealedUnder(uid)).Bytes()) == 1
	if _, has := c.params[uid]; !has || !right || !c.vouched[uid] {
		return refused(client.CodeDenied)
	}
	return client.Release{Certificate: c.w.users[uid].Raw, Sealed: []byte("sealed keys of " + uid), Source: true}, nil
}

// seal is what a machine sends.
func (c *corp) seal(t *testing.T, uid, password string) []byte {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	return sealedTo(c.private, uid, password)
}

func sealedTo(k *ecdh.PrivateKey, uid, password string) []byte {
	b, _, err := sealedlogin.Seal(sealedlogin.Key(k.PublicKey().Bytes()), "ra", uid, []byte(password))
	return must(b, err)
}

// asks is Ask, in parts.
func asks(t *testing.T, c *Client, uid string, auth secret.Key, sealed []byte) (adm Admission, again *keybundle.Params, err error) {
	t.Helper()
	out, err := c.Ask(t.Context(), uid, auth, sealed)
	if out.Admission != nil {
		adm = *out.Admission
	}
	if (out.Params != nil) != (out.Confirm != nil) {
		t.Errorf("parameters %+v, word %q", out.Params, out.Confirm)
	}
	return adm, out.Params, err
}

// known has the router hand out the login key.
func (c *corp) known(t *testing.T) {
	t.Helper()
	must(c.w.client(9).Params(t.Context(), "nobody"))
}

// The first login of a source's user: the CA has their keys sealed, and another proof is wanted; the next one has the keys at once. Both
// last as long as the source says.
func TestUserOfASource(t *testing.T) {
	w := newWorld(t, sourced)
	w.corp.session = 30 * time.Minute
	c := w.client(1)
	p, err := c.Params(t.Context(), "carol")
	if err != nil || !p.Ask || !reflect.DeepEqual(p.Params, w.params) {
		t.Fatalf("%+v, %v", p, err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(w.ca.cert)
	if err := must(sealedlogin.ParseStatement(p.LoginKey)).Verify(roots, time.Now()); err != nil || c.Router() != "ra" {
		t.Fatalf("the CA's word, at router %q: %v", c.Router(), err)
	}
	began := time.Now()
	adm, again, err := asks(t, c, "carol", sourceProof("carol", "spring of carol", p.Params), w.corp.seal(t, "carol", "spring of carol"))
	if err != nil || again == nil || !again.Equal(sealedUnder("carol")) || adm.Token != nil || len(w.guests) != 0 {
		t.Fatalf("%+v, again %+v, %v", adm, again, err)
	}
	proof := sourceProof("carol", "spring of carol", *again)
	adm, err = c.Login(t.Context(), "carol", proof)
	if err != nil || !adm.Source || adm.Until.Before(began.Add(30*time.Minute)) || adm.Until.After(time.Now().Add(30*time.Minute)) {
		t.Fatalf("%+v, %v", adm, err)
	}
	if err := c.Logout(t.Context(), adm.Token); err != nil {
		t.Fatal(err)
	}
	w.terms.Session = 10 * time.Minute // the policy's, which is less
	if adm, again, err = asks(t, c, "carol", proof, w.corp.seal(t, "carol", "spring of carol")); err != nil || again != nil || !adm.Source ||
		adm.Until.After(time.Now().Add(10*time.Minute)) || string(adm.Sealed) != "sealed keys of carol" {
		t.Fatalf("the second login: %+v, again %+v, %v", adm, again, err)
	}
	w.terms.Session = 2 * time.Hour // more
	if adm, _, err = asks(t, w.client(2), "dave", secret.New([]byte("x")), w.corp.seal(t, "dave", "spring of dave")); err != nil {
		t.Fatal(err)
	}
	if adm, err = w.client(2).Login(t.Context(), "dave", sourceProof("dave", "spring of dave", sealedUnder("dave"))); err != nil || adm.Until.After(time.Now().Add(30*time.Minute)) {
		t.Errorf("the policy allows more than the source: until %s, %v", adm.Until, err)
	}
	// Without a proof there are parameters, whatever they are; for whoever is local there is nothing.
	out, err := w.client(3).Ask(t.Context(), "dave", secret.Key{}, w.corp.seal(t, "dave", "spring of dave"))
	if err != nil || out.Admission != nil || !out.Params.Equal(sealedUnder("dave")) || string(out.Confirm) != "the word about dave" {
		t.Errorf("without a proof: %+v, %v", out, err)
	}
	if out, err := w.client(3).Ask(t.Context(), "alice", secret.Key{}, w.corp.seal(t, "alice", "x")); codeOf(err) != CodeDenied {
		t.Errorf("a local user, without a proof: %+v, %v", out, err)
	}
	if got := fmt.Sprint(w.corp.asked); strings.Contains(got, "alice") || len(w.corp.asked) != 4 {
		t.Errorf("the CA has heard %s", got)
	}
}

// A local user's password goes nowhere: the router drops what is sealed, whatever the directory says then. There is one answer for right, none else.
func TestLocalUserAmongSources(t *testing.T) {
	w := newWorld(t, sourced)
	w.corp.session = time.Minute
	w.corp.known(t)
	adm, again, err := asks(t, w.client(1), "alice", proofOf("alice"), w.corp.seal(t, "alice", "correct horse"))
	if err != nil || again != nil || adm.Source || !adm.Until.Equal(w.users["alice"].NotAfter) {
		t.Fatalf("%+v, again %+v, %v", adm, again, err)
	}
	if adm, err := w.client(2).Login(t.Context(), "bob", proofOf("bob")); err != nil || adm.Source {
		t.Errorf("without anything sealed, as an older client: %v", err)
	}
	if len(w.corp.asked) != 0 {
		t.Errorf("the CA has heard %q", w.corp.asked)
	}
}

// Whoever is refused, for whatever reason that concerns the user, hears the same, held back, and counted with the router's others.
func TestAskRefusalsAreAlike(t *testing.T) {
	w := newWorld(t, sourced, func(w *world, c *Config) {
		few := limit.Bucket{Rate: rate.Every(time.Hour), Burst: 1}
		w.wrongs.Each = few
		c.Guesses = limit.NewFailures(w.wrongs)
	})
	w.corp.known(t)
	garbage := w.corp.seal(t, "alice", "x")
	garbage[len(garbage)-1] ^= 1
	from := byte(10)
	var said []string
	for name, tt := range map[string]struct {
		uid    string
		sealed []byte
	}{
		"local":             {"alice", w.corp.seal(t, "alice", "guess")},
		"of a source":       {"carol", w.corp.seal(t, "carol", "guess")},
		"unknown":           {"nobody", w.corp.seal(t, "nobody", "guess")},
		"another's":         {"dave", w.corp.seal(t, "carol", "spring of carol")},
		"local, garbage":    {"bob", garbage},
		"a source, garbage": {"carol", garbage},
	} {
		from++
		held := len(w.corp.held)
		_, again, err := asks(t, w.client(from), tt.uid, proofOf("x"), tt.sealed)
		if codeOf(err) != CodeDenied || again != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		said = append(said, err.Error())
		if said[0] != err.Error() {
			t.Errorf("%s: %q and %q", name, said[0], err)
		}
		if len(w.corp.held) != held+1 || !errors.Is(w.corp.held[held], client.ErrDenied) {
			t.Errorf("%s: not held back", name)
		}
		if _, _, err := asks(t, w.client(from), tt.uid, proofOf("x"), tt.sealed); codeOf(err) != CodeBusy {
			t.Errorf("%s: it is not counted: %v", name, err)
		}
	}
	held := len(w.corp.held)
	if _, err := w.client(8).Login(t.Context(), "alice", proofOf("x")); codeOf(err) != CodeDenied || len(w.corp.held) != held+1 {
		t.Errorf("a login by the proof alone is not held back: %v", err)
	}
	// A login key that there is not concerns nobody: the answer is the same for all, before anybody is asked.
	other := must(ecdh.X25519().GenerateKey(rand.Reader))
	asked, released := len(w.corp.asked), w.released
	for i, uid := range []string{"alice", "carol", "nobody"} {
		sealed := sealedTo(other, uid, "x")
		for _, b := range [][]byte{sealed, nil, sealed[1:]} {
			if _, _, err := asks(t, w.client(byte(100+i)), uid, proofOf(uid), b); codeOf(err) != CodeLoginKey {
				t.Errorf("%s: %v", uid, err)
			}
		}
	}
	if len(w.corp.asked) != asked || w.released != released {
		t.Error("somebody was asked")
	}
}

// What the CA says of itself and of locks has words of its own; local users log in all the same while it is away.
func TestAskWhoIsAway(t *testing.T) {
	for name, tt := range map[string]struct {
		says error
		want Code
		text string
	}{
		"the source":       {&ca.Error{Code: ca.CodeSource, Message: "wifi"}, CodeSource, "what the company's CA asks about users does not answer: wifi"},
		"the CA":           {&ca.Error{Code: ca.CodeUnavailable, Message: "dial tcp 10.0.0.7"}, CodeCA, "the router does not reach the company's CA, or the CA cannot do it now"},
		"locked":           {&ca.Error{Code: ca.CodeLocked, RetryAfter: time.Minute}, CodeLocked, "locked after too many tries (again in 1m0s)"},
		"too many there":   {&ca.Error{Code: ca.CodeTooMany}, CodeBusy, ""},
		"too many here":    {keybundle.ErrBusy, CodeBusy, ""},
		"what it knows":    {&ca.Error{Code: ca.CodeInvalid}, CodeInvalid, ""},
		"a source's words": {&ca.Error{Code: ca.CodeSource, Message: "<b>"}, CodeSource, "what the company's CA asks about users does not answer"},
	} {
		w := newWorld(t, sourced)
		w.corp.known(t)
		w.corp.says = tt.says
		_, _, err := asks(t, w.client(1), "carol", proofOf("x"), w.corp.seal(t, "carol", "spring of carol"))
		if codeOf(err) != tt.want || tt.text != "" && err.Error() != tt.text {
			t.Errorf("%s: %v", name, err)
		}
		if len(w.corp.held) != 0 {
			t.Errorf("%s: held back", name)
		}
	}
	w := newWorld(t, sourced)
	w.corp.away = &ca.Error{Code: ca.CodeDenied} // somebody else is at its address: that is no word about a password
	c := w.client(1)
	for _, uid := range []string{"alice", "carol", "nobody"} {
		if p, err := c.Params(t.Context(), uid); err != nil || !p.Ask || p.LoginKey != nil {
			t.Errorf("%s: %+v, %v", uid, p, err)
		}
	}
	if w.corp.fetched != 1 {
		t.Errorf("a CA that is away was asked %d times", w.corp.fetched)
	}
	for _, uid := range []string{"carol", "nobody"} {
		if _, _, err := asks(t, c, uid, proofOf("x"), nil); codeOf(err) != CodeCA {
			t.Errorf("%s: %v", uid, err)
		}
	}
	if w.released != 0 {
		t.Error("a try was spent on it at the directory")
	}
	if _, _, err := asks(t, c, "alice", proofOf("alice"), nil); err != nil {
		t.Errorf("a local user: %v", err)
	}
}

// The login key that is handed out is fetched now and then, and anew when the CA does not have it any more.
func TestLoginKeysAreHandedOut(t *testing.T) {
	w := newWorld(t, sourced)
	c := w.client(1)
	first := must(c.Params(t.Context(), "carol"))
	if second := must(c.Params(t.Context(), "nobody")); !bytes.Equal(first.LoginKey, second.LoginKey) || w.corp.fetched != 1 {
		t.Errorf("fetched %d times", w.corp.fetched)
	}
	old := w.corp.seal(t, "carol", "spring of carol")
	w.corp.renew()
	if _, _, err := asks(t, c, "carol", proofOf("x"), old); codeOf(err) != CodeLoginKey {
		t.Errorf("to a key that the CA has let go of: %v", err)
	}
	if _, _, err := asks(t, w.client(3), "carol", proofOf("x"), w.corp.seal(t, "carol", "spring of carol")); err != nil {
		t.Errorf("to the new one: %v", err)
	}
	if p := must(c.Params(t.Context(), "carol")); bytes.Equal(p.LoginKey, first.LoginKey) || w.corp.fetched != 2 {
		t.Errorf("fetched %d times", w.corp.fetched)
	}
	broken := newWorld(t, sourced, func(_ *world, c *Config) {
		c.LoginKey = func(context.Context) ([]byte, error) { return []byte("a word"), nil }
	})
	if p, err := broken.client(1).Params(t.Context(), "carol"); err != nil || !p.Ask || p.LoginKey != nil {
		t.Errorf("what cannot be read is passed on: %+v, %v", p, err)
	}
	none := newWorld(t, sourced, func(_ *world, c *Config) {
		c.LoginKey = func(context.Context) ([]byte, error) { return nil, nil }
	})
	if p, err := none.client(1).Params(t.Context(), "alice"); err != nil || p.Ask || p.LoginKey != nil {
		t.Errorf("a CA without sources: %+v, %v", p, err)
	}
	if _, _, err := asks(t, none.client(1), "alice", proofOf("alice"), nil); err != nil {
		t.Errorf("asked all the same: %v", err)
	}
	if _, _, err := asks(t, none.client(2), "carol", proofOf("x"), nil); codeOf(err) != CodeLoginKey {
		t.Errorf("a user of a source that was taken away: %v", err)
	}
}

// How long keys are handed out and taken.
func TestLoginKeysInTime(t *testing.T) {
	box := newAuthority("root", nil).box("twinkey://ca")
	synctest.Test(t, func(t *testing.T) {
		n := 0
		var fail error
		k := newLoginKeys(func(context.Context) ([]byte, error) {
			n++
			return must(must(sealedlogin.Sign(sealedlogin.Key{9, byte(n)}, time.Now(), box)).Bytes()), fail
		})
		to := func(n int) []byte { return append([]byte{1, 9, byte(n)}, make([]byte, sealedlogin.SealedLen-3)...) }
		ctx := t.Context()
		must(k.present(ctx))
		time.Sleep(keyAge)
		must(k.present(ctx))
		if n != 2 || !k.takes(to(1)) || !k.takes(to(2)) || k.takes(to(3)) || k.takes(to(1)[1:]) {
			t.Errorf("fetched %d times; what is taken is wrong", n)
		}
		time.Sleep(keyTaken - keyAge)
		if k.takes(to(1)) || !k.takes(to(2)) {
			t.Error("a key is taken that the CA may not have, or the present one is not")
		}
		time.Sleep(keyAge)
		if k.takes(to(2)) {
			t.Error("a key is taken for ever where nobody asks for another")
		}
		for range 20 { // a CA that has another one each time
			k.forget()
			must(k.present(ctx))
		}
		for range 20 {
			k.until = time.Time{}
			must(k.present(ctx))
		}
		if len(k.given) > maxKeys || !k.takes(to(n)) {
			t.Errorf("%d keys are remembered, the last one: %v", len(k.given), k.takes(to(n)))
		}
		fail, k.until = errors.New("away"), time.Time{}
		for range 3 {
			if s, err := k.present(ctx); !errors.Is(err, ca.ErrUnavailable) || s != nil {
				t.Errorf("%x, %v", s, err)
			}
		}
		was := n
		time.Sleep(awayAge)
		fail = nil
		must(k.present(ctx))
		if n != was+1 {
			t.Errorf("fetched %d times after it was away", n-was)
		}
	})
	gone, hangUp := context.WithCancel(t.Context())
	hangUp()
	k := newLoginKeys(func(ctx context.Context) ([]byte, error) { return nil, ctx.Err() })
	k.turn <- struct{}{}
	if _, err := k.present(gone); !errors.Is(err, ca.ErrUnavailable) {
		t.Errorf("who has gone waits: %v", err)
	}
	<-k.turn
	for range 8 { // select may choose either
		if _, err := k.present(gone); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	if k.err != nil {
		t.Errorf("who hangs up has it fail for the others: %v", k.err)
	}
}

// Who has proved the password, and was vouched for in another login, gets no session of whose length nobody has spoken.
func TestSessionOfAnotherLogin(t *testing.T) {
	w := newWorld(t, sourced)
	w.corp.session = time.Hour
	w.corp.known(t)
	proof := sourceProof("carol", "spring of carol", sealedUnder("carol"))
	if _, again, err := asks(t, w.client(1), "carol", proof, w.corp.seal(t, "carol", "spring of carol")); err != nil || again == nil {
		t.Fatalf("again %+v, %v", again, err)
	}
	if _, err := w.client(2).Login(t.Context(), "carol", proof); codeOf(err) != CodeDenied || len(w.guests) != 0 {
		t.Errorf("from another address: %v", err)
	}
	w.said.said[visitor{"carol", netip.MustParseAddr("127.0.0.1")}] = saidOf{until: time.Now().Add(-time.Second)}
	if _, err := w.client(1).Login(t.Context(), "carol", proof); codeOf(err) != CodeDenied || len(w.guests) != 0 {
		t.Errorf("too late: %v", err)
	}
	w.corp.unsaid = true
	if _, _, err := asks(t, w.client(1), "carol", proof, w.corp.seal(t, "carol", "x")); codeOf(err) != CodeDenied || len(w.guests) != 0 {
		t.Errorf("one of a source all at once: %v", err)
	}
	// What is not vouched for the directory does not release at all.
	w.corp.vouched = map[string]bool{}
	w.said.note(visitor{"carol", netip.MustParseAddr("127.0.0.1")}, time.Time{}, time.Now())
	if _, err := w.client(1).Login(t.Context(), "carol", proof); codeOf(err) != CodeDenied {
		t.Errorf("without the CA's word: %v", err)
	}
}

func TestSessionsAreBounded(t *testing.T) {
	s, now := newSessions(), time.Unix(1_000_000, 0)
	v := func(n int) visitor { return visitor{fmt.Sprint(n), netip.MustParseAddr("10.1.1.1")} }
	for n := range maxAsked {
		if !s.note(v(n), now.Add(time.Hour), now) {
			t.Fatal("no room")
		}
	}
	if s.note(v(maxAsked), now, now) || !s.note(v(0), now.Add(2*time.Hour), now) {
		t.Error("there is room for one more, or none for one that is there")
	}
	if l, ok := s.of(v(0), now.Add(askedLife)); !ok || !l.Equal(now.Add(2*time.Hour)) {
		t.Errorf("%s, %v", l, ok)
	}
	if _, ok := s.of(v(1), now.Add(askedLife+1)); ok {
		t.Error("it is never forgotten")
	}
	if !s.note(v(maxAsked), now, now.Add(askedLife+1)) || len(s.said) != 1 {
		t.Errorf("%d are left", len(s.said))
	}
	if askedLife <= client.VouchLife {
		t.Error("the directory may release longer than is remembered for how long")
	}
}

// An answer that is neither, or both, is none.
func TestSenselessAnswers(t *testing.T) {
	w := newWorld(t)
	adm := &Admission{Token: make([]byte, tokenLen), Address: netip.MustParseAddr("10.1.1.1")}
	cheap := sealedUnder("carol")
	cheap.MemoryKiB = 1 << 30
	good := sealedUnder("carol")
	for name, tt := range map[string]struct {
		out  Asked
		want Code
	}{
		"neither":                    {Asked{}, CodeRouter},
		"both":                       {Asked{Params: &good, Admission: adm}, CodeRouter},
		"no token":                   {Asked{Admission: &Admission{Address: adm.Address}}, CodeRouter},
		"parameters beyond bounds":   {Asked{Params: &cheap}, CodeRouter},
		"a session":                  {Asked{Admission: adm}, ""},
		"how it is stretched by now": {Asked{Params: &good, Confirm: []byte("a word")}, ""},
	} {
		srv := httptest.NewUnstartedServer(http.HandlerFunc(func(out http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(out).Encode(tt.out) }))
		srv.TLS = &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{w.box}}
		srv.StartTLS()
		c := NewClient(srv.Listener.Addr().String(), netip.Addr{}, w.ca.cert)
		if _, _, err := asks(t, c, "carol", proofOf("x"), nil); codeOf(err) != tt.want {
			t.Errorf("%s: %v", name, err)
		}
		c.Close()
		srv.Close()
	}
}

func FuzzAskRequest(f *testing.F) {
	f.Add([]byte(`{"user":"alice","auth":"AAAA","sealed":"AAAA"}`))
	f.Add([]byte(`{"user":"alice","auth":"AAAA"}`))
	f.Add([]byte(`{"user":"alice","password":"AAAA"}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		var a AskRequest
		if err := strictjson.Decode(in, &a); err != nil {
			return
		}
		var again AskRequest
		if err := strictjson.Decode(must(json.Marshal(a)), &again); err != nil || again.User != a.User || !bytes.Equal(again.Auth, a.Auth) || !bytes.Equal(again.Sealed, a.Sealed) {
			t.Fatalf("%+v came back as %+v, %v", a, again, err)
		}
	})
}
