package store_test

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"twinkey/directory/client"
	"twinkey/directory/internal/store/storetest"
)

// Whatever a change says, it is stored whole, or refused with a reason and nothing stored;
// stored once, it is a success that alters nothing.
func FuzzApply(f *testing.F) {
	var seeds [][]byte // as JSON: decoding onto a change would write into the slices of the seed
	f.Add([]byte(`{"change_id":"x"}`))
	f.Add([]byte(`{"change_id":"x","crl":"AAAA"}`))
	f.Add([]byte(`{"change_id":"x","groups":[{"name":"g","control":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}]}`))
	f.Add([]byte(`{"change_id":"x","revocations":[{"id":"1@30","name":"a","time":"2026-01-01T00:00:00Z"}]}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		b := newBook(t)
		if seeds == nil {
			c := storetest.NewCompany(t, time.Now())
			for _, ch := range []client.Change{c.NewUser("alice", "staff", "x").Change(), c.NewRouter("berlin", nil, "10.0.0.0/8").Change()} {
				seed, err := json.Marshal(ch)
				if err != nil {
					t.Fatal(err)
				}
				seeds = append(seeds, seed)
			}
		}
		for _, seed := range seeds {
			var ch client.Change
			if err := json.Unmarshal(seed, &ch); err != nil {
				t.Fatal(err)
			}
			if json.Unmarshal(in, &ch) != nil {
				return
			}
			before := b.revision()
			_, err := b.Apply(t.Context(), ca, ch)
			switch {
			case err == nil:
				if _, err := b.Apply(t.Context(), ca, ch); err != nil || b.revision() > before+1 {
					t.Errorf("the same again: revision %d after %d, %v", b.revision(), before, err)
				}
			case !errors.Is(err, client.ErrInvalid) && !errors.Is(err, client.ErrConflict):
				t.Errorf("got %v", err)
			case b.revision() != before:
				t.Error("a refused change made a revision")
			}
		}
	})
}
