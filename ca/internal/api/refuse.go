package api

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	caclient "twinkey/ca/client"
	"twinkey/ca/internal/authority"
	"twinkey/ca/internal/board"
	"twinkey/ca/internal/enroll"
	"twinkey/ca/internal/issue"
	"twinkey/ca/internal/ledger"
	"twinkey/ca/internal/login"
	dirclient "twinkey/directory/client"
)

// errTooMany is what the rate limit says.
var errTooMany = errors.New("too many requests from this address")

// refusals is asked from the top: what an error wraps decides, the more telling first.
var refusals = []struct {
	err    error
	code   string
	status int
}{
	{errTooMany, caclient.CodeTooMany, http.StatusTooManyRequests},
	{enroll.ErrBusy, caclient.CodeTooMany, http.StatusTooManyRequests},
	{login.ErrTooMany, caclient.CodeTooMany, http.StatusTooManyRequests},
	{login.ErrLoginKey, caclient.CodeLoginKey, http.StatusConflict},
	{login.ErrLocked, caclient.CodeLocked, http.StatusTooManyRequests},
	{login.ErrDenied, caclient.CodeDenied, http.StatusForbidden},
	{login.ErrSource, caclient.CodeSource, http.StatusServiceUnavailable},
	{issue.ErrToken, caclient.CodeDenied, http.StatusForbidden},
	{issue.ErrRevoked, caclient.CodeDenied, http.StatusForbidden},
	{enroll.ErrPossession, caclient.CodeDenied, http.StatusForbidden},
	{issue.ErrForeign, caclient.CodeDenied, http.StatusForbidden},
	{board.ErrFull, caclient.CodeTooMany, http.StatusTooManyRequests},
	{board.ErrInvalid, caclient.CodeInvalid, http.StatusBadRequest},
	{errPeer, caclient.CodeDenied, http.StatusForbidden},
	{enroll.ErrChallenge, caclient.CodeUnavailable, http.StatusServiceUnavailable}, // the next one may be in time
	{enroll.ErrRequest, caclient.CodeInvalid, http.StatusBadRequest},
	{errBody, caclient.CodeInvalid, http.StatusBadRequest},
	{issue.ErrInvalid, caclient.CodeInvalid, http.StatusBadRequest},
	{issue.ErrExists, caclient.CodeConflict, http.StatusConflict},
	{issue.ErrUnknown, caclient.CodeNotFound, http.StatusNotFound},
	{ledger.ErrStorage, caclient.CodeStorage, http.StatusInsufficientStorage},
	{authority.ErrStorage, caclient.CodeStorage, http.StatusInsufficientStorage},
	{dirclient.ErrStorage, caclient.CodeStorage, http.StatusInsufficientStorage},
}

// codeOf says how err is refused. What is not listed is no fault of the request.
func codeOf(err error) (code string, status int) {
	for _, r := range refusals {
		if errors.Is(err, r.err) {
			return r.code, r.status
		}
	}
	return caclient.CodeUnavailable, http.StatusServiceUnavailable
}

// after is how long whoever was refused should wait.
func after(code string, err error) time.Duration {
	if l, ok := errors.AsType[*login.LockedError](err); ok {
		return max(l.RetryAfter, time.Second)
	}
	if code == caclient.CodeTooMany {
		return time.Second
	}
	return 0
}

// public is what a stranger may read of err: our own words for what is wrong with the
// request, nothing of paths, databases and addresses of ours.
func public(code string, err error) string {
	switch code {
	case caclient.CodeSource:
		if s, ok := errors.AsType[*login.SourceError](err); ok {
			return s.Name // the name alone: what the source said is for the log
		}
	case caclient.CodeStorage, caclient.CodeUnavailable:
		for _, known := range []error{enroll.ErrChallenge, issue.ErrClock, issue.ErrNoDirectory, dirclient.ErrUnavailable, issue.ErrUndecided, issue.ErrUnrecorded} {
			if errors.Is(err, known) {
				return known.Error()
			}
		}
		return "the CA cannot do it now; its operator's log says why"
	}
	return err.Error()
}

func writeError(w http.ResponseWriter, status int, code, message string, after time.Duration) {
	var e caclient.ErrorBody
	e.Error.Code, e.Error.Message, e.Error.RetryAfterMS = code, message, after.Milliseconds()
	if after > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(after.Seconds())+1))
	}
	writeJSON(w, status, e)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil { // a type of ours that cannot be encoded: tests find it
		http.Error(w, "encoding the answer failed", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(b) // the client has gone
}
