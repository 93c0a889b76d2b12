package issue

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"twinkey/ca/internal/ledger"
	"twinkey/directory/client"
)

const (
	retryFirst = 50 * time.Millisecond // between two attempts at the directory, doubled up to
	retryMost  = time.Second
)

// begin says whether something can be issued now: the clock is right, the directory is
// there, nothing older is undecided. The context that it returns outlives the caller, who
// can go away without leaving an operation half done, and ends when patience does.
func (d *Desk) begin(ctx context.Context) (context.Context, context.CancelFunc, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.cfg.Patience)
	err := d.CheckClock()
	if err == nil && d.cfg.Directory == nil {
		err = ErrNoDirectory
	}
	if err == nil {
		err = d.retry(ctx, func() error { return d.cfg.Directory.Health(ctx) })
	}
	if err == nil {
		d.compare(ctx)
	}
	if err == nil {
		err = d.settle(ctx)
	}
	if err != nil {
		cancel()
		return nil, nil, fmt.Errorf("%w: %w", ErrNothingIssued, err)
	}
	return ctx, cancel, nil
}

// commit carries out an issue: first its intent, then the directory, then everything else.
func (d *Desk) commit(ctx context.Context, in *ledger.Intent) error {
	if err := d.journal(in, func(*ledger.Tx) error { return nil }); err != nil {
		return fmt.Errorf("%w: %w", ErrNothingIssued, err)
	}
	return d.forwardIssue(ctx, in, true)
}

// journal writes an intent, in one transaction with what guard does and allows.
func (d *Desk) journal(in *ledger.Intent, guard func(*ledger.Tx) error) error {
	in.Created = d.now()
	if in.Change != nil {
		in.Change.ChangeID = rand.Text()
	}
	err := d.cfg.Ledger.Update(func(tx *ledger.Tx) error {
		if err := guard(tx); err != nil {
			return err
		}
		if err := tx.AddIntent(in); err != nil {
			return err
		}
		if err := reserve(tx, in, in.Number); err != nil {
			return err
		}
		return d.note(tx)
	})
	if err != nil {
		return err
	}
	d.cfg.At(in.What, StepJournalled)
	return nil
}

// note moves the ledger's clock forward.
func (d *Desk) note(tx *ledger.Tx) error {
	latest, err := tx.Clock()
	if err != nil {
		return err
	}
	if now := d.now(); now.After(latest) {
		return tx.SetClock(now)
	}
	return nil
}

// reserve binds the token that in uses to intent n; 0 frees it.
func reserve(tx *ledger.Tx, in *ledger.Intent, n uint64) error {
	if in.Reserved == "" {
		return nil
	}
	t, ok, err := tx.Token(in.Reserved)
	if err != nil || !ok {
		return err
	}
	t.Intent = n
	return tx.PutToken(t)
}

// retry repeats f while the directory may yet answer, until ctx ends.
func (d *Desk) retry(ctx context.Context, f func() error) error {
	for wait := retryFirst; ; wait = min(2*wait, retryMost) {
		err := f()
		if err == nil || !transient(err) {
			return err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return err
		}
	}
}

func transient(err error) bool {
	return errors.Is(err, client.ErrUnavailable) || errors.Is(err, client.ErrTooMany)
}

// unawaited is the context of work that nobody waits for: it has ended already if the
// directory is away, which then is asked once and holds up nobody who needs none, such as
// the operator who makes the token that enrols it. It is asked before the desk is locked.
func (d *Desk) unawaited(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.Patience)
	if d.cfg.Directory == nil {
		return ctx, cancel
	}
	if err := d.cfg.Directory.Health(ctx); err != nil {
		ended, end := context.WithCancelCause(ctx)
		end(err)
		return ended, cancel
	}
	return ctx, cancel
}

// Settle carries out what is under way, oldest first, and stops at the first that the
// directory does not let it end.
func (d *Desk) Settle(ctx context.Context) error {
	ctx, cancel := d.unawaited(ctx)
	defer cancel()
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.settle(ctx)
}

// compare is Compare before a change is sent, which would be the last that was acknowledged from then on. It
// keeps nothing from being sent.
func (d *Desk) compare(ctx context.Context) {
	if err := d.Compare(ctx); err != nil {
		d.cfg.Log.Debug("not known whether the directory was restored", "error", err)
	}
}

func (d *Desk) settle(ctx context.Context) error {
	var queue []ledger.Intent
	err := d.cfg.Ledger.View(func(tx *ledger.Tx) (err error) {
		queue, err = tx.Intents()
		return err
	})
	if err != nil {
		return err
	}
	if len(queue) > 0 && ctx.Err() == nil {
		d.compare(ctx)
	}
	// What is revoked is in the CRL here, whoever stands before it in the queue.
	for i := range queue {
		if queue[i].Kind != ledger.KindIssue && queue[i].Change.CRL == nil {
			if err := d.publishHere(&queue[i]); err != nil {
				return err
			}
		}
	}
	for i := range queue {
		if ctx.Err() != nil && queue[i].Change != nil && d.cfg.Directory != nil {
			return fmt.Errorf("%s: %w", queue[i].What, context.Cause(ctx))
		}
		err := d.forward(ctx, &queue[i])
		if errors.Is(err, ErrNothingIssued) { // decided: it is withdrawn
			d.cfg.Log.Warn("intent withdrawn", "what", queue[i].What, "error", err)
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", queue[i].What, err)
		}
	}
	return nil
}

// forward takes one intent as far as it goes. Nil means it is done.
func (d *Desk) forward(ctx context.Context, in *ledger.Intent) error {
	switch {
	case in.Withdrawn:
		return d.bury(ctx, in, errors.New("it was withdrawn before"))
	case in.Kind == ledger.KindIssue:
		return d.forwardIssue(ctx, in, false)
	default:
		return d.forwardRevocation(ctx, in)
	}
}

// forwardIssue applies the change of in. If the directory stays silent the intent is
// withdrawn where somebody waits for the outcome, and left for later where nobody does.
func (d *Desk) forwardIssue(ctx context.Context, in *ledger.Intent, awaited bool) error {
	if in.Change == nil {
		return d.finish(in)
	}
	if d.cfg.Directory == nil {
		return ErrNoDirectory
	}
	apply := func() error { return d.cfg.Directory.Apply(ctx, *in.Change) }
	var err error
	if awaited {
		err = d.retry(ctx, apply)
	} else {
		err = apply()
	}
	switch {
	case err == nil:
		d.cfg.At(in.What, StepApplied)
		return d.finish(in)
	case transient(err) && !awaited:
		return err
	}
	in.Withdrawn, in.LastFailed = true, err.Error()
	if err := d.keep(in); err != nil {
		return fmt.Errorf("%w: %w", ErrUndecided, err)
	}
	return d.bury(ctx, in, err)
}

func (d *Desk) keep(in *ledger.Intent) error {
	return d.cfg.Ledger.Update(func(tx *ledger.Tx) error { return tx.PutIntent(*in) })
}

// bury sends the tombstone of a withdrawn intent; cause is why it was withdrawn. It
// returns nil if the directory had taken the real change before.
func (d *Desk) bury(ctx context.Context, in *ledger.Intent, cause error) error {
	if d.cfg.Directory == nil {
		return ErrNoDirectory
	}
	// ctx may just have run out over the real change: the tombstone gets time of its own.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.cfg.Patience)
	defer cancel()
	stone := client.Change{ChangeID: in.Change.ChangeID, Actor: in.Change.Actor}
	err := d.cfg.Directory.Apply(ctx, stone)
	switch {
	case errors.Is(err, client.ErrConflict): // the real one was first
		return d.finish(in)
	case err != nil:
		return fmt.Errorf("%w: %w", ErrUndecided, cause)
	}
	err = d.cfg.Ledger.Update(func(tx *ledger.Tx) error {
		if err := reserve(tx, in, 0); err != nil {
			return err
		}
		return tx.DropIntent(in.Number)
	})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUndecided, err)
	}
	return fmt.Errorf("%w: %w", ErrNothingIssued, cause)
}

// finish does what follows the commit point. If it fails, the intent stays and is
// finished later.
func (d *Desk) finish(in *ledger.Intent) error {
	revoked := false
	for _, c := range in.Effects.Certs {
		n := c.Number()
		var err error
		switch {
		case n == nil:
		case c.Revoked.IsZero():
			err = d.cfg.Authority.Record(c.DER, n)
		case in.Kind == ledger.KindIssue: // what something else takes the place of; any other is in the CRL before anybody hears of it
			revoked = true
			err = d.cfg.Authority.Revoke(d.revocation(c, n))
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrUnrecorded, err)
		}
	}
	d.cfg.At(in.What, StepRecorded)
	err := d.cfg.Ledger.Update(func(tx *ledger.Tx) error {
		if in.Kind == ledger.KindIssue { // a revocation has had its effects all along
			if err := tx.Take(in.Effects); err != nil {
				return err
			}
		}
		if err := d.told(tx, in); err != nil {
			return err
		}
		if revoked {
			if err := tx.AddIntent(crlIntent(d.now())); err != nil {
				return err
			}
		}
		return tx.DropIntent(in.Number)
	})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnrecorded, err)
	}
	d.cfg.At(in.What, StepDone)
	d.cfg.Log.Info("done", "what", in.What, "intent", in.Number)
	return nil
}
