package keylog

import (
	"fmt"
	"os"
	"sync"
	"syscall"

	"twinkey/pkg/identity"
	"twinkey/proto/esp"
	"twinkey/proto/secret"
)

// File is an open key log. A nil *File logs nothing. Safe for concurrent use.
type File struct {
	mu sync.Mutex
	f  *os.File
}

// Open appends to path, which is made with mode 0600. What others may read or write, a
// symbolic link, and what is no ordinary file are refused.
func Open(path string) (*File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600) //nolint:gosec // the operator names it
	if err != nil {
		return nil, fmt.Errorf("opening the key log: %w", err)
	}
	st, err := f.Stat()
	switch {
	case err != nil:
	case !st.Mode().IsRegular():
		err = fmt.Errorf("%s is no ordinary file", path)
	default:
		err = identity.OwnerOnly(path, st.Mode())
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("opening the key log: %w", err)
	}
	return &File{f: f}, nil
}

// Log writes one association's line. Addresses are wildcards: a peer may move, and the
// SPI names the association.
func (l *File) Log(spi uint32, s esp.Suite, key secret.Key) error {
	if l == nil {
		return nil
	}
	line := esp.AppendKeyLog(nil, "*", "*", spi, s, key)
	defer clear(line)
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := l.f.Write(line); err != nil {
		return fmt.Errorf("writing the key log: %w", err)
	}
	return nil
}

// Close ends the log.
func (l *File) Close() error {
	if l == nil {
		return nil
	}
	return l.f.Close()
}
