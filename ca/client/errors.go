package client

import (
	"errors"
	"fmt"
	"time"
)

// What a call can fail with besides the context's error; ask with errors.Is. Details are
// in *Error.
var (
	ErrDenied      = errors.New("refused by the CA")           // token or certificate is not good for it
	ErrInvalid     = errors.New("invalid request")             // the same request can never succeed
	ErrConflict    = errors.New("contradicts what the CA has") // such as a name that is taken
	ErrTooMany     = errors.New("too many requests")
	ErrLocked      = errors.New("locked after too many tries")                              // see Error.RetryAfter
	ErrLoginKey    = errors.New("sealed to a login key that the CA does not have any more") // seal it to another one
	ErrSource      = errors.New("the CA cannot ask the source that knows users")            // trying again may help
	ErrUnavailable = errors.New("the CA cannot be reached, or cannot do it now")            // trying again may help
	ErrFingerprint = errors.New("no root of this CA has the fingerprint")
	ErrAnswer      = errors.New("the CA's answer is wrong")
)

// The codes of refusals on the wire.
const (
	CodeDenied      = "denied"
	CodeInvalid     = "invalid"
	CodeConflict    = "conflict"
	CodeNotFound    = "not-found"
	CodeTooMany     = "too-many"
	CodeStorage     = "storage"
	CodeUnavailable = "unavailable"
	CodeLocked      = "locked"
	CodeSource      = "source-unavailable"
	CodeLoginKey    = "login-key"
)

// Error is a call that failed. It unwraps to one of the errors above and to the cause.
type Error struct {
	Op         string // what was asked, such as "enrolling"
	Code       string // one of the Code constants
	Message    string // the CA's words
	RetryAfter time.Duration
	Err        error // cause on our side; nil if the CA refused
}

func (e *Error) Error() string {
	s := e.Op + ": " + sentinel(e.Code).Error()
	if e.Message != "" {
		s += ": " + e.Message
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	if e.RetryAfter > 0 {
		s += fmt.Sprintf(" (again in %s)", e.RetryAfter.Round(time.Second))
	}
	return s
}

// Unwrap yields the sentinel of Code and the cause.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{sentinel(e.Code)}
	}
	return []error{sentinel(e.Code), e.Err}
}

func sentinel(code string) error {
	switch code {
	case CodeDenied:
		return ErrDenied
	case CodeInvalid:
		return ErrInvalid
	case CodeConflict:
		return ErrConflict
	case CodeTooMany:
		return ErrTooMany
	case CodeLocked:
		return ErrLocked
	case CodeSource:
		return ErrSource
	case CodeLoginKey:
		return ErrLoginKey
	}
	return ErrUnavailable
}
