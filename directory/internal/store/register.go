package store

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"

	"twinkey/directory/client"
	"twinkey/pkg/lockout"
	"twinkey/pkg/twincert"
)

const (
	schema = 1
	// KeepRevisions is how many changes a watcher may miss and still be told each one.
	KeepRevisions = 4096
	// maxEvents is how many events one revision may have. A change with more of them (the
	// first CRL after a restore) tells every watcher to fetch all anew instead.
	maxEvents = 1024

	metaSchema   = "schema"
	metaRevision = "revision"
	metaFloor    = "floor"
	metaSecret   = "secret"
	metaSources  = "sources"
)

// Register is the directory's book over a Store. Safe for concurrent use.
type Register struct {
	s   Store
	now func() time.Time

	mu      sync.Mutex
	changed chan struct{} // closed at the next revision
}

// Open reads the register in s, or begins one. now is the directory's clock.
func Open(ctx context.Context, s Store, now func() time.Time) (*Register, error) {
	r := &Register{s: s, now: now, changed: make(chan struct{})}
	var have uint64
	err := s.View(ctx, func(tx Tx) (err error) {
		have, err = number(tx, metaSchema)
		return err
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading the register: %w", err)
	case have > schema:
		return nil, fmt.Errorf("reading the register: %w: it has format %d, this program knows %d", ErrDamaged, have, schema)
	case have == schema:
		return r, nil
	}
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		return nil, fmt.Errorf("drawing the register's secret: %w", err)
	}
	err = s.Update(ctx, func(tx Tx) error {
		if err := tx.Put(Meta, []byte(metaSecret), secret); err != nil {
			return err
		}
		return putNumber(tx, metaSchema, schema)
	})
	if err != nil {
		return nil, fmt.Errorf("beginning the register: %w", err)
	}
	return r, nil
}

// Known fails with ErrDamaged unless s holds a register that Open would read, not begin.
func Known(ctx context.Context, s Store) error {
	return s.View(ctx, func(tx Tx) error {
		have, err := number(tx, metaSchema)
		if err == nil && have != schema {
			err = fmt.Errorf("%w: it has format %d, this program knows %d", ErrDamaged, have, schema)
		}
		return err
	})
}

// Now asks the register's clock.
func (r *Register) Now() time.Time { return r.now() }

// Changed is closed when the next revision has been committed. Ask for it before reading,
// then nothing is missed.
func (r *Register) Changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}

func (r *Register) ring() {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.changed)
	r.changed = make(chan struct{})
}

// Backup copies the database; see Store.
func (r *Register) Backup(ctx context.Context, w io.Writer, size func(int64)) error {
	return r.s.Backup(ctx, w, size)
}

// Read shows f one state of the register.
func (r *Register) Read(ctx context.Context, f func(*Reader) error) error {
	return r.s.View(ctx, func(tx Tx) error { return f(&Reader{tx}) })
}

// Write lets f change the register in one transaction, on behalf of actor. What f changes,
// its audit records and its events are kept all together or not at all.
func (r *Register) Write(ctx context.Context, actor string, f func(*Writer) error) error {
	var w *Writer
	err := r.s.Update(ctx, func(tx Tx) error {
		w = &Writer{Reader: Reader{tx}, actor: actor, now: r.now()}
		var err error
		if w.revision, err = w.Revision(); err != nil {
			return err
		}
		if err := f(w); err != nil {
			return err
		}
		return w.finish()
	})
	if err != nil {
		return err
	}
	if w.visible {
		r.ring()
	}
	return nil
}

// Reader is the register within one transaction. A method's error is ErrDamaged.
type Reader struct{ tx Tx }

// Revision is the newest.
func (r *Reader) Revision() (client.Revision, error) { return number(r.tx, metaRevision) }

// Floor is the oldest revision after which every event is still known.
func (r *Reader) Floor() (client.Revision, error) { return number(r.tx, metaFloor) }

// Secret is the key of the fake salts.
func (r *Reader) Secret() []byte { return r.tx.Get(Meta, []byte(metaSecret)) }

// Sources says whether the CA has sources.
func (r *Reader) Sources() bool { return r.tx.Get(Meta, []byte(metaSources)) != nil }

// Certificate returns the row of id.
func (r *Reader) Certificate(id twincert.ID) (CertRow, bool, error) {
	return get[CertRow](r.tx, Certificates, id.String())
}

// Group returns the group of that name.
func (r *Reader) Group(name string) (client.GroupRecord, bool, error) {
	return get[client.GroupRecord](r.tx, Groups, name)
}

// User returns the user uid.
func (r *Reader) User(uid string) (client.UserRecord, bool, error) {
	return get[client.UserRecord](r.tx, Users, uid)
}

// Bundle returns the sealed keys of uid.
func (r *Reader) Bundle(uid string) (BundleRow, bool, error) {
	return get[BundleRow](r.tx, Bundles, uid)
}

// Router returns the router of that name.
func (r *Reader) Router(name string) (RouterRow, bool, error) {
	return get[RouterRow](r.tx, Routers, name)
}

// Revoked says whether id is revoked.
func (r *Reader) Revoked(id twincert.ID) bool { return r.tx.Get(Revoked, []byte(id.String())) != nil }

// CRL returns the newest, nil before the first. It is a copy.
func (r *Reader) CRL() []byte { return append([]byte(nil), r.tx.Get(CRL, []byte(crlKey))...) }

// Throttle returns the throttle at key.
func (r *Reader) Throttle(key string) (lockout.Throttle, bool, error) {
	return get[lockout.Throttle](r.tx, Throttles, key)
}

// Writer is a Reader that can change things.
type Writer struct {
	Reader
	actor    string
	behalf   string
	changeID string
	now      time.Time
	revision client.Revision // the newest before this transaction

	visible bool // makes a revision
	reset   bool // watchers have to fetch all anew
	events  []client.Event
	audit   []AuditRecord
}

// Now is the time of the transaction.
func (w *Writer) Now() time.Time { return w.now }

// Audit adds a record of what the transaction does.
func (w *Writer) Audit(kind, subject, detail string) {
	w.audit = append(w.audit, AuditRecord{Time: w.now, Actor: w.actor, For: w.behalf, Kind: kind, Subject: subject, Detail: detail, ChangeID: w.changeID})
}

// publish tells watchers, once the transaction is committed.
func (w *Writer) publish(e client.Event) {
	e.Time = w.now
	w.visible = true
	w.events = append(w.events, e)
}

// PutThrottle stores a throttle.
func (w *Writer) PutThrottle(key string, t lockout.Throttle) error {
	return put(w.tx, Throttles, key, t)
}

// DeleteThrottle forgets one.
func (w *Writer) DeleteThrottle(key string) error { return w.tx.Delete(Throttles, []byte(key)) }

// finish numbers and stores what the transaction said of itself.
func (w *Writer) finish() error {
	rev := w.revision
	if w.visible {
		rev++
		if err := w.keepEvents(rev); err != nil {
			return err
		}
		if err := putNumber(w.tx, metaRevision, rev); err != nil {
			return err
		}
	}
	if len(w.audit) == 0 {
		return nil
	}
	end := w.chainEnd()
	for _, a := range w.audit {
		a.Seq, a.Revision = end.seq+1, rev
		b, err := end.link(a)
		if err != nil {
			return err
		}
		if err := w.tx.Put(Audit, auditKey(a.Seq), b); err != nil {
			return err
		}
	}
	return w.keepChainEnd(end)
}

// keepEvents stores the events of rev and drops those that are too old.
func (w *Writer) keepEvents(rev client.Revision) error {
	floor, err := w.Floor()
	if err != nil {
		return err
	}
	was := floor
	if rev > KeepRevisions {
		floor = max(floor, rev-KeepRevisions)
	}
	if w.reset || len(w.events) > maxEvents {
		floor, w.events = rev, nil
	}
	for i, e := range w.events {
		e.Revision, e.More = rev, i < len(w.events)-1
		b, err := json.Marshal(e)
		if err != nil {
			return fmt.Errorf("encoding an event: %w", err)
		}
		if err := w.tx.Put(Events, eventKey(rev, i), b); err != nil {
			return err
		}
	}
	if floor == was {
		return nil
	}
	if err := w.dropEvents(floor); err != nil {
		return err
	}
	return putNumber(w.tx, metaFloor, floor)
}

// dropEvents deletes the events of floor and of every revision before it.
func (w *Writer) dropEvents(floor client.Revision) error {
	var old [][]byte
	for k := range w.tx.Range(Events, nil) {
		if len(k) != 12 || binary.BigEndian.Uint64(k) > floor {
			break
		}
		old = append(old, append([]byte(nil), k...))
	}
	for _, k := range old {
		if err := w.tx.Delete(Events, k); err != nil {
			return err
		}
	}
	return nil
}
