package secret

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// ErrMarshal is returned by every encoder that is handed a Key.
var ErrMarshal = errors.New("secret: a key is never marshalled")

const redacted = "key(redacted)"

// Key owns secret bytes. The zero value is an empty key. Copies share the bytes:
// wiping one wipes all.
type Key struct{ b []byte }

// New takes ownership of b: the caller keeps no other reference to it.
func New(b []byte) Key { return Key{b: b} }

// Copy makes a key of its own from b.
func Copy(b []byte) Key { return Key{b: append(make([]byte, 0, len(b)), b...)} }

// Bytes returns the bytes themselves, valid until Wipe.
func (k Key) Bytes() []byte { return k.b }

// Len is the length in bytes.
func (k Key) Len() int { return len(k.b) }

// Equal compares in constant time for keys of the same length.
func (k Key) Equal(o Key) bool { return subtle.ConstantTimeCompare(k.b, o.b) == 1 }

// Wipe overwrites the bytes.
func (k Key) Wipe() { clear(k.b) }

// Format answers every verb with a redaction.
func (k Key) Format(w fmt.State, _ rune) { _, _ = io.WriteString(w, redacted) }

// String answers with a redaction.
func (k Key) String() string { return redacted }

// LogValue answers slog with a redaction.
func (k Key) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText fails with ErrMarshal; so do JSON and XML through it.
func (k Key) MarshalText() ([]byte, error) { return nil, ErrMarshal }

// MarshalBinary fails with ErrMarshal; so does gob through it.
func (k Key) MarshalBinary() ([]byte, error) { return nil, ErrMarshal }
