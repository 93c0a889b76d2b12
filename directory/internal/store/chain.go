package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// The audit records are a chain: each is stored with a sum over itself and, by way of the sum of the one before, over
// all that came before it.
//
//	sum(n)  = SHA-256("twinkey audit 1" 00 | sum(n-1) | record n without its sum)      sum(0) is 32 zero bytes
//	stored    {"seq":n, ... ,"sum":"64 hexadecimal digits"}
//
// Whoever alters, removes, adds or moves a record has to rewrite all that follow it, and then no longer has the sums that
// others have noted: see AuditHead. Records of versions before there were sums have none; the first that has one covers
// them.

const (
	sumLabel = "twinkey audit 1\x00"
	sumField = `,"sum":"`
	sumTail  = len(sumField) + 2*sha256.Size + len(`"}`)
	metaHead = "audit-head" // sequence of the newest record, 8 bytes, and its sum
)

// AuditHead names a state of the chain. Noted somewhere else, it is proof of all records up to Seq.
type AuditHead struct {
	Seq uint64 `json:"seq"`
	Sum string `json:"sum"` // hexadecimal
}

// String is SEQ:SUM.
func (h AuditHead) String() string { return strconv.FormatUint(h.Seq, 10) + ":" + h.Sum }

// ParseAuditHead reads what String writes.
func ParseAuditHead(s string) (h AuditHead, err error) {
	seq, sum, ok := strings.Cut(s, ":")
	if ok {
		h.Seq, err = strconv.ParseUint(seq, 10, 64)
	}
	if b, bad := hex.DecodeString(sum); !ok || err != nil || bad != nil || len(b) != sha256.Size || h.Seq == 0 {
		return AuditHead{}, fmt.Errorf("%q is no head of the audit records: it has the form SEQ:SUM, the sum of 64 hexadecimal digits", s)
	}
	h.Sum = strings.ToLower(sum)
	return h, nil
}

// BrokenError says that the audit records are not what was written.
type BrokenError struct {
	Seq uint64 `json:"seq"` // the first record at which it shows
	Why string `json:"why"`
}

func (e *BrokenError) Error() string { return fmt.Sprintf("audit record %d: %s", e.Seq, e.Why) }

// chain is a place in the chain: after record seq.
type chain struct {
	seq uint64
	sum [sha256.Size]byte
}

func (c *chain) next(record []byte) {
	h := sha256.New()
	h.Write([]byte(sumLabel))
	h.Write(c.sum[:])
	h.Write(record)
	c.seq++
	h.Sum(c.sum[:0])
}

func (c *chain) head() AuditHead { return AuditHead{c.seq, hex.EncodeToString(c.sum[:])} }

// link extends the chain by a record and returns what is to be stored.
func (c *chain) link(a AuditRecord) ([]byte, error) {
	a.Sum = ""
	b, err := json.Marshal(a)
	if err != nil {
		return nil, fmt.Errorf("encoding an audit record: %w", err)
	}
	c.next(b)
	b = append(b[:len(b)-1], sumField...)
	b = hex.AppendEncode(b, c.sum[:])
	return append(b, `"}`...), nil
}

// unlink splits what is stored into the record and its sum, empty if it has none.
func unlink(stored []byte) (record []byte, sum string) {
	at := len(stored) - sumTail
	if at < 0 || !bytes.HasPrefix(stored[at:], []byte(sumField)) || !bytes.HasSuffix(stored, []byte(`"}`)) {
		return stored, ""
	}
	return append(bytes.Clone(stored[:at]), '}'), string(stored[at+len(sumField) : len(stored)-2])
}

// chainEnd is where the next record belongs.
func (w *Writer) chainEnd() (c chain) {
	switch b := w.tx.Get(Meta, []byte(metaHead)); {
	case len(b) == 8+sha256.Size:
		c.seq = binary.BigEndian.Uint64(b)
		copy(c.sum[:], b[8:])
	case b != nil: // somebody has changed it: as below
	default: // of a version before there were sums
		for _, v := range w.tx.Range(Audit, nil) {
			record, sum := unlink(v)
			if sum != "" { // somebody has removed the head: what is written now must not make up for it
				c = chain{}
				break
			}
			c.next(record)
		}
	}
	// If records beyond it are there somebody else put them; nothing of theirs is written over, and the gap will show.
	if k, _ := w.tx.Last(Audit); k != nil {
		c.seq = max(c.seq, binary.BigEndian.Uint64(k))
	}
	return c
}

func (w *Writer) keepChainEnd(c chain) error {
	return w.tx.Put(Meta, []byte(metaHead), append(binary.BigEndian.AppendUint64(nil, c.seq), c.sum[:]...))
}

// Verifier goes through the chain, as many records at a time as one likes.
type Verifier struct {
	Noted    AuditHead // what somebody has noted earlier; zero: nothing
	Unsummed uint64    // records from before there were sums
	at       chain
	summed   bool
}

// Head is that of the records which have been verified.
func (v *Verifier) Head() AuditHead { return v.at.head() }

// VerifyAudit goes through the next limit records; more says that there may be others. The error is a *BrokenError if they are not what
// was written.
func (r *Reader) VerifyAudit(v *Verifier, limit int) (more bool, err error) {
	n := 0
	for k, stored := range r.tx.Range(Audit, auditKey(v.at.seq+1)) {
		if n++; n > limit {
			return true, nil
		}
		if err := v.add(binary.BigEndian.Uint64(k), stored); err != nil {
			return false, err
		}
	}
	head := r.tx.Get(Meta, []byte(metaHead))
	switch {
	case head != nil && len(head) != 8+sha256.Size:
		return false, &BrokenError{v.at.seq, "whether it is the last one is not known: the note of that was changed"}
	case len(head) == 8+sha256.Size && binary.BigEndian.Uint64(head) > v.at.seq:
		return false, &BrokenError{v.at.seq + 1, "it is not there, nor are the " + strconv.FormatUint(binary.BigEndian.Uint64(head)-v.at.seq-1, 10) + " after it that were written"}
	case len(head) == 8+sha256.Size && !bytes.Equal(head[8:], v.at.sum[:]), head == nil && v.summed:
		return false, &BrokenError{v.at.seq, "it is not the last one that was written"}
	case v.Noted.Seq > v.at.seq:
		return false, &BrokenError{v.Noted.Seq, "it is not there, but was noted"}
	}
	return false, nil
}

func (v *Verifier) add(seq uint64, stored []byte) (err error) {
	if seq != v.at.seq+1 {
		return &BrokenError{v.at.seq + 1, "it is not there"}
	}
	defer func(good chain) {
		if err != nil { // the head is that of the records before
			v.at = good
		}
	}(v.at)
	record, sum := unlink(stored)
	v.at.next(record)
	var a AuditRecord
	switch is := v.at.head(); {
	case sum == "" && v.summed:
		return &BrokenError{seq, "it has no sum, unlike those before it"}
	case sum == "":
		v.Unsummed++
	case sum != is.Sum:
		return &BrokenError{seq, "its sum is wrong: it was altered, or what comes before it was"}
	default:
		v.summed = true
	}
	if err := json.Unmarshal(record, &a); err != nil || a.Seq != seq {
		return &BrokenError{seq, "it is no audit record of that number"}
	}
	if v.Noted.Seq == seq && v.Noted.Sum != v.at.head().Sum {
		return &BrokenError{seq, "its sum is not the one that was noted: it was altered, or what comes before it was, and all sums since"}
	}
	return nil
}
