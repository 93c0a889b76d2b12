package boltstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/fnv"
	"io"
	"os"
	"runtime/debug"

	bolt "go.etcd.io/bbolt"

	"twinkey/directory/internal/store"
)

// Check reads every record of the file at path and fails with store.ErrDamaged unless all
// are where they can be found. The file must not be open elsewhere for writing.
func Check(path string) error {
	sum := crc32.NewIEEE() // of every byte, to touch it
	return read(path, func(_ store.Table, _, v []byte) error {
		_, err := sum.Write(v)
		return err
	})
}

// read hands every record of the file at path to f, in order, and fails with
// store.ErrDamaged where there is none to read. bbolt's own checker is not used: it runs in
// a goroutine of its own, where a page that is not there would end the process. What it
// knows besides, which pages are free, matters to writers only, and nobody writes to a
// copy: Replace makes a new file of it.
func read(path string, f func(t store.Table, k, v []byte) error) (err error) {
	if err := checkLength(path); err != nil {
		return err
	}
	if fi, err := os.Stat(path); err == nil && fi.Size() == 0 {
		return fmt.Errorf("opening %s: %w: it is empty", path, store.ErrDamaged)
	}
	defer damagedOnFault(path, &err)()
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: lockTimeout, ReadOnly: true})
	if err != nil {
		return explain(path, err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return db.View(func(tx *bolt.Tx) error {
		if k, _ := tx.Cursor().First(); k == nil {
			return nil // killed before its first transaction: nothing is in it yet
		}
		for t := range store.Tables() {
			b := tx.Bucket([]byte(t.String()))
			if b == nil && t.Later() {
				continue
			}
			if b == nil {
				return fmt.Errorf("reading %s: %w: there is no table %s", path, store.ErrDamaged, t)
			}
			if err := readTable(b, t, f); err != nil {
				return fmt.Errorf("reading %s: %w", path, err)
			}
		}
		return nil
	})
}

func readTable(b *bolt.Bucket, t store.Table, f func(t store.Table, k, v []byte) error) error {
	var last []byte
	c, found := b.Cursor(), b.Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		if at, _ := found.Seek(k); v == nil || !bytes.Equal(at, k) || bytes.Compare(k, last) <= 0 {
			return fmt.Errorf("%w: table %s is out of order", store.ErrDamaged, t)
		}
		if err := f(t, k, v); err != nil {
			return err
		}
		last = append(last[:0], k...)
	}
	return nil
}

// damagedOnFault is deferred around what reads a file that may be damaged: bbolt trusts
// its pages, and panics or reads beyond the mapping where they lie.
func damagedOnFault(path string, err *error) func() {
	before := debug.SetPanicOnFault(true)
	return func() {
		debug.SetPanicOnFault(before)
		if r := recover(); r != nil {
			*err = fmt.Errorf("%w: %s: %v", store.ErrDamaged, path, r)
		}
	}
}

// The layout of a bbolt file: two meta pages, in the byte order of the machine.
//
//	page header  id 8 | flags 2 | count 2 | overflow 4
//	meta         magic 4 | version 4 | page size 4 | flags 4 | root 8+8 | freelist 8 |
//	             pages 8 | transaction 8 | FNV-1a 8 of all before it
const (
	pageHeader   = 16
	metaMagic    = 0xED0CDAED
	metaLength   = 64
	offPageSize  = 8
	offPages     = 40
	offTx        = 48
	offChecksum  = 56
	maxPageSize  = 1 << 16
	leastForMeta = pageHeader + metaLength
)

// checkLength fails with store.ErrDamaged if the file is shorter than its meta pages say,
// as a copy is that broke off: bbolt maps it, and ends the process when it reads there.
// A file without a sound meta page is left to bbolt, which refuses it, and one of no
// length is a database that is about to begin.
func checkLength(path string) (err error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("opening the database: %w", err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return fmt.Errorf("opening the database: %w", err)
	}
	var newest meta
	for _, page := range []int64{0, int64(os.Getpagesize())} {
		if m, ok := readMeta(f, page); ok && m.tx >= newest.tx {
			newest = m
		}
	}
	if need := newest.pages * newest.pageSize; uint64(fi.Size()) < need { //nolint:gosec // a length
		return fmt.Errorf("opening %s: %w: %d bytes long, %d belong to it", path, store.ErrDamaged, fi.Size(), need)
	}
	return nil
}

type meta struct{ pageSize, pages, tx uint64 }

func readMeta(r io.ReaderAt, at int64) (m meta, ok bool) {
	b := make([]byte, leastForMeta)
	if _, err := r.ReadAt(b, at); err != nil {
		return m, false
	}
	b = b[pageHeader:]
	h := fnv.New64a()
	_, _ = h.Write(b[:offChecksum])
	e := binary.NativeEndian
	m = meta{pageSize: uint64(e.Uint32(b[offPageSize:])), pages: e.Uint64(b[offPages:]), tx: e.Uint64(b[offTx:])}
	ok = e.Uint32(b) == metaMagic && e.Uint64(b[offChecksum:]) == h.Sum64() && m.pageSize <= maxPageSize && m.pages < 1<<40
	return m, ok
}
