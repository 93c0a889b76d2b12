package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
)

// Table names one ordered set of keys.
type Table uint8

// The tables; see the package comment.
const (
	Meta Table = iota
	CRL
	Changes
	Certificates
	Groups
	Users
	Bundles
	Routers
	Revoked
	Events
	Audit
	Throttles
	UserCalls
	nTables
)

var tableNames = [nTables]string{
	Meta: "meta", CRL: "crl", Changes: "changes", Certificates: "certificates", Groups: "groups", Users: "users",
	Bundles: "bundles", Routers: "routers", Revoked: "revoked", Events: "events", Audit: "audit", Throttles: "throttles", UserCalls: "user-calls",
}

func (t Table) String() string {
	if t < nTables {
		return tableNames[t]
	}
	return fmt.Sprintf("table(%d)", uint8(t))
}

// Tables yields every table that an engine must have.
func Tables() iter.Seq[Table] {
	return func(yield func(Table) bool) {
		for t := range nTables {
			if !yield(t) {
				return
			}
		}
	}
}

// Later says that databases of earlier versions are without the table.
func (t Table) Later() bool { return t >= UserCalls }

// What an engine can fail with besides the errors of the function it was handed.
var (
	ErrInUse   = errors.New("database is in use by another process")
	ErrWrite   = errors.New("the database cannot be written")
	ErrDamaged = errors.New("not a directory database, or a damaged one")
)

// Tx is one transaction. It, and every slice that it returns, is valid until the function
// that it was handed to returns; keys and values are never modified. Put and Delete fail
// in a View.
type Tx interface {
	// Get returns nil for a key that is not there. No value is empty.
	Get(t Table, key []byte) []byte
	Put(t Table, key, value []byte) error
	// Delete of a key that is not there succeeds.
	Delete(t Table, key []byte) error
	// Range yields key and value from the first key >= from on, in byte order. The table
	// must not be changed meanwhile.
	Range(t Table, from []byte) iter.Seq2[[]byte, []byte]
	// Last returns the greatest key and its value, nil if the table is empty.
	Last(t Table) (key, value []byte)
}

// Store is a database engine. It is safe for concurrent use.
type Store interface {
	// View shows f one consistent state.
	View(ctx context.Context, f func(Tx) error) error
	// Update makes all changes of f durable before it returns nil, and none of them if f
	// or it returns an error. Updates happen one after the other. A failure to write is
	// ErrWrite and leaves the store readable.
	Update(ctx context.Context, f func(Tx) error) error
	// Backup writes a copy of one consistent state without holding up updates. size, if
	// not nil, is called first with the length of what follows.
	Backup(ctx context.Context, w io.Writer, size func(int64)) error
	Close() error
}
