package portal

import (
	"bytes"
	"errors"
)

// maxBody is what a login may take: a UserID, a password of any sane length in percent signs, a token.
const maxBody = 4 << 10

// errForm is all that is said of a form that no page of ours has sent.
var errForm = errors.New("that is no form of this page")

// parseForm reads application/x-www-form-urlencoded into fields. It decodes in place: the values are parts of b, and whoever wipes b
// wipes them. Each field may come once, others not at all. Unlike net/url it makes no string that nobody could wipe.
func parseForm(b []byte, fields map[string]*[]byte) error {
	seen := 0
	for len(b) > 0 {
		var pair []byte
		pair, b, _ = bytes.Cut(b, []byte{'&'})
		if len(pair) == 0 {
			continue
		}
		name, value, _ := bytes.Cut(pair, []byte{'='})
		name, ok := unescape(name)
		if !ok {
			return errForm
		}
		to, ok := fields[string(name)] // the compiler makes no string for this
		if !ok || *to != nil {
			return errForm
		}
		if value, ok = unescape(value); !ok {
			return errForm
		}
		if value == nil {
			value = []byte{}
		}
		*to = value
		seen++
	}
	if seen != len(fields) {
		return errForm
	}
	return nil
}

// unescape decodes in place, and clears what it no longer needs.
func unescape(b []byte) ([]byte, bool) {
	n := 0
	for i := 0; i < len(b); i++ {
		c := b[i]
		switch c {
		case '+':
			c = ' '
		case '%':
			if i+2 >= len(b) {
				return nil, false
			}
			hi, ok1 := hex(b[i+1])
			lo, ok2 := hex(b[i+2])
			if !ok1 || !ok2 {
				return nil, false
			}
			c = hi<<4 | lo
			i += 2
		case ';':
			return nil, false // once another separator: net/url refuses it too
		}
		b[n] = c
		n++
	}
	clear(b[n:])
	return b[:n:n], true
}

func hex(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}
