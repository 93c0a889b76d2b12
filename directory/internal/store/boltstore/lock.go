package boltstore

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"twinkey/directory/internal/store"
)

const lockPoll = 20 * time.Millisecond

// lock is the exclusive right to a database path. The file stays: removing it would let
// two processes hold locks on two files of the same name.
type lock struct{ f *os.File }

// acquire takes the lock of the database at path, or fails with store.ErrInUse and the
// process that holds it.
func acquire(path string) (*lock, error) {
	f, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the database's lock: %w", err)
	}
	for deadline := time.Now().Add(lockTimeout); ; time.Sleep(lockPoll) {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(fmt.Errorf("locking the database: %w", err), f.Close())
		}
		if time.Now().After(deadline) {
			return nil, errors.Join(fmt.Errorf("opening %s: %w%s", path, store.ErrInUse, holder(f)), f.Close())
		}
	}
	// The note is for people; a full disk must not keep the database shut.
	if f.Truncate(0) == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return &lock{f}, nil
}

func holder(f *os.File) string {
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 32))
	pid := strings.TrimSpace(string(b))
	if err != nil || pid == "" {
		return ""
	}
	return fmt.Sprintf(" (pid %s)", pid)
}

func (l *lock) release() error { return l.f.Close() }
