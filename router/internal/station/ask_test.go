package station

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"twinkey/pkg/keybundle"
	"twinkey/pkg/sealedlogin"
	"twinkey/proto/secret"
	"twinkey/router/internal/voluntary"
)

// fake is a router in front with what is behind it: alice is a user of a source.
type fake struct {
	t       *testing.T
	at      string
	home    Home
	certify func(uri string) tls.Certificate
	by      tls.Certificate // whose word for login keys it hands out
	keys    []*ecdh.PrivateKey
	end     time.Duration        // of the word, from now
	params  keybundle.Params     // that it tells
	no      []voluntary.Code     // what Ask is refused with, one after the other
	again   *keybundle.Params    // what it then says of the password
	lies    bool                 // which is nobody's word
	adm     voluntary.Admission  // and then
	change  func(f *fake, n int) // before the nth question for parameters is answered
	silent  bool                 // about login keys
	noAsk   bool                 // it is one of a company without sources

	told   int      // how often parameters were asked for
	opened []string // what was sealed in each Ask, by the keys that there were
	proved []string // paths at which, and salts under which the password was proved
}

const typed = "spring of alice"

func newFake(t *testing.T) *fake {
	f := &fake{t: t, end: 20 * time.Minute, params: usual(1)}
	at, root, certify := stubOf(t, f.answer)
	f.at, f.certify, f.by = at, certify, certify("twinkey://ca")
	f.home = Home{Dir: t.TempDir(), Router: at, Root: root, User: "alice"}
	f.adm = voluntary.Admission{Token: make([]byte, 32), Address: netip.MustParseAddr("10.1.1.3"), Router: "ra", Source: true}
	f.newKey()
	return f
}

func (f *fake) newKey() { f.keys = append(f.keys, must(ecdh.X25519().GenerateKey(rand.Reader))) }

func (f *fake) answer(w http.ResponseWriter, r *http.Request) {
	say := func(v any) { _ = json.NewEncoder(w).Encode(v) }
	switch path.Base(r.URL.Path) {
	case "params":
		f.told++
		if f.change != nil {
			f.change(f, f.told)
		}
		out := voluntary.ParamsAnswer{Params: f.params, Ask: !f.noAsk}
		if !f.silent && !f.noAsk {
			k := f.keys[len(f.keys)-1]
			out.LoginKey = must(must(sealedlogin.Sign(sealedlogin.Key(k.PublicKey().Bytes()), time.Now().Add(f.end), f.by)).Bytes())
		}
		say(out)
	case "ask":
		var in voluntary.AskRequest
		_ = json.NewDecoder(r.Body).Decode(&in)
		f.proof("ask", in.Auth)
		password, answer := f.open(in.Sealed)
		f.opened = append(f.opened, password)
		if len(f.no) > 0 {
			w.WriteHeader(http.StatusConflict)
			say(map[string]any{"code": f.no[0]})
			f.no = f.no[1:]
			return
		}
		if f.again != nil {
			if f.lies {
				answer = secret.New(make([]byte, 32))
			}
			say(voluntary.Asked{Params: f.again, Confirm: sealedlogin.Confirm(answer, *f.again)})
			return
		}
		say(voluntary.Asked{Admission: &f.adm})
	case "login":
		var in voluntary.LoginRequest
		_ = json.NewDecoder(r.Body).Decode(&in)
		f.proof("login", in.Auth)
		say(f.adm)
	default:
		f.t.Errorf("asked for %s", r.URL.Path)
	}
}

// open says what a machine has sealed, and by what it knows the answer.
func (f *fake) open(sealed []byte) (string, secret.Key) {
	if sealed == nil {
		return "nothing", secret.Key{}
	}
	for i, k := range f.keys {
		if p, answer, err := sealedlogin.Open(secret.Copy(k.Bytes()), "ra", "alice", sealed); err == nil {
			return string(p) + " to key " + string(rune('1'+i)), answer
		}
	}
	return "what does not open", secret.Key{}
}

// proofs are of the password under each salt that is used here.
var proofs = sync.OnceValue(func() map[byte]keybundle.Proof {
	m := make(map[byte]keybundle.Proof)
	for salt := byte(1); salt <= 2; salt++ {
		m[salt] = must(keybundle.Derive([]byte(typed), usual(salt)))
	}
	return m
})

// proof says under which salt a proof was made.
func (f *fake) proof(where string, auth []byte) {
	if len(auth) == 0 {
		f.proved = append(f.proved, where+" nothing")
		return
	}
	for salt, p := range proofs() {
		if bytes.Equal(p.Auth.Bytes(), auth) {
			f.proved = append(f.proved, where+" "+string(rune('0'+salt)))
			return
		}
	}
	f.t.Errorf("%s: a proof of something else", where)
}

// login is what a person at the machine does; it says whether the password was asked for, and demands that it was wiped.
func (f *fake) login(changed bool) (s *Station, asked bool, err error) {
	f.t.Helper()
	var password []byte
	o := Options{User: "alice", Changed: changed, Say: func(string) {}, Password: func() ([]byte, error) {
		password = []byte(typed)
		return password, nil
	}}
	if s, err = New(f.home, o, slog.New(slog.DiscardHandler)); err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(s.front.Close)
	_, err = s.login(f.t.Context())
	if bytes.Trim(password, "\x00") != nil {
		f.t.Errorf("the password is still there: %q", password)
	}
	return s, password != nil, err
}

// The password goes with the proof, sealed to the key that is the CA's: for this router, for this user.
func TestAsk(t *testing.T) {
	two := usual(2)
	for name, tt := range map[string]struct {
		set            func(f *fake)
		opened, proved []string
		told           int
		want           error // nil: logged in
		code           voluntary.Code
	}{
		"a second login": {nil, []string{typed + " to key 1"}, []string{"ask 1"}, 1, nil, ""},
		"the first":      {func(f *fake) { f.again = &two }, []string{typed + " to key 1"}, []string{"ask 1", "login 2"}, 1, nil, ""},
		"a key that the CA has let go of": {func(f *fake) {
			f.no = []voluntary.Code{voluntary.CodeLoginKey}
			f.change = func(f *fake, n int) {
				if n == 2 {
					f.newKey()
				}
			}
		}, []string{typed + " to key 1", typed + " to key 2"}, []string{"ask 1", "ask 1"}, 2, nil, ""},
		"and again": {func(f *fake) { f.no = []voluntary.Code{voluntary.CodeLoginKey, voluntary.CodeLoginKey} },
			[]string{typed + " to key 1", typed + " to key 1"}, []string{"ask 1", "ask 1"}, 2, nil, voluntary.CodeLoginKey},
		"refused":            {func(f *fake) { f.no = []voluntary.Code{voluntary.CodeDenied} }, []string{typed + " to key 1"}, []string{"ask 1"}, 1, nil, voluntary.CodeDenied},
		"the CA away":        {func(f *fake) { f.silent, f.no = true, []voluntary.Code{voluntary.CodeCA} }, []string{"nothing"}, []string{"ask 1"}, 1, nil, voluntary.CodeCA},
		"away, local":        {func(f *fake) { f.silent = true }, []string{"nothing"}, []string{"ask 1"}, 1, nil, ""},
		"no sources":         {func(f *fake) { f.noAsk = true }, nil, []string{"login 1"}, 1, nil, ""},
		"then cheaper":       {func(f *fake) { f.again = &keybundle.Params{Salt: two.Salt, Time: 1, MemoryKiB: 8 << 10, Threads: 1} }, []string{typed + " to key 1"}, []string{"ask 1"}, 1, ErrCheap, ""},
		"then nobody's word": {func(f *fake) { f.again, f.lies = &two, true }, []string{typed + " to key 1"}, []string{"ask 1"}, 1, sealedlogin.ErrAnswer, ""},
		"sealed anew under another salt than is known here": {func(f *fake) {
			f.again, f.home.Passwords = &two, map[string]keybundle.Params{"alice": usual(1)}
		}, []string{typed + " to key 1"}, []string{"ask 1", "login 2"}, 1, nil, ""},
		"under another salt, says the router": {func(f *fake) { f.home.Passwords = map[string]keybundle.Params{"alice": two} }, nil, nil, 1, ErrAnother, ""},
		"likewise, of a source's user": {func(f *fake) {
			f.again, f.home.Passwords, f.home.Local = &two, map[string]keybundle.Params{"alice": usual(3)}, map[string]bool{"alice": false}
		}, []string{typed + " to key 1"}, []string{"ask nothing", "login 2"}, 1, nil, ""},
		"likewise, let in without a proof": {func(f *fake) {
			f.home.Passwords, f.home.Local = map[string]keybundle.Params{"alice": two}, map[string]bool{"alice": false}
		}, []string{typed + " to key 1"}, []string{"ask nothing"}, 1, sealedlogin.ErrAnswer, ""},
		"likewise, and the CA is away": {func(f *fake) {
			f.home.Passwords, f.home.Local = map[string]keybundle.Params{"alice": two}, map[string]bool{"alice": false}
			f.silent, f.no = true, []voluntary.Code{voluntary.CodeCA}
		}, []string{"nothing"}, []string{"ask nothing"}, 1, nil, voluntary.CodeCA},
		"likewise, of no source all at once": {func(f *fake) {
			f.home.Passwords, f.home.Local, f.noAsk = map[string]keybundle.Params{"alice": two}, map[string]bool{"alice": false}, true
		}, nil, nil, 1, ErrAnother, ""},
		"meanwhile under another salt": {func(f *fake) {
			f.no = []voluntary.Code{voluntary.CodeLoginKey}
			f.change = func(f *fake, n int) { f.params = usual(byte(n)) }
		}, []string{typed + " to key 1", typed + " to key 1"}, []string{"ask 1", "ask 2"}, 2, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			if tt.set != nil {
				tt.set(f)
			}
			s, _, err := f.login(false)
			if tt.want != nil && !errors.Is(err, tt.want) || tt.code != "" && !isCode(err, tt.code) || (err == nil) != (tt.want == nil && tt.code == "") {
				t.Errorf("%v, want %v %s", err, tt.want, tt.code)
			}
			if !slices.Equal(f.opened, tt.opened) || !slices.Equal(f.proved, tt.proved) || f.told != tt.told {
				t.Errorf("sealed %q, proved %q, asked for parameters %d times", f.opened, f.proved, f.told)
			}
			if err != nil && s.proof.Auth.Len() > 0 && !bytes.Equal(s.proof.Auth.Bytes(), make([]byte, s.proof.Auth.Len())) {
				t.Error("the proof is still there")
			}
		})
	}
}

// A router that hands out a key of its own, or an old one, is noticed before the password is typed: it is asked once more, then no further.
func TestForgedLoginKey(t *testing.T) {
	router := func(f *fake) { _, _, certify := stubOf(t, nil); f.by = certify("twinkey://ca") }
	for name, tt := range map[string]struct {
		set  func(f *fake)
		want error
	}{
		"of another company":       {router, sealedlogin.ErrStatement},
		"signed by a router":       {func(f *fake) { f.by = f.certify("twinkey://router/ra") }, sealedlogin.ErrStatement},
		"signed by the directory":  {func(f *fake) { f.by = f.certify("twinkey://directory") }, sealedlogin.ErrStatement},
		"expired":                  {func(f *fake) { f.end = -6 * time.Minute }, sealedlogin.ErrExpired},
		"at first, and then right": {func(f *fake) { f.change = func(f *fake, n int) { f.end = time.Duration(n-2)*time.Hour + time.Minute } }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			tt.set(f)
			_, asked, err := f.login(false)
			if !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) || asked != (tt.want == nil) {
				t.Errorf("%v, want %v; the password was asked for: %v", err, tt.want, asked)
			}
			if f.told != 2 || (len(f.opened) > 0) != (tt.want == nil) {
				t.Errorf("asked %d times, %q was sealed", f.told, f.opened)
			}
		})
	}
}

// Whom the directory alone has let in once from here, their password is sealed to nobody from then on, whatever the router says; unless they say
// that it has changed.
func TestALocalUsersPasswordIsSealedOnce(t *testing.T) {
	f := newFake(t)
	f.adm.Source = false
	login := func(changed bool, opened int, local bool) {
		t.Helper()
		f.opened = nil
		s, _, err := f.login(changed)
		if err != nil || len(f.opened) != opened {
			t.Fatalf("%v; sealed %q", err, f.opened)
		}
		s.remember()
		f.home = must(OpenHome(f.home.Dir))
		if f.home.Local["alice"] != local || len(f.home.Passwords) != 1 {
			t.Errorf("remembered: %+v", f.home)
		}
	}
	login(false, 1, true)
	f.by = f.certify("twinkey://router/ra") // nobody looks at it
	login(false, 0, true)
	f.by = f.certify("twinkey://ca")
	login(true, 1, true)
	f.adm.Source = true // the operator has let a source have the name
	login(false, 0, false)
	login(false, 1, false)
}

// What is kept of the password of a source's user does not do for another session: they are told, and nobody is asked.
func TestASourcesUserLogsInAgainByHand(t *testing.T) {
	f := newFake(t)
	s, _, err := f.login(false)
	if err != nil {
		t.Fatal(err)
	}
	proved := len(f.proved)
	r := &run{s: s}
	if err := r.relogin(t.Context(), s.admission().Token); !errors.Is(err, ErrAgain) || !final(err) || !strings.Contains(err.Error(), "at each login") {
		t.Errorf("%v", err)
	}
	if len(f.proved) != proved {
		t.Errorf("it was tried: %q", f.proved)
	}
	if err := r.relogin(t.Context(), []byte("of another session")); err != nil {
		t.Errorf("another one has been begun since: %v", err)
	}
}
