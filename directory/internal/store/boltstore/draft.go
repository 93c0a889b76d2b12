package boltstore

import (
	"bytes"
	"errors"
	"iter"
	"maps"
	"slices"

	"twinkey/directory/internal/store"
)

// draft is what one update would change in a transaction that it shares with others. It sees its own changes; until apply nobody
// else does, so an update that fails leaves the others' as they are.
type draft struct {
	under   boltTx
	changed map[store.Table]map[string][]byte // nil: deleted
}

var _ store.Tx = (*draft)(nil)

func (d *draft) set(t store.Table, key, value []byte) {
	if d.changed == nil {
		d.changed = map[store.Table]map[string][]byte{}
	}
	if d.changed[t] == nil {
		d.changed[t] = map[string][]byte{}
	}
	d.changed[t][string(key)] = value
}

// apply hands the changes to the transaction below. If it fails the transaction must not be committed.
func (d *draft) apply() error {
	for t, table := range d.changed {
		for k, v := range table {
			var err error
			if v == nil {
				err = d.under.Delete(t, []byte(k))
			} else {
				err = d.under.Put(t, []byte(k), v)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *draft) Get(t store.Table, key []byte) []byte {
	if v, ok := d.changed[t][string(key)]; ok {
		return v
	}
	return d.under.Get(t, key)
}

// errKey is what bbolt would say of it later, when it is too late for one update alone.
var errKey = errors.New("an empty key or value, or a key that is too long")

func (d *draft) Put(t store.Table, key, value []byte) error {
	const maxKey = 32768 // bbolt's
	if len(key) == 0 || len(key) > maxKey || len(value) == 0 {
		return errKey
	}
	d.set(t, key, bytes.Clone(value))
	return nil
}

func (d *draft) Delete(t store.Table, key []byte) error {
	d.set(t, key, nil)
	return nil
}

func (d *draft) Range(t store.Table, from []byte) iter.Seq2[[]byte, []byte] {
	table := d.changed[t]
	if len(table) == 0 {
		return d.under.Range(t, from)
	}
	return func(yield func(k, v []byte) bool) {
		mine := slices.DeleteFunc(slices.Sorted(maps.Keys(table)), func(k string) bool { return k < string(from) })
		// own yields what was changed and lies before the key of the transaction below; nil: all of it.
		own := func(before []byte) bool {
			for len(mine) > 0 && (before == nil || mine[0] < string(before)) {
				k := mine[0]
				mine = mine[1:]
				if v := table[k]; v != nil && !yield([]byte(k), v) {
					return false
				}
			}
			return true
		}
		for k, v := range d.under.Range(t, from) {
			if !own(k) {
				return
			}
			if _, ok := table[string(k)]; !ok && !yield(k, v) {
				return
			}
		}
		own(nil)
	}
}

func (d *draft) Last(t store.Table) (key, value []byte) {
	table := d.changed[t]
	for k, v := range table {
		if v != nil && k > string(key) {
			key, value = []byte(k), v
		}
	}
	c := d.under.bucket(t).Cursor()
	for k, v := c.Last(); k != nil && bytes.Compare(k, key) > 0; k, v = c.Prev() {
		if _, ok := table[string(k)]; !ok {
			return k, v
		}
	}
	return key, value
}
