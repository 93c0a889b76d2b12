package config

import (
	"fmt"
	"strings"

	"github.com/goccy/go-yaml/token"
)

// Error is one fault in a configuration file.
type Error struct {
	File         string
	Line, Column int    // from 1; 0 where the fault has no place
	Key          string // full path, such as tun.mtu; empty for a fault of the syntax
	Source       string // the line, as it stands in the file
	Reason       string
	Hint         string // what to do; may be empty
	Err          error  // cause, if another function gave one
}

// Error is the place, what is wrong, and the line with a mark below the column.
func (e *Error) Error() string {
	var b strings.Builder
	if e.File != "" { // else it comes from a check, and nobody has looked for its place
		b.WriteString(e.File)
		if e.Line > 0 {
			fmt.Fprintf(&b, ":%d:%d", e.Line, e.Column)
		}
		b.WriteString(": ")
	}
	if e.Key != "" {
		fmt.Fprintf(&b, "%s: ", e.Key)
	}
	b.WriteString(e.Reason)
	if e.Hint != "" {
		fmt.Fprintf(&b, "; %s", e.Hint)
	}
	if e.Line > 0 && e.Source != "" {
		number := fmt.Sprintf("%5d", e.Line)
		fmt.Fprintf(&b, "\n%s | %s\n%s | %s^", number, e.Source, strings.Repeat(" ", len(number)), indent(e.Source, e.Column))
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.Err }

// indent is white space as wide as what stands before column, tabs kept.
func indent(source string, column int) string {
	var b strings.Builder
	for i, r := range []rune(source) {
		if i >= column-1 {
			break
		}
		if r != '\t' {
			r = ' '
		}
		b.WriteRune(r)
	}
	return b.String()
}

// file is what an Error needs to know of the text.
type file struct {
	name  string
	lines []string
}

// maxShown bounds how much of a line is shown.
const maxShown = 200

func (f *file) fault(at *token.Token, key, reason, hint string, cause error) *Error {
	e := &Error{File: f.name, Key: key, Reason: reason, Hint: hint, Err: cause}
	f.locate(e, at)
	return e
}

// Wrong is an *Error for a check: what is wrong with the value of key.
func Wrong(key string, err error) *Error { return &Error{Key: key, Reason: err.Error(), Err: err} }

// locate fills in where e is, and the line.
func (f *file) locate(e *Error, at *token.Token) {
	if at == nil || at.Position == nil {
		return
	}
	e.Line, e.Column = at.Position.Line, at.Position.Column
	if e.Line >= 1 && e.Line <= len(f.lines) {
		e.Source = strings.TrimRight(f.lines[e.Line-1], "\r")
		if len(e.Source) > maxShown {
			e.Source = strings.ToValidUTF8(e.Source[:maxShown], "") + "..."
		}
	}
}
