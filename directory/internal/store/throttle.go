package store

import (
	"context"
	"fmt"
	"time"

	"twinkey/directory/client"
	"twinkey/pkg/lockout"
	"twinkey/pkg/twincert"
)

// Locks lists the locks that hold at now, by key.
func (r *Reader) Locks(now time.Time) ([]lockout.Lock, error) {
	out := []lockout.Lock{}
	for k, v := range r.tx.Range(Throttles, nil) {
		t, err := decode[lockout.Throttle](Throttles, k, v)
		if err != nil {
			return nil, err
		}
		if l, ok := t.LockAt(string(k), now); ok {
			out = append(out, l)
		}
	}
	return out, nil
}

// Unlock releases the locks that u names and says which held. Counts that lock nothing stay. Each release, and each at
// the CA that u tells of, has an audit record.
func (r *Register) Unlock(ctx context.Context, actor string, u client.Unlock) (released []lockout.Lock, err error) {
	if err := CheckUnlock(u); err != nil {
		return nil, err
	}
	err = r.Write(ctx, actor, func(w *Writer) error {
		w.behalf = u.Actor
		all, err := w.Locks(w.now)
		if err != nil {
			return err
		}
		released = []lockout.Lock{}
		for _, l := range all {
			if !l.Concerns(u.UID, u.Router) {
				continue
			}
			if err := w.DeleteThrottle(l.Key()); err != nil {
				return err
			}
			released = append(released, l)
			w.auditUnlock(l, "")
		}
		for _, l := range u.AtCA {
			w.auditUnlock(l, "at the CA: ")
		}
		return nil
	})
	return released, err
}

func (w *Writer) auditUnlock(l lockout.Lock, where string) {
	subject := l.UID
	if subject == "" {
		subject = l.Router
	}
	w.Audit(AuditUnlocked, subject, fmt.Sprintf("%s%s; it would have lasted until %s", where, l.Subject, l.Until.UTC().Format("2006-01-02 15:04:05Z")))
}

// CheckUnlock fails with client.ErrInvalid.
func CheckUnlock(u client.Unlock) error {
	names := map[string]string{"uid": u.UID, "router": u.Router}
	if u.UID == "" && u.Router == "" {
		return fmt.Errorf("%w: name a user, a router, or both", client.ErrInvalid)
	}
	for what, name := range names {
		if err := twincert.CheckName(name); name != "" && err != nil {
			return fmt.Errorf("%w: %s: %w", client.ErrInvalid, what, err)
		}
	}
	if !printable(u.Actor, 0, maxText) {
		return fmt.Errorf("%w: actor", client.ErrInvalid)
	}
	if len(u.AtCA) > client.MaxLocks {
		return fmt.Errorf("%w: more than %d locks", client.ErrInvalid, client.MaxLocks)
	}
	for _, l := range u.AtCA {
		if s, ok := lockout.ParseSubject(l.Key()); !ok || s != l.Subject || !l.Concerns(u.UID, u.Router) {
			return fmt.Errorf("%w: %s is not among what is to be released", client.ErrInvalid, l.Subject)
		}
	}
	return nil
}

// pruneBatch is how many old throttles a new one sweeps: more than one, so that the table
// shrinks to what matters.
const pruneBatch = 16

// PruneThrottles removes some of the throttles that no longer matter, from the first key
// >= from on.
func (w *Writer) PruneThrottles(from string, p lockout.Policy) error {
	var dead []string
	seen := 0
	for k := range w.tx.Range(Throttles, []byte(from)) {
		if seen++; seen > pruneBatch {
			break
		}
		t, ok, err := w.Throttle(string(k))
		if err != nil {
			return err
		}
		if ok && t.Dead(w.now, p) {
			dead = append(dead, string(k))
		}
	}
	for _, k := range dead {
		if err := w.DeleteThrottle(k); err != nil {
			return err
		}
	}
	return nil
}
