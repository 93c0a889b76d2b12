package authn_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"twinkey/directory/client"
	"twinkey/pkg/keybundle"
	"twinkey/pkg/twincert"
	"twinkey/router/internal/authn"
)

// A changed password opens the same keys, costs what is usual, and the old one is good for nothing any more. What is
// refused changes nothing.
func TestChangePassword(t *testing.T) {
	const chosen = "another battery staple"
	for name, tt := range map[string]struct {
		change      func(w *world)
		old, chosen string
		want        error
		asked       bool // somebody was, at the directory
	}{
		"changed":            {nil, password, chosen, nil, true},
		"wrong old password": {nil, "guess", chosen, client.ErrDenied, true},
		"weak":               {nil, password, "short", keybundle.ErrWeak, false},
		"the UserID":         {nil, password, "alice", keybundle.ErrWeak, false},
		"the same":           {nil, password, password, authn.ErrSame, false},
		"locked":             {func(w *world) { w.code = client.CodeLocked }, password, chosen, client.ErrLocked, true},
		"revoked": {func(w *world) {
			w.trust.Revoke(must(twincert.Parse(w.release.Certificate)).ID())
		}, password, chosen, twincert.ErrRevoked, true},
		"keys that do not open":   {func(w *world) { w.release.Sealed = w.sealed(w.user("alice")).Sealed }, password, chosen, keybundle.ErrOpen, true},
		"other keys meanwhile":    {func(w *world) { w.refuse = client.CodeConflict }, password, chosen, client.ErrConflict, true},
		"silence over the change": {func(w *world) { w.refuse = client.CodeUnavailable }, password, chosen, authn.ErrUncertain, true},
		"silence before it":       {func(w *world) { w.code = client.CodeUnavailable }, password, chosen, client.ErrUnavailable, true},
		"an older directory":      {func(w *world) { w.refuse = client.CodeNotFound }, password, chosen, client.ErrNotFound, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			if tt.change != nil {
				tt.change(w)
			}
			asked := false
			s := httptest.NewServer(watched(w, &asked))
			defer s.Close()
			dir := client.New(s.URL, nil)
			defer dir.CloseIdle()
			before := w.release
			err := authn.ChangePassword(t.Context(), dir, keybundle.NewGate(), w.trust, "alice", []byte(tt.old), []byte(tt.chosen))
			if !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
				t.Fatalf("err = %v, want %v", err, tt.want)
			}
			if asked != tt.asked {
				t.Errorf("the directory was asked: %v", asked)
			}
			if err != nil {
				if w.changed != 0 || string(w.release.Sealed) != string(before.Sealed) {
					t.Error("something was changed")
				}
				return
			}
			if w.params.Weaker(keybundle.Params{Time: keybundle.DefaultTime, MemoryKiB: keybundle.DefaultMemoryKiB}) {
				t.Errorf("the new password costs %+v", w.params)
			}
			c, _, err := w.login(t, dir, tt.chosen)
			if err != nil || c.Control.Public != c.Certificate.Keys.Control || c.Data.Public != c.Certificate.Keys.Data {
				t.Errorf("login with the new password: %v", err)
			}
			if _, _, err := w.login(t, dir, tt.old); !errors.Is(err, client.ErrDenied) {
				t.Errorf("login with the old one: %v", err)
			}
		})
	}
}

// watched notes whether anybody was asked.
func watched(h http.Handler, asked *bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*asked = true
		h.ServeHTTP(w, r)
	})
}
