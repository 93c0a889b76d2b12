package store

import "twinkey/pkg/lockout"

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
