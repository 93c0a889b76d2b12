package boltstore_test

import (
	"errors"
	"path/filepath"
	"testing"

	bolt "go.etcd.io/bbolt"

	"twinkey/directory/internal/store"
	"twinkey/directory/internal/store/boltstore"
)

// A database of an earlier version lacks the tables that came later and is whole; one that lacks another is not.
func TestTablesOfEarlierVersions(t *testing.T) {
	for table := range store.Tables() {
		path := filepath.Join(t.TempDir(), "directory.db")
		s, err := boltstore.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		register(t, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		db, err := bolt.Open(path, 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := db.Update(func(tx *bolt.Tx) error { return tx.DeleteBucket([]byte(table.String())) }); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		s, err = boltstore.Open(path)
		if !table.Later() {
			if !errors.Is(err, store.ErrDamaged) {
				t.Errorf("without table %s: %v", table, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("without table %s: %v", table, err)
			continue
		}
		if err := s.Update(t.Context(), func(tx store.Tx) error { return tx.Put(table, []byte("k"), []byte("v")) }); err != nil {
			t.Errorf("table %s was not made: %v", table, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
