package store

import (
	"encoding/binary"
	"iter"
	"time"

	"twinkey/directory/client"
)

// Events returns what happened after revision since: whole revisions, as many as begin
// within the first limit events, and the revision that they lead up to. ok is false if
// some of it is no longer known, or if since lies in a future that this register has not
// seen.
func (r *Reader) Events(since client.Revision, limit int) (events []client.Event, next client.Revision, ok bool, err error) {
	floor, err := r.Floor()
	if err != nil {
		return nil, 0, false, err
	}
	newest, err := r.Revision()
	if err != nil {
		return nil, 0, false, err
	}
	if since < floor || since > newest {
		return nil, newest, false, nil
	}
	for k, v := range r.tx.Range(Events, eventKey(since+1, 0)) {
		if len(events) >= limit && !events[len(events)-1].More {
			return events, events[len(events)-1].Revision, true, nil
		}
		e, err := decode[client.Event](Events, k, v)
		if err != nil {
			return nil, 0, false, err
		}
		events = append(events, e)
	}
	return events, newest, true, nil
}

// AuditQuery chooses audit records; a zero field chooses all.
type AuditQuery struct {
	Since   time.Time
	Actor   string // of the record, or on whose behalf
	Kind    string
	Subject string
	After   uint64 // sequence
}

func (q AuditQuery) matches(a AuditRecord) bool {
	return (q.Since.IsZero() || !a.Time.Before(q.Since)) &&
		(q.Actor == "" || q.Actor == a.Actor || q.Actor == a.For) &&
		(q.Kind == "" || q.Kind == a.Kind) &&
		(q.Subject == "" || q.Subject == a.Subject)
}

// Audit yields the records that q chooses, oldest first, in the order in which they were
// committed: a clock that jumped does not change it.
func (r *Reader) Audit(q AuditQuery) iter.Seq2[AuditRecord, error] {
	return func(yield func(AuditRecord, error) bool) {
		for k, v := range r.tx.Range(Audit, binary.BigEndian.AppendUint64(nil, q.After+1)) {
			a, err := decode[AuditRecord](Audit, k, v)
			if err != nil {
				yield(AuditRecord{}, err)
				return
			}
			if q.matches(a) && !yield(a, nil) {
				return
			}
		}
	}
}
