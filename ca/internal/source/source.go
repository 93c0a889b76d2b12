package source

import (
	"context"
	"errors"
	"net/netip"
	"time"
)

// Errors of Check. Whatever else stands in the chain is for the log, never for the person who logs in.
var (
	// ErrRejected is a wrong password, an unknown or a disabled user: which of them is never told.
	ErrRejected = errors.New("the source does not accept this user with this password")
	// ErrUnavailable says that nobody answered, or that what answered could not be believed. Nothing follows from
	// it about the user.
	ErrUnavailable = errors.New("the source gave no answer that can be believed")
)

// Errors of Orders.
var (
	// ErrNotThere says that nobody of that name is logged in, so there was nothing to end or to change.
	ErrNotThere = errors.New("no such user is logged in")
	// ErrImpossible says that what a Change says cannot be kept, or that something said later has come before: trying again is of no use.
	ErrImpossible = errors.New("it cannot be as the source says")
)

// Answer is what a source says of a user whose password was right.
type Answer struct {
	Group   string        // the tunnel group that the source names for the user; empty: it names none
	Session time.Duration // how long a login may last; 0: as the policy says
	State   []byte        // what the source wants back in accounting (RADIUS Class), opaque; may be nil
}

// Source asks somebody else whether a password is right. Its methods are safe for concurrent use.
type Source interface {
	// Name is what the operator calls it in ca.yaml.
	Name() string
	// Check says whether the password of uid is right. The error is ErrRejected or ErrUnavailable, or wraps one of
	// them. The password is the caller's to wipe; nothing of it is kept.
	Check(ctx context.Context, uid string, password []byte) (Answer, error)
	// Close lets go of connections and sockets. A Check that is under way ends with ErrUnavailable.
	Close() error
}

// Change is what a source says of a user who is logged in, and said otherwise at the login.
type Change struct {
	Group   string        // the tunnel group from now on; empty: as it is
	Session time.Duration // how long the session may last, from its beginning; 0: as it is
}

// Word is how a source says what it orders.
type Word struct {
	Why string
	// Said is when, by the source's clock. What it said of the user before that is not obeyed any more. Zero: now, as what is found out by asking.
	Said time.Time
	ID   []byte // tells what was said at one moment apart
}

// Orders carries out what a source tells of its own accord. Nil: it is done, or will be whatever happens; ErrNotThere:
// there was nobody; ErrImpossible: it cannot be done; another error: it was not done, and should be told again. A Word that was obeyed is not
// obeyed again: nil, or ErrImpossible if another one has come since.
type Orders interface {
	// End ends the calls of uid and withdraws what uid has.
	End(ctx context.Context, uid string, w Word) error
	// Change has the calls of uid go on under what c says. It is End if the session is over by what it says.
	Change(ctx context.Context, uid string, c Change, w Word) error
}

// Watcher is a Source that tells of its own accord that somebody is no longer to be let in, or not as before: a RADIUS
// Disconnect-Request or CoA-Request, an LDAP account that was disabled or removed.
type Watcher interface {
	// Watch runs until ctx ends, and returns nil then; another error says that it cannot watch. It gives one order at a
	// time. It is called once in a Source's life.
	Watch(ctx context.Context, o Orders) error
}

// Follower is a Watcher that looks after those it knows of. Whoever Check accepts it knows; those who logged in
// before this process started it must be told.
type Follower interface {
	Follow(uids ...string)
	Unfollow(uids ...string)
}

// Accountant is a Source that wants to know of calls.
type Accountant interface {
	// Account delivers one event, repeating it until it is acknowledged or ctx ends. An error that wraps
	// ErrUnavailable is worth another try with the same Event later; its Time says when it happened.
	Account(ctx context.Context, e Event) error
}

// What happens to a call.
type What uint8

// In this order; there may be any number of Interims.
const (
	Start What = iota + 1
	Interim
	Stop
)

// Cause is why a call ended, as far as a source tells causes apart.
type Cause uint8

// Causes.
const (
	CauseUnknown  Cause = iota
	CauseUser           // logged out
	CauseLost           // the network or the peer went away
	CauseIdle           // idle time-out
	CauseSession        // session time-out, or the certificate ran out
	CauseRevoked        // the operator, the CA or the source itself ended it
	CauseShutdown       // the router stopped
	CauseError          // something failed
)

// Event is what happened to a call.
type Event struct {
	What    What
	Time    time.Time // when it happened
	Session string    // names the call among all calls of all routers and days; at most 128 bytes
	UID     string
	Router  string     // where the user logged in
	Address netip.Addr // the user's, inside; zero: not known
	State   []byte     // of the Answer

	// Of Interim and Stop, since the start. In is from the user, Out towards the user.
	BytesIn, BytesOut     uint64
	PacketsIn, PacketsOut uint64
	Lasted                time.Duration
	Cause                 Cause // of Stop
}
