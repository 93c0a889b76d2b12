package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"twinkey/directory/client"
	"twinkey/proto/secret"
)

// served is a client of a handler, without TLS: who speaks is not what is tested here.
func served(t *testing.T, h http.HandlerFunc) *client.Client {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	c := client.New(s.URL+"/", nil)
	t.Cleanup(c.CloseIdle)
	return c
}

func TestRefusals(t *testing.T) {
	for code, want := range map[string]error{
		client.CodeDenied: client.ErrDenied, client.CodeLocked: client.ErrLocked, client.CodeConflict: client.ErrConflict, client.CodeInvalid: client.ErrInvalid,
		client.CodeNotFound: client.ErrNotFound, client.CodeTooMany: client.ErrTooMany, client.CodeStorage: client.ErrStorage, client.CodeUnavailable: client.ErrUnavailable,
		"something new": client.ErrUnavailable,
	} {
		c := served(t, func(w http.ResponseWriter, _ *http.Request) {
			var b client.ErrorBody
			b.Error.Code, b.Error.Message, b.Error.RetryAfterMS = code, "so it is", 90_000
			w.WriteHeader(http.StatusTeapot) // the code decides, not the status
			_ = json.NewEncoder(w).Encode(b)
		})
		err := c.Apply(t.Context(), client.Change{})
		e, ok := errors.AsType[*client.Error](err)
		if !errors.Is(err, want) || !ok || e.RetryAfter != 90*time.Second || !strings.Contains(err.Error(), "applying a change to the directory: "+want.Error()+": so it is (again in 1m30s)") {
			t.Errorf("code %q: %v", code, err)
		}
	}
}

func TestNonsense(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"a page":          func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "<html>", http.StatusBadGateway) },
		"no JSON":         func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") },
		"a redirect":      func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) },
		"a broken stream": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		if _, _, err := served(t, h).Sites(t.Context()); !errors.Is(err, client.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Parameters that would cost 100 GiB are not handed on.
	c := served(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"salt":"AAAAAAAAAAAAAAAAAAAAAA==","time":3,"memory_kib":104857600,"threads":1}`)
	})
	if _, err := c.LoginParams(t.Context(), "alice"); !errors.Is(err, client.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}

func TestEndedContext(t *testing.T) {
	c := served(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // a server sees that a caller has gone once it has read all of the request
		<-r.Context().Done()
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Release(ctx, "alice", secret.New(nil)); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, client.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	for _, err := range c.Watch(ctx, 0) {
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	}
}

// A stream that breaks off in the middle of a revision yields none of it: whoever resumes
// after the last event seen misses nothing.
func TestWatchYieldsWholeRevisions(t *testing.T) {
	c := served(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("since") != "41" {
			t.Errorf("asked for %s", r.URL)
		}
		for _, e := range []client.Event{{Revision: 41, Kind: client.KindSync}, {Revision: 42, Kind: client.KindRevoked, More: true}, {Revision: 42, Kind: client.KindCRL},
			{Revision: 43, Kind: client.KindRevoked, More: true}} {
			_ = json.NewEncoder(w).Encode(e)
		}
	})
	var got []string
	for e, err := range c.Watch(t.Context(), 41) {
		if err != nil {
			if !errors.Is(err, client.ErrUnavailable) {
				t.Errorf("ended by %v", err)
			}
			break
		}
		got = append(got, fmt.Sprint(e.Revision, e.Kind))
	}
	if want := []string{"41sync", "42revoked", "42crl"}; !slices.Equal(got, want) {
		t.Errorf("saw %q, want %q", got, want)
	}
}

func TestWatchIsBounded(t *testing.T) {
	for name, line := range map[string]string{
		"a line":     strings.Repeat("x", client.MaxEvent+1),
		"no JSON":    "hello\n",
		"a revision": strings.Repeat(`{"revision":1,"kind":"crl","more":true}`+"\n", client.MaxRevisionEvents+1),
	} {
		n := 0
		for _, err := range served(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, line) }).Watch(t.Context(), 0) {
			if n++; !errors.Is(err, client.ErrUnavailable) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if n != 1 {
			t.Errorf("%s: %d times", name, n)
		}
	}
}

func TestWhoStopsWatchingIsLetGo(t *testing.T) {
	gone := make(chan struct{})
	c := served(t, func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(client.Event{Revision: 1, Kind: client.KindSync})
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		close(gone)
	})
	for range c.Watch(t.Context(), 0) {
		break
	}
	select {
	case <-gone:
	case <-time.After(5 * time.Second):
		t.Error("the connection stays")
	}
}
