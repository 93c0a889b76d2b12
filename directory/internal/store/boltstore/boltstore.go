package boltstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"twinkey/directory/internal/store"
)

const (
	lockTimeout = 800 * time.Millisecond // an error within a second, also when the lock is just being let go
	// A writer that needs a larger map waits for all readers, and a backup can read for
	// minutes. Address space, not memory.
	initialMap = 1 << 30
)

// Store is an open database.
type Store struct {
	db    *bolt.DB
	lock  *lock
	group group
}

var _ store.Store = (*Store)(nil)

// Open opens the database at path and makes it if it is not there. It fails with
// store.ErrInUse while another process has it open and with store.ErrDamaged if the file
// is something else or damaged: every record is read once, because bbolt itself would not
// notice before somebody asks for a page that is not what it was.
func Open(path string) (*Store, error) {
	l, err := acquire(path)
	if err != nil {
		return nil, err
	}
	if fi, err := os.Stat(path); err == nil && fi.Size() > 0 {
		if err := Check(path); err != nil {
			return nil, errors.Join(err, l.release())
		}
	}
	s, err := open(path)
	if err != nil {
		return nil, errors.Join(err, l.release())
	}
	s.lock = l
	return s, nil
}

// open opens a file that nobody else may open, without the lock beside it.
func open(path string) (s *Store, err error) {
	if err := checkLength(path); err != nil {
		return nil, err
	}
	defer damagedOnFault(path, &err)()
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: lockTimeout, InitialMmapSize: initialMap, FreelistType: bolt.FreelistMapType})
	if err != nil {
		return nil, explain(path, err)
	}
	s = &Store{db: db}
	if err := s.addBuckets(); err != nil {
		return nil, errors.Join(fmt.Errorf("preparing database %s: %w", path, err), s.Close())
	}
	return s, nil
}

func explain(path string, err error) error {
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return fmt.Errorf("opening %s: %w", path, store.ErrInUse)
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrChecksum), errors.Is(err, bolterrors.ErrVersionMismatch):
		return fmt.Errorf("opening %s: %w: %w", path, store.ErrDamaged, err)
	case errors.Is(err, os.ErrNotExist), errors.Is(err, os.ErrPermission):
		return fmt.Errorf("opening the database: %w", err)
	}
	return fmt.Errorf("opening database %s: %w: %w", path, store.ErrWrite, err)
}

func (s *Store) addBuckets() error {
	missing := false
	if err := s.db.View(func(tx *bolt.Tx) error {
		for t := range store.Tables() {
			missing = missing || tx.Bucket([]byte(t.String())) == nil
		}
		return nil
	}); err != nil {
		return err
	}
	if !missing { // a full disk must not keep a whole database from being read
		return nil
	}
	err := s.db.Update(func(tx *bolt.Tx) error {
		for t := range store.Tables() {
			if _, err := tx.CreateBucketIfNotExists([]byte(t.String())); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("%w: %w", store.ErrWrite, err)
	}
	return nil
}

// Path is where the database lies.
func (s *Store) Path() string { return s.db.Path() }

// View implements store.Store.
func (s *Store) View(ctx context.Context, f func(store.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.db.View(func(tx *bolt.Tx) error { return f(boltTx{tx}) })
}

// Backup implements store.Store.
func (s *Store) Backup(ctx context.Context, w io.Writer, size func(int64)) error {
	return s.db.View(func(tx *bolt.Tx) error {
		if size != nil {
			size(tx.Size())
		}
		if _, err := tx.WriteTo(ctxWriter{ctx, w}); err != nil {
			return fmt.Errorf("copying the database: %w", err)
		}
		return nil
	})
}

// Close waits for transactions and lets the database go.
func (s *Store) Close() error {
	err := s.db.Close()
	if s.lock != nil {
		err = errors.Join(err, s.lock.release())
	}
	return err
}

// ctxWriter ends a long copy when its reader has gone.
type ctxWriter struct {
	ctx context.Context
	w   io.Writer
}

func (c ctxWriter) Write(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.w.Write(p)
}

type boltTx struct{ tx *bolt.Tx }

func (b boltTx) bucket(t store.Table) *bolt.Bucket { return b.tx.Bucket([]byte(t.String())) }

func (b boltTx) Get(t store.Table, key []byte) []byte { return b.bucket(t).Get(key) }

func (b boltTx) Put(t store.Table, key, value []byte) error {
	if err := b.bucket(t).Put(key, value); err != nil {
		return fmt.Errorf("writing to table %s: %w: %w", t, store.ErrWrite, err)
	}
	return nil
}

func (b boltTx) Delete(t store.Table, key []byte) error {
	if err := b.bucket(t).Delete(key); err != nil {
		return fmt.Errorf("deleting from table %s: %w: %w", t, store.ErrWrite, err)
	}
	return nil
}

func (b boltTx) Range(t store.Table, from []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(k, v []byte) bool) {
		c := b.bucket(t).Cursor()
		for k, v := c.Seek(from); k != nil; k, v = c.Next() {
			if !yield(k, v) {
				return
			}
		}
	}
}

func (b boltTx) Last(t store.Table) (key, value []byte) { return b.bucket(t).Cursor().Last() }
