package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Exit codes, as the package comment lists them.
const (
	ExitOK          = 0
	ExitFailure     = 1
	ExitUsage       = 2
	ExitConfig      = 3
	ExitUnavailable = 4
	ExitDenied      = 5
	ExitNotFound    = 6
	ExitConflict    = 7
	ExitInUse       = 8
	ExitPending     = 9
	ExitInterrupted = 130 // 128 + SIGINT, as shells have it
)

const exitTable = `Exit codes:

  0    done
  1    failed for another reason than those below
  2    wrong usage: unknown command or flag, missing argument
  3    the configuration file is missing or wrong
  4    a service or peer cannot be reached; trying again may help
  5    refused: not allowed, wrong password, revoked or expired
  6    the thing that was asked for does not exist
  7    it exists already, or contradicts what is there
  8    in use by another process
  9    recorded, but not told to everybody yet; it will be, by itself
  130  interrupted by a signal
`

// Error is a failure in three parts and the exit code that it calls for.
type Error struct {
	Code int
	What string // what was tried: "adding user alice"
	Why  error  // may be nil where What says all
	Hint string // what to do next; empty only where there is nothing that helps
}

func (e *Error) Error() string {
	if e.Why == nil {
		return e.What
	}
	return e.What + ": " + e.Why.Error()
}

func (e *Error) Unwrap() error { return e.Why }

// Fail makes an *Error. Where why already is one, or wraps one, its code stands if code
// is ExitFailure and its hint if hint is empty.
func Fail(code int, what string, why error, hint string) error {
	if inner, ok := errors.AsType[*Error](why); ok {
		if code == ExitFailure {
			code = inner.Code
		}
		if hint == "" {
			hint = inner.Hint
		}
	}
	return &Error{Code: code, What: what, Why: why, Hint: hint}
}

// Within says what was tried when why, which is or wraps an *Error, came of it: code and hint are those of why.
func Within(what string, why error) error { return Fail(ExitFailure, what, why, "") }

// Code is the exit code for err.
func Code(err error) int {
	if err == nil {
		return ExitOK
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	if errors.Is(err, context.Canceled) {
		return ExitInterrupted
	}
	return ExitFailure
}

// WriteError writes err for a person, as the package comment shows.
func WriteError(w io.Writer, program string, err error) error {
	var b strings.Builder
	e, ok := errors.AsType[*Error](err)
	if !ok {
		fmt.Fprintf(&b, "%s: %s\n", program, err)
		_, err := io.WriteString(w, b.String())
		return err
	}
	what, why := e.What, e.Why
	if err != error(e) { //nolint:errorlint // whether e was wrapped once more: then show it all, the shorter evil
		what, why = err.Error(), nil
	}
	fmt.Fprintf(&b, "%s: %s\n", program, what)
	if why != nil {
		fmt.Fprintf(&b, "  why:  %s\n", hang(why.Error()))
	}
	if e.Hint != "" {
		fmt.Fprintf(&b, "  hint: %s\n", hang(e.Hint))
	}
	_, err = io.WriteString(w, b.String())
	return err
}

// hang indents all lines but the first to below its start.
func hang(s string) string { return strings.ReplaceAll(s, "\n", "\n        ") }
