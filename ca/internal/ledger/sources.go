package ledger

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"twinkey/pkg/lockout"
)

// ToldSources says whether the directory was told that there are sources.
func (tx *Tx) ToldSources() (bool, error) {
	told, _, err := get[bool](tx, bucketMeta, keySources)
	return told, err
}

// SetToldSources notes what the directory was told of that.
func (tx *Tx) SetToldSources(there bool) error { return put(tx, bucketMeta, keySources, there) }

// Throttle returns the throttle at key.
func (tx *Tx) Throttle(key string) (lockout.Throttle, bool, error) {
	return get[lockout.Throttle](tx, bucketLocks, key)
}

// PutThrottle stores a throttle.
func (tx *Tx) PutThrottle(key string, t lockout.Throttle) error { return put(tx, bucketLocks, key, t) }

// DeleteThrottle forgets one.
func (tx *Tx) DeleteThrottle(key string) error { return tx.tx.Bucket(bucketLocks).Delete([]byte(key)) }

// Locks lists the locks that hold at now, by key.
func (tx *Tx) Locks(now time.Time) ([]lockout.Lock, error) {
	out := []lockout.Lock{}
	err := tx.tx.Bucket(bucketLocks).ForEach(func(k, v []byte) error {
		var t lockout.Throttle
		if err := json.Unmarshal(v, &t); err != nil {
			return fmt.Errorf("reading %q of %s: %w: %w", k, bucketLocks, ErrDamaged, err)
		}
		if l, ok := t.LockAt(string(k), now); ok {
			out = append(out, l)
		}
		return nil
	})
	return out, err
}

// Unlock releases those locks that still hold at now, and says which did. Counts that lock nothing stay.
func (tx *Tx) Unlock(locks []lockout.Lock, now time.Time) ([]lockout.Lock, error) {
	released := []lockout.Lock{}
	for _, l := range locks {
		t, _, err := tx.Throttle(l.Key())
		if err != nil {
			return nil, err
		}
		if _, holds := t.LockAt(l.Key(), now); !holds {
			continue
		}
		if err := tx.DeleteThrottle(l.Key()); err != nil {
			return nil, fmt.Errorf("writing the ledger: %w: %w", ErrStorage, err)
		}
		released = append(released, l)
	}
	return released, nil
}

// pruneBatch is how many throttles a new one looks at: more than one, so that the table shrinks to what matters.
const pruneBatch = 16

// PruneThrottles removes some of those that no longer matter, from the first key >= from on.
func (tx *Tx) PruneThrottles(from string, now time.Time, p lockout.Policy) error {
	c := tx.tx.Bucket(bucketLocks).Cursor()
	var dead [][]byte
	k, v := c.Seek([]byte(from))
	for n := 0; k != nil && n < pruneBatch; n++ {
		var t lockout.Throttle
		if err := json.Unmarshal(v, &t); err != nil {
			return fmt.Errorf("reading %q of %s: %w: %w", k, bucketLocks, ErrDamaged, err)
		}
		if t.Dead(now, p) {
			dead = append(dead, bytes.Clone(k))
		}
		k, v = c.Next()
	}
	for _, k := range dead {
		if err := tx.tx.Bucket(bucketLocks).Delete(k); err != nil {
			return fmt.Errorf("writing the ledger: %w: %w", ErrStorage, err)
		}
	}
	return nil
}

// Login returns what a source said when the user logged in at the router last.
func (tx *Tx) Login(uid, router string) (Login, bool, error) {
	return get[Login](tx, bucketLogins, uid+"/"+router)
}

// Logins returns those of a user, by router.
func (tx *Tx) Logins(uid string) ([]Login, error) { return beginning[Login](tx, bucketLogins, uid+"/") }

// PutLogin notes it.
func (tx *Tx) PutLogin(l Login) error { return put(tx, bucketLogins, l.UID+"/"+l.Router, l) }

// Order returns the newest that a source has ordered about a user.
func (tx *Tx) Order(source, uid string) (Order, bool, error) {
	return get[Order](tx, bucketOrders, source+"/"+uid)
}

// PutOrder notes it.
func (tx *Tx) PutOrder(o Order) error { return put(tx, bucketOrders, o.Source+"/"+o.UID, o) }

// CallsTold returns up to which of the directory's records a source was told of calls.
func (tx *Tx) CallsTold(source string) (uint64, error) {
	n, _, err := get[uint64](tx, bucketMeta, keyCalls+source)
	return n, err
}

// SetCallsTold notes it.
func (tx *Tx) SetCallsTold(source string, n uint64) error {
	return put(tx, bucketMeta, keyCalls+source, n)
}

// no name of a source has a slash in it.
func callKey(source, name string) string { return source + "/" + name }

// OpenCall looks up a call of which the source knows.
func (tx *Tx) OpenCall(source, name string) (OpenCall, bool, error) {
	return get[OpenCall](tx, bucketCalls, callKey(source, name))
}

// PutOpenCall writes one.
func (tx *Tx) PutOpenCall(c OpenCall) error {
	return put(tx, bucketCalls, callKey(c.Source, c.Name), c)
}

// DropOpenCall forgets one.
func (tx *Tx) DropOpenCall(source, name string) error {
	return tx.tx.Bucket(bucketCalls).Delete([]byte(callKey(source, name)))
}

// OpenCalls lists those of a source whose names begin so.
func (tx *Tx) OpenCalls(source, begin string) ([]OpenCall, error) {
	return beginning[OpenCall](tx, bucketCalls, callKey(source, begin))
}

// beginning lists what is in a bucket under keys that begin so.
func beginning[T any](tx *Tx, bucket []byte, begin string) (out []T, err error) {
	prefix := []byte(begin)
	c := tx.tx.Bucket(bucket).Cursor()
	for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = c.Next() {
		var o T
		if err := json.Unmarshal(v, &o); err != nil {
			return nil, fmt.Errorf("reading %q of %s: %w: %w", k, bucket, ErrDamaged, err)
		}
		out = append(out, o)
	}
	return out, nil
}
