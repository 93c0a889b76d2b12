package store_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"twinkey/directory/internal/store"
	"twinkey/directory/internal/store/boltstore"
)

// ledger is a register whose store can be tampered with.
type ledger struct {
	*store.Register
	t *testing.T
	s store.Store
}

func newLedger(t *testing.T) *ledger {
	t.Helper()
	s, err := boltstore.Open(filepath.Join(t.TempDir(), "directory.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	l := &ledger{t: t, s: s}
	if l.Register, err = store.Open(t.Context(), s, time.Now); err != nil {
		t.Fatal(err)
	}
	return l
}

// write makes n records, in two transactions.
func (l *ledger) write(n int) {
	l.t.Helper()
	for _, part := range []int{n / 2, n - n/2} {
		if err := l.Write(l.t.Context(), ca, func(w *store.Writer) error {
			for range part {
				w.Audit(store.AuditDenied, "alice", `asked by "berlin" <script> & \u2028`)
			}
			return nil
		}); err != nil {
			l.t.Fatal(err)
		}
	}
}

func (l *ledger) tamper(f func(store.Tx) error) {
	l.t.Helper()
	if err := l.s.Update(l.t.Context(), f); err != nil {
		l.t.Fatal(err)
	}
}

// verify goes through all in steps of three.
func (l *ledger) verify(noted store.AuditHead) (v store.Verifier, err error) {
	v.Noted = noted
	for more := true; more && err == nil; {
		err = l.Read(l.t.Context(), func(r *store.Reader) (err error) {
			more, err = r.VerifyAudit(&v, 3)
			return err
		})
	}
	return v, err
}

func seq(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

func TestAuditChainShowsTampering(t *testing.T) {
	alter := func(n uint64, old, now string) func(store.Tx) error {
		return func(tx store.Tx) error {
			v := bytes.Clone(tx.Get(store.Audit, seq(n)))
			changed := bytes.Replace(v, []byte(old), []byte(now), 1)
			if bytes.Equal(v, changed) {
				return errors.New("nothing to alter")
			}
			return tx.Put(store.Audit, seq(n), changed)
		}
	}
	stripped := func(v []byte) []byte {
		at := bytes.LastIndex(v, []byte(`,"sum":`))
		return append(bytes.Clone(v[:at]), '}')
	}
	for _, tt := range []struct {
		name   string
		tamper func(store.Tx) error
		seq    uint64
		why    string
	}{
		{"nothing", func(store.Tx) error { return nil }, 0, ""},
		{"a name altered", alter(4, "alice", "carol"), 4, "altered"},
		{"a space added", alter(4, `"kind":`, `"kind": `), 4, "altered"},
		{"a sum altered", func(tx store.Tx) error {
			v := bytes.Clone(tx.Get(store.Audit, seq(5)))
			v[len(v)-3] ^= 1
			return tx.Put(store.Audit, seq(5), v)
		}, 5, "altered"},
		{"one removed", func(tx store.Tx) error { return tx.Delete(store.Audit, seq(6)) }, 6, "not there"},
		{"the first removed", func(tx store.Tx) error { return tx.Delete(store.Audit, seq(1)) }, 1, "not there"},
		{"the last removed", func(tx store.Tx) error { return tx.Delete(store.Audit, seq(10)) }, 10, "not there"},
		{"the last three removed", func(tx store.Tx) error {
			return errors.Join(tx.Delete(store.Audit, seq(8)), tx.Delete(store.Audit, seq(9)), tx.Delete(store.Audit, seq(10)))
		}, 8, "nor are the 2 after it"},
		{"two in each other's place", func(tx store.Tx) error {
			a, b := bytes.Clone(tx.Get(store.Audit, seq(3))), bytes.Clone(tx.Get(store.Audit, seq(4)))
			return errors.Join(tx.Put(store.Audit, seq(3), b), tx.Put(store.Audit, seq(4), a))
		}, 3, "altered"},
		{"one more at the end", func(tx store.Tx) error {
			return tx.Put(store.Audit, seq(11), bytes.Clone(tx.Get(store.Audit, seq(10))))
		}, 11, "altered"},
		{"one more at the end, without a sum", func(tx store.Tx) error {
			return tx.Put(store.Audit, seq(11), []byte(`{"seq":11,"kind":"denied"}`))
		}, 11, "no sum"},
		{"one without its sum", func(tx store.Tx) error {
			return tx.Put(store.Audit, seq(7), stripped(tx.Get(store.Audit, seq(7))))
		}, 7, "no sum"},
		{"all without their sums, one altered", func(tx store.Tx) error {
			for n := uint64(1); n <= 10; n++ {
				v := stripped(tx.Get(store.Audit, seq(n)))
				if n == 2 {
					v = bytes.Replace(v, []byte("alice"), []byte("carol"), 1)
				}
				if err := tx.Put(store.Audit, seq(n), v); err != nil {
					return err
				}
			}
			return nil
		}, 10, "not the last one"},
		{"the last two bytes altered", func(tx store.Tx) error {
			v := bytes.Clone(tx.Get(store.Audit, seq(5)))
			copy(v[len(v)-2:], "xx")
			return tx.Put(store.Audit, seq(5), v)
		}, 5, "no sum"},
		{"the head cut", func(tx store.Tx) error { return tx.Put(store.Meta, []byte("audit-head"), []byte("x")) }, 10, "not known"},
		{"the head removed", func(tx store.Tx) error { return tx.Delete(store.Meta, []byte("audit-head")) }, 10, "not the last one"},
		{"no record at all", func(tx store.Tx) error { return tx.Put(store.Audit, seq(2), []byte("junk")) }, 2, "no sum"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLedger(t)
			l.write(10)
			l.tamper(tt.tamper)
			v, err := l.verify(store.AuditHead{})
			if err != nil && v.Head().Seq >= tt.seq && !strings.Contains(tt.why, "last one") && !strings.Contains(tt.why, "not known") {
				t.Errorf("the head that is left is that of record %d", v.Head().Seq)
			}
			broken, ok := errors.AsType[*store.BrokenError](err)
			if ok != (tt.seq != 0) || err != nil && !ok {
				t.Fatalf("err = %v", err)
			}
			if ok && (broken.Seq != tt.seq || !strings.Contains(broken.Why, tt.why)) {
				t.Errorf("%v, want record %d: %s", broken, tt.seq, tt.why)
			}
			// What is written afterwards does not heal it.
			l.write(2)
			if _, after := l.verify(store.AuditHead{}); (after == nil) != (err == nil) {
				t.Errorf("before more was written: %v, after: %v", err, after)
			}
		})
	}
}

// Sums that were all computed anew are those of no head that was noted.
func TestAuditHeadThatWasNoted(t *testing.T) {
	l, forged := newLedger(t), newLedger(t)
	l.write(6)
	v, err := l.verify(store.AuditHead{})
	if err != nil {
		t.Fatal(err)
	}
	noted, err := store.ParseAuditHead(v.Head().String())
	if err != nil || noted.Seq != 6 {
		t.Fatalf("%v, %v", noted, err)
	}
	l.write(5)
	if _, err := l.verify(noted); err != nil {
		t.Errorf("more was written since: %v", err)
	}
	for n, want := range map[int]string{8: "not the one that was noted", 4: "was noted"} {
		forged.write(n - int(sequence(t, forged)))
		if _, err := forged.verify(noted); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("another history of %d records: %v", n, err)
		}
		forged = newLedger(t)
	}
	for _, bad := range []string{"", "6", ":", "0:" + noted.Sum, "x:" + noted.Sum, "6:" + noted.Sum[1:], "6:zz" + noted.Sum[2:]} {
		if _, err := store.ParseAuditHead(bad); err == nil {
			t.Errorf("%q was taken for a head", bad)
		}
	}
}

func sequence(t *testing.T, l *ledger) (n uint64) {
	t.Helper()
	v, err := l.verify(store.AuditHead{})
	if err != nil {
		t.Fatal(err)
	}
	return v.Head().Seq
}

// Records of a version that had no sums are covered by the first that has one.
func TestAuditChainOverOlderRecords(t *testing.T) {
	l := newLedger(t)
	older := func(n uint64, subject string) func(store.Tx) error {
		return func(tx store.Tx) error {
			b, err := json.Marshal(store.AuditRecord{Seq: n, Kind: store.AuditDenied, Subject: subject})
			if err != nil {
				return err
			}
			return tx.Put(store.Audit, seq(n), b)
		}
	}
	for n := range uint64(5) {
		l.tamper(older(n+1, "alice"))
	}
	if v, err := l.verify(store.AuditHead{}); err != nil || v.Unsummed != 5 {
		t.Errorf("before anything was written: %d, %v", v.Unsummed, err)
	}
	l.write(2)
	if v, err := l.verify(store.AuditHead{}); err != nil || v.Unsummed != 5 || v.Head().Seq != 7 {
		t.Errorf("%d of %d without sums: %v", v.Unsummed, v.Head().Seq, err)
	}
	l.tamper(older(3, "carol"))
	if _, err := l.verify(store.AuditHead{}); err == nil || !strings.Contains(err.Error(), "record 6") {
		t.Errorf("an old one altered: %v", err)
	}
}
