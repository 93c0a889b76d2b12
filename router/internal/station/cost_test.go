package station

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"twinkey/pkg/keybundle"
)

// usual is how a password is stretched, under a salt of all the same bytes.
func usual(salt byte) keybundle.Params {
	return keybundle.Params{Salt: bytes.Repeat([]byte{salt}, keybundle.SaltLen), Time: keybundle.DefaultTime, MemoryKiB: keybundle.DefaultMemoryKiB, Threads: 1}
}

// The router in front does not choose how cheap a password is to guess, nor under which salt: the password is not even asked for.
func TestTheRouterDoesNotChooseThePrice(t *testing.T) {
	cheap := func(change func(*keybundle.Params)) keybundle.Params {
		p := usual(1)
		change(&p)
		return p
	}
	asked := errors.New("the password was asked for")
	known := map[string]keybundle.Params{"alice": usual(1)}
	for name, tt := range map[string]struct {
		known   map[string]keybundle.Params
		told    keybundle.Params
		changed bool
		want    error
	}{
		"first login":                  {nil, usual(1), false, asked},
		"as before":                    {known, usual(1), false, asked},
		"somebody else's":              {map[string]keybundle.Params{"bob": usual(2)}, usual(1), false, asked},
		"dearer, first login":          {nil, cheap(func(p *keybundle.Params) { p.Time++ }), false, asked},
		"the least that is in bounds":  {nil, cheap(func(p *keybundle.Params) { p.Time, p.MemoryKiB = 1, 8<<10 }), false, ErrCheap},
		"less memory, more passes":     {nil, cheap(func(p *keybundle.Params) { p.Time, p.MemoryKiB = 16, 32<<10 }), false, ErrCheap},
		"a pass less":                  {nil, cheap(func(p *keybundle.Params) { p.Time-- }), false, ErrCheap},
		"cheap, and said to change":    {known, cheap(func(p *keybundle.Params) { p.Time-- }), true, ErrCheap},
		"another salt":                 {known, usual(2), false, ErrAnother},
		"another cost":                 {known, cheap(func(p *keybundle.Params) { p.Time++ }), false, ErrAnother},
		"another salt, said to change": {known, usual(2), true, asked},
	} {
		t.Run(name, func(t *testing.T) {
			at, root := stub(t, func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(tt.told) })
			var said []string
			o := Options{User: "alice", Changed: tt.changed, Password: func() ([]byte, error) { return nil, asked }, Say: func(l string) { said = append(said, l) }}
			s, err := New(Home{Dir: t.TempDir(), Router: at, Root: root, Passwords: tt.known}, o, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			defer s.front.Close()
			if _, err := s.login(t.Context()); !errors.Is(err, tt.want) {
				t.Errorf("%v, want %v", err, tt.want)
			}
			if accepted := tt.changed && tt.want == asked; accepted != (len(said) == 1 && strings.Contains(said[0], "another salt")) {
				t.Errorf("said %q", said)
			}
		})
	}
}

// What opened the user's keys is what the next login is held to; another company's users are others.
func TestHowAPasswordIsStretchedIsRemembered(t *testing.T) {
	h := Home{Dir: t.TempDir(), Router: "10.1.1.1:8443", Root: root(), User: "alice", Passwords: map[string]keybundle.Params{"bob": usual(7)}}
	p := usual(1)
	s := &Station{o: Options{User: "alice"}, home: h, log: slog.New(slog.DiscardHandler)}
	s.remember() // nothing was told
	s.cost = &p
	s.remember()
	again := must(OpenHome(h.Dir))
	if !again.Passwords["alice"].Equal(p) || !again.Passwords["bob"].Equal(usual(7)) || again.User != "alice" || !again.Root.Equal(h.Root) {
		t.Errorf("read back: %+v", again)
	}
	var other string
	at, otherRoot := stub(t, func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string][][]byte{"roots": {[]byte(other)}})
	})
	other, again.Router = string(otherRoot.Raw), at
	if err := again.Trust(t.Context(), netip.Addr{}, fingerprint(otherRoot)); err != nil || len(again.Passwords) != 0 {
		t.Errorf("another root: %v, and still %v", err, again.Passwords)
	}
}
