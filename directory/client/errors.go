package client

import (
	"errors"
	"fmt"
	"time"
)

// What a call can fail with besides the context's error; ask with errors.Is. Details are
// in *Error.
var (
	ErrDenied      = errors.New("denied")                       // not yours to ask, or the login failed
	ErrLocked      = errors.New("locked after too many tries")  // see Error.RetryAfter
	ErrConflict    = errors.New("conflicts with what is there") // same ChangeID, other content; older CRL
	ErrInvalid     = errors.New("invalid request")              // the same request can never succeed
	ErrNotFound    = errors.New("not found")
	ErrTooMany     = errors.New("too many requests")
	ErrStorage     = errors.New("the directory cannot write to its disk")
	ErrUnavailable = errors.New("the directory cannot be reached") // also: broke off, answered nonsense
)

// The codes of refusals on the wire.
const (
	CodeDenied      = "denied"
	CodeLocked      = "locked"
	CodeConflict    = "conflict"
	CodeInvalid     = "invalid"
	CodeNotFound    = "not-found"
	CodeTooMany     = "too-many"
	CodeStorage     = "storage"
	CodeUnavailable = "unavailable"
)

// Error is a call that failed. It unwraps to one of the errors above and to the cause.
type Error struct {
	Op         string        // what was asked, such as "applying a change"
	Code       string        // one of the Code constants
	Message    string        // the directory's words
	RetryAfter time.Duration // with ErrLocked and ErrTooMany: not sooner; otherwise zero
	Err        error         // cause on our side; nil if the directory refused
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
	case CodeLocked:
		return ErrLocked
	case CodeConflict:
		return ErrConflict
	case CodeInvalid:
		return ErrInvalid
	case CodeNotFound:
		return ErrNotFound
	case CodeTooMany:
		return ErrTooMany
	case CodeStorage:
		return ErrStorage
	}
	return ErrUnavailable
}
