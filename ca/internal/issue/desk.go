package issue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"twinkey/ca/internal/authority"
	"twinkey/ca/internal/ledger"
	"twinkey/directory/client"
	"twinkey/pkg/twincert"
	"twinkey/proto/secret"
)

// Errors, besides those of authority and ledger.
var (
	ErrNothingIssued = errors.New("nothing was issued")
	ErrUndecided     = errors.New("it is not decided whether it was issued")
	ErrUnrecorded    = errors.New("it is done, but the CA cannot write its own records now; they follow when it can")
	ErrNoDirectory   = errors.New("this CA knows no directory")
	ErrClock         = errors.New("the clock cannot be right")
	ErrExists        = errors.New("exists already")
	ErrUnknown       = errors.New("is not known")
	ErrRevoked       = errors.New("is revoked")
	ErrInvalid       = errors.New("invalid")
	ErrForeign       = errors.New("not a name for this router")
	ErrToken         = errors.New("the token is not good: unknown, expired, or used before")
)

// Directory is what the desk needs of one; client.Client is it.
type Directory interface {
	Health(ctx context.Context) error
	Apply(ctx context.Context, c client.Change) error
	Has(ctx context.Context, changeID string) (bool, error)
}

// Terms are how long things live.
type Terms struct {
	Router, User, TLS time.Duration // of certificates
	Grace             time.Duration // after expiry in which a renewal is still granted, or given
	CRL               time.Duration // from one CRL to its nextUpdate
}

// Config of a desk.
type Config struct {
	Authority *authority.Authority
	Ledger    *ledger.Ledger
	Directory Directory // nil: only the directory itself can be enrolled
	Sources   bool      // there are sources, which may know users whom we do not
	GroupKey  secret.Key
	Terms     Terms
	// RenewUsers lets Tend renew users' certificates, with the keys that they have.
	RenewUsers bool
	Profile    twincert.Profile
	CRLURL     string
	Patience   time.Duration // for which a command waits for the directory
	// PortalDomain is where the routers' portals have names; empty: nowhere.
	PortalDomain string
	Now          func() time.Time
	Log          *slog.Logger
	// At is called at each step of each operation; tests stop the process there.
	At func(what, step string)
}

// Desk issues and revokes. Safe for concurrent use; operations happen one after the other.
type Desk struct {
	cfg Config
	mu  sync.Mutex
	tended
}

// The steps that Config.At hears of.
const (
	StepJournalled = "journalled" // the intent is written
	StepPrepared   = "prepared"   // a revocation is in the CRL
	StepApplied    = "applied"    // the directory has it
	StepRecorded   = "recorded"   // smallstep's database has it
	StepDone       = "done"       // the ledger has it
)

// skew is how far the clock may fall back before it counts as wrong.
const skew = 5 * time.Minute

// New returns a desk.
func New(c Config) *Desk {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.At == nil {
		c.At = func(string, string) {}
	}
	return &Desk{cfg: c, tended: newTended()}
}

// now is the time as certificates can hold it.
func (d *Desk) now() time.Time { return d.cfg.Now().UTC().Truncate(time.Second) }

// CheckClock fails with ErrClock if nothing should be dated with the clock as it is.
func (d *Desk) CheckClock() error {
	now := d.now()
	if err := d.cfg.Authority.Valid(now); err != nil {
		return fmt.Errorf("%w: %w", ErrClock, err)
	}
	var latest time.Time
	err := d.cfg.Ledger.View(func(tx *ledger.Tx) (err error) {
		latest, err = tx.Clock()
		return err
	})
	if err != nil {
		return err
	}
	if now.Before(latest.Add(-skew)) {
		return fmt.Errorf("%w: it says %s, but %s has passed already", ErrClock, now.Format(time.RFC3339), latest.UTC().Format(time.RFC3339))
	}
	return nil
}

// ResetClock forgets which time has passed: for a clock that was ahead and was set right.
func (d *Desk) ResetClock() error {
	return d.cfg.Ledger.Update(func(tx *ledger.Tx) error { return tx.SetClock(d.now()) })
}

// View shows f the ledger.
func (d *Desk) View(f func(*ledger.Tx) error) error { return d.cfg.Ledger.View(f) }
