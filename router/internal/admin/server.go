package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"
)

const maxBody = 64 << 10

// Listen opens the control socket at path for its owner alone. A socket that a live
// process answers on is left to it.
func Listen(path string) (net.Listener, error) {
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		_ = c.Close()
		return nil, fmt.Errorf("opening the control socket %s: %w", path, ErrInUse)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("removing a stale control socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("opening the control socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("closing the control socket to others: %w", err), l.Close())
	}
	return l, nil
}

// Serve answers on l until ctx ends.
func Serve(ctx context.Context, l net.Listener, r Router) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", answer(func(ctx context.Context, _ struct{}) (Status, error) { return r.Status(ctx) }))
	mux.HandleFunc("POST /login", answer(r.Login))
	mux.HandleFunc("POST /hangup", answer(r.Hangup))
	mux.HandleFunc("POST /reload", answer(func(ctx context.Context, _ struct{}) (struct{}, error) { return struct{}{}, r.Reload(ctx) }))
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	stop := context.AfterFunc(ctx, func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = srv.Shutdown(end)
	})
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving the control socket: %w", err)
	}
	return nil
}

func answer[In, Out any](f func(context.Context, In) (Out, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		var in In
		if req.Method == http.MethodPost && req.ContentLength != 0 {
			dec := json.NewDecoder(http.MaxBytesReader(w, req.Body, maxBody))
			dec.DisallowUnknownFields()
			if err := dec.Decode(&in); err != nil {
				fail(w, http.StatusBadRequest, &Error{What: fmt.Sprintf("reading the request: %v", err)})
				return
			}
		}
		out, err := f(req.Context(), in)
		if err != nil {
			e, ok := errors.AsType[*Error](err)
			if !ok {
				e = &Error{What: err.Error()}
			}
			fail(w, http.StatusUnprocessableEntity, e)
			return
		}
		_ = json.NewEncoder(w).Encode(out) // a client that went away misses its answer
	}
}

func fail(w http.ResponseWriter, status int, e *Error) {
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(e)
}
