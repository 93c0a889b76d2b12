package ledger

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// lockTimeout lets a second process fail within a second, and not on a lock that is just
// being let go.
const lockTimeout = 800 * time.Millisecond

// Errors.
var (
	ErrInUse   = errors.New("database is in use by another process")
	ErrStorage = errors.New("the database cannot be written")
	ErrDamaged = errors.New("not a ledger, or a damaged one")
)

var (
	bucketMeta    = []byte("meta")
	bucketTokens  = []byte("tokens")
	bucketUsers   = []byte("users")
	bucketGroups  = []byte("groups")
	bucketRouters = []byte("routers")
	bucketCerts   = []byte("certs")
	bucketIntents = []byte("intents")
	bucketLocks   = []byte("throttles")
	bucketCalls   = []byte("calls")
	bucketLogins  = []byte("logins")
	bucketOrders  = []byte("orders")
	keyClock      = []byte("clock")
)

const (
	keyTold    = "told"
	keySetback = "setback"
	keySources = "sources"
	keyCalls   = "calls/"
)

// Ledger is an open book. Safe for concurrent use.
type Ledger struct{ db *bolt.DB }

// Open opens the ledger at path, and makes it if it is not there. It fails with ErrInUse
// while another process has it, with ErrDamaged if the file is something else.
func Open(path string) (*Ledger, error) {
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: lockTimeout, FreelistType: bolt.FreelistMapType})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("opening %s: %w", path, ErrInUse)
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrChecksum), errors.Is(err, bolterrors.ErrVersionMismatch):
		return nil, fmt.Errorf("opening %s: %w: %w", path, ErrDamaged, err)
	case errors.Is(err, os.ErrNotExist), errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("opening the ledger: %w", err)
	case err != nil:
		return nil, fmt.Errorf("opening %s: %w: %w", path, ErrStorage, err)
	}
	l := &Ledger{db}
	if err := l.addBuckets(); err != nil {
		return nil, errors.Join(fmt.Errorf("preparing %s: %w", path, err), db.Close())
	}
	return l, nil
}

func (l *Ledger) addBuckets() error {
	all := [][]byte{bucketMeta, bucketTokens, bucketUsers, bucketGroups, bucketRouters, bucketCerts, bucketIntents, bucketLocks, bucketCalls, bucketLogins, bucketOrders}
	missing := false
	err := l.db.View(func(tx *bolt.Tx) error {
		for _, b := range all {
			missing = missing || tx.Bucket(b) == nil
		}
		return nil
	})
	if err != nil || !missing { // a full disk must not keep a whole ledger from being read
		return err
	}
	return l.Update(func(tx *Tx) error {
		for _, b := range all {
			if _, err := tx.tx.CreateBucketIfNotExists(b); err != nil {
				return err
			}
		}
		return nil
	})
}

// Close waits for transactions and lets the file go.
func (l *Ledger) Close() error { return l.db.Close() }

// View shows f one consistent state.
func (l *Ledger) View(f func(*Tx) error) error {
	return l.db.View(func(tx *bolt.Tx) error { return f(&Tx{tx}) })
}

// Update makes all changes of f durable before it returns nil, and none if f or it fails.
func (l *Ledger) Update(f func(*Tx) error) error {
	var refused error
	err := l.db.Update(func(tx *bolt.Tx) error {
		refused = f(&Tx{tx})
		return refused
	})
	switch {
	case refused != nil:
		return refused
	case err != nil:
		return fmt.Errorf("writing the ledger: %w: %w", ErrStorage, err)
	}
	return nil
}

// Tx is one transaction, valid until the function that it was handed to returns.
type Tx struct{ tx *bolt.Tx }

func get[T any](tx *Tx, bucket []byte, key string) (v T, ok bool, err error) {
	b := tx.tx.Bucket(bucket).Get([]byte(key))
	if b == nil {
		return v, false, nil
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return v, false, fmt.Errorf("reading %s of %s: %w: %w", key, bucket, ErrDamaged, err)
	}
	return v, true, nil
}

func put(tx *Tx, bucket []byte, key string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encoding %s of %s: %w", key, bucket, err)
	}
	if err := tx.tx.Bucket(bucket).Put([]byte(key), b); err != nil {
		return fmt.Errorf("writing %s of %s: %w: %w", key, bucket, ErrStorage, err)
	}
	return nil
}

func all[T any](tx *Tx, bucket []byte) ([]T, error) {
	out := []T{}
	err := tx.tx.Bucket(bucket).ForEach(func(k, b []byte) error {
		var v T
		if err := json.Unmarshal(b, &v); err != nil {
			return fmt.Errorf("reading %q of %s: %w: %w", k, bucket, ErrDamaged, err)
		}
		out = append(out, v)
		return nil
	})
	return out, err
}

// User looks up a user; ok says whether it is there.
func (tx *Tx) User(uid string) (u User, ok bool, err error) { return get[User](tx, bucketUsers, uid) }

// Group looks up a tunnel group.
func (tx *Tx) Group(name string) (Group, bool, error) { return get[Group](tx, bucketGroups, name) }

// Router looks up a router.
func (tx *Tx) Router(name string) (Router, bool, error) { return get[Router](tx, bucketRouters, name) }

// Cert looks up a certificate by its decimal serial number.
func (tx *Tx) Cert(serial string) (Cert, bool, error) { return get[Cert](tx, bucketCerts, serial) }

// Token looks up a token by its ID.
func (tx *Tx) Token(id string) (Token, bool, error) { return get[Token](tx, bucketTokens, id) }

// Users lists all, by UID.
func (tx *Tx) Users() ([]User, error) { return all[User](tx, bucketUsers) }

// Groups lists all, by name.
func (tx *Tx) Groups() ([]Group, error) { return all[Group](tx, bucketGroups) }

// Routers lists all, by name.
func (tx *Tx) Routers() ([]Router, error) { return all[Router](tx, bucketRouters) }

// Certs lists all, by serial.
func (tx *Tx) Certs() ([]Cert, error) { return all[Cert](tx, bucketCerts) }

// Tokens lists all.
func (tx *Tx) Tokens() ([]Token, error) { return all[Token](tx, bucketTokens) }

// Intents lists what is under way, oldest first.
func (tx *Tx) Intents() ([]Intent, error) { return all[Intent](tx, bucketIntents) }

// PutToken writes a token.
func (tx *Tx) PutToken(t Token) error { return put(tx, bucketTokens, t.ID, t) }

// DeleteToken forgets a token.
func (tx *Tx) DeleteToken(id string) error { return tx.tx.Bucket(bucketTokens).Delete([]byte(id)) }

// AddIntent puts in at the end of the queue and gives it its number.
func (tx *Tx) AddIntent(in *Intent) error {
	n, err := tx.tx.Bucket(bucketIntents).NextSequence()
	if err != nil {
		return fmt.Errorf("numbering an intent: %w: %w", ErrStorage, err)
	}
	in.Number = n
	return tx.PutIntent(*in)
}

// PutIntent writes an intent that has a number.
func (tx *Tx) PutIntent(in Intent) error { return put(tx, bucketIntents, intentKey(in.Number), in) }

// DropIntent takes an intent off the queue.
func (tx *Tx) DropIntent(n uint64) error {
	return tx.tx.Bucket(bucketIntents).Delete([]byte(intentKey(n)))
}

// intentKey sorts as the numbers do.
func intentKey(n uint64) string { return string(binary.BigEndian.AppendUint64(nil, n)) }

// Take writes effects.
func (tx *Tx) Take(e Effects) error {
	var errs []error
	for _, u := range e.Users {
		errs = append(errs, put(tx, bucketUsers, u.UID, u))
	}
	for _, g := range e.Groups {
		errs = append(errs, put(tx, bucketGroups, g.Name, g))
	}
	for _, r := range e.Routers {
		errs = append(errs, put(tx, bucketRouters, r.Name, r))
	}
	for _, c := range e.Certs {
		errs = append(errs, put(tx, bucketCerts, c.Serial, c))
	}
	for _, t := range e.Tokens {
		errs = append(errs, put(tx, bucketTokens, t.ID, t))
	}
	return errors.Join(errs...)
}

// Clock returns the latest time that was ever noted; zero if none was.
func (tx *Tx) Clock() (time.Time, error) {
	t, _, err := get[time.Time](tx, bucketMeta, string(keyClock))
	return t, err
}

// SetClock notes a time.
func (tx *Tx) SetClock(t time.Time) error { return put(tx, bucketMeta, string(keyClock), t) }

// Told returns what the directory has acknowledged last.
func (tx *Tx) Told() (Told, error) {
	t, _, err := get[Told](tx, bucketMeta, keyTold)
	return t, err
}

// SetTold notes what the directory has acknowledged.
func (tx *Tx) SetTold(t Told) error { return put(tx, bucketMeta, keyTold, t) }

// Setback returns what the directory was found not to know any more.
func (tx *Tx) Setback() (Setback, error) {
	s, _, err := get[Setback](tx, bucketMeta, keySetback)
	return s, err
}

// SetSetback notes it; zero: nothing.
func (tx *Tx) SetSetback(s Setback) error { return put(tx, bucketMeta, keySetback, s) }
