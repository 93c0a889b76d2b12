package api

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"twinkey/directory/client"
	"twinkey/directory/internal/access"
	"twinkey/directory/internal/store"
)

// Counters count since the start.
type Counters struct {
	Requests atomic.Uint64
	Changes  atomic.Uint64 // applied
	Released atomic.Uint64
	Denied   atomic.Uint64
	Locked   atomic.Uint64
	Limited  atomic.Uint64 // too many requests, or watchers
	Failed   atomic.Uint64 // the disk could not be written
	Refused  atomic.Uint64 // connections beyond the limits
}

// verdict is how an error is told.
type verdict struct {
	err    error
	status int
	code   string
	level  slog.Level
	count  func(*Counters) *atomic.Uint64
}

// verdicts in the order in which they are asked.
func verdicts() []verdict {
	return []verdict{
		{client.ErrLocked, http.StatusTooManyRequests, client.CodeLocked, slog.LevelWarn, func(c *Counters) *atomic.Uint64 { return &c.Locked }},
		{client.ErrDenied, http.StatusForbidden, client.CodeDenied, slog.LevelWarn, func(c *Counters) *atomic.Uint64 { return &c.Denied }},
		{client.ErrInvalid, http.StatusBadRequest, client.CodeInvalid, slog.LevelWarn, nil},
		{client.ErrConflict, http.StatusConflict, client.CodeConflict, slog.LevelWarn, nil},
		{client.ErrNotFound, http.StatusNotFound, client.CodeNotFound, slog.LevelDebug, nil},
		{client.ErrTooMany, http.StatusTooManyRequests, client.CodeTooMany, slog.LevelWarn, func(c *Counters) *atomic.Uint64 { return &c.Limited }},
		{store.ErrWrite, http.StatusInsufficientStorage, client.CodeStorage, slog.LevelError, func(c *Counters) *atomic.Uint64 { return &c.Failed }},
	}
}

// judge finds the verdict on err. What we did not foresee is our fault, and not for
// others to read.
func judge(err error) (v verdict, message string) {
	for _, v := range verdicts() {
		if !errors.Is(err, v.err) {
			continue
		}
		switch v.code {
		case client.CodeStorage:
			return v, "nothing was changed; free space on the directory's disk (or find out why it fails), then repeat"
		case client.CodeLocked:
			return v, ""
		}
		return v, err.Error()
	}
	return verdict{status: http.StatusServiceUnavailable, code: client.CodeUnavailable, level: slog.LevelError}, "the directory has an internal fault; its log tells which"
}

func (s *Server) refuse(w http.ResponseWriter, err error) {
	v, message := judge(err)
	var b client.ErrorBody
	b.Error.Code, b.Error.Message = v.code, message
	if l, ok := errors.AsType[*access.LockedError](err); ok {
		b.Error.RetryAfterMS = max(l.RetryAfter, time.Second).Milliseconds()
	}
	if v.code == client.CodeTooMany {
		b.Error.RetryAfterMS = time.Second.Milliseconds()
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(v.status)
	_ = json.NewEncoder(w).Encode(b)
}

// note counts and logs a refusal. Strangers do not fill the log.
func (s *Server) note(r *request, err error) {
	v, _ := judge(err)
	if v.count != nil {
		v.count(&s.Counters).Add(1)
	}
	write := func() {
		s.log.Log(r.ctx(), v.level, "request-refused", "code", v.code, "caller", r.who.URI, "remote", r.http.RemoteAddr,
			"method", r.http.Method, "path", r.http.URL.Path, "error", err)
	}
	if r.who.URI == "" {
		s.noisy.Do(write)
		return
	}
	write()
}
