package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"twinkey/pkg/strictjson"
)

const maxBody = 64 << 10

// Listen opens the control socket at path for its owner alone. A socket that a live
// process answers on is left to it, and so is what is no socket.
func Listen(path string) (net.Listener, error) {
	c, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		_ = c.Close()
		return nil, fmt.Errorf("opening the control socket %s: %w", path, ErrInUse)
	case errors.Is(err, syscall.ECONNREFUSED):
		if err := removeStale(path); err != nil {
			return nil, err
		}
	case !errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("opening the control socket: %w", err)
	}
	lc := net.ListenConfig{Control: ownerOnly}
	l, err := lc.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, fmt.Errorf("opening the control socket: %w", err)
	}
	return l, nil
}

func removeStale(path string) error {
	st, err := os.Lstat(path)
	if err == nil && st.Mode().Type() != os.ModeSocket {
		err = fmt.Errorf("%s is no socket", path)
	}
	if err == nil {
		err = os.Remove(path)
	}
	if err != nil {
		return fmt.Errorf("removing a stale control socket: %w", err)
	}
	return nil
}

// ownerOnly sets the mode before the socket has a name: Linux gives the name the mode of
// the socket, so that there is no moment in which others could connect.
func ownerOnly(_, _ string, c syscall.RawConn) (err error) {
	ctl := c.Control(func(fd uintptr) { err = syscall.Fchmod(int(fd), 0o600) }) //nolint:gosec // a file descriptor fits
	return errors.Join(ctl, err)
}

// Serve answers on l until ctx ends.
func Serve(ctx context.Context, l net.Listener, r Router) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", answer(func(ctx context.Context, _ struct{}) (Status, error) { return r.Status(ctx) }))
	mux.HandleFunc("GET /portal", answer(func(ctx context.Context, _ struct{}) (Portal, error) { return r.Portal(ctx) }))
	mux.HandleFunc("POST /login", answer(r.Login))
	mux.HandleFunc("POST /hangup", answer(r.Hangup))
	mux.HandleFunc("POST /passwd", answer(func(ctx context.Context, p Passwd) (struct{}, error) { return struct{}{}, r.Passwd(ctx, p) }))
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
		if s, ok := any(&in).(interface{ secret() [][]byte }); ok {
			defer func() {
				for _, b := range s.secret() {
					clear(b)
				}
			}()
		}
		if req.Method == http.MethodPost && req.ContentLength != 0 {
			if err := read(req, &in); err != nil {
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

var errTooLong = fmt.Errorf("it is longer than %d bytes", maxBody)

// read decodes a body, of which no copy stays here: it may hold a password.
func read(req *http.Request, in any) error {
	size := int64(maxBody) + 1
	if req.ContentLength > 0 {
		size = min(size, req.ContentLength)
	}
	b := make([]byte, size) // at once: growing would leave pieces behind
	defer clear(b)
	n, err := io.ReadFull(req.Body, b)
	switch {
	case err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		return err
	case n > maxBody:
		return errTooLong
	}
	return strictjson.Decode(b[:n], in)
}

func fail(w http.ResponseWriter, status int, e *Error) {
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(e)
}
