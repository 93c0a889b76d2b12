package accounts

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"twinkey/ca/internal/ledger"
	"twinkey/ca/internal/source"
	"twinkey/directory/client"
)

const (
	every      = 5 * time.Second // between two looks at the directory
	lastRetry  = time.Minute
	tellTime   = time.Minute    // for one event, repetitions included
	unheard    = 24 * time.Hour // after which a call has ended; routers tell of each at least once an hour
	sweepEvery = time.Hour
	maxName    = 128 // bytes of source.Event.Session
)

// Config of a clerk.
type Config struct {
	Source string
	To     source.Accountant
	Read   func(ctx context.Context, source string, after uint64) (client.UserCalls, error) // client.Client.UserCalls
	Ledger *ledger.Ledger
	Now    func() time.Time
	Log    *slog.Logger
}

// Clerk tells one source of calls. Use New.
type Clerk struct {
	cfg   Config
	swept time.Time
}

// New returns a clerk; Run has it work.
func New(c Config) *Clerk {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Clerk{cfg: c}
}

// Run tells the source until ctx ends.
func (c *Clerk) Run(ctx context.Context) {
	wait, failing := time.Duration(0), false
	for {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
		more, err := c.round(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			if !failing {
				c.cfg.Log.Warn("source not told of calls yet", "source", c.cfg.Source, "error", err)
			}
			wait, failing = min(max(every, 2*wait), lastRetry), true
			continue
		case failing:
			c.cfg.Log.Info("source is told of calls again", "source", c.cfg.Source)
		}
		wait, failing = every, false
		if more {
			wait = 0
		}
	}
}

// round takes what the directory has, once; more says that there may be more.
func (c *Clerk) round(ctx context.Context) (more bool, err error) {
	var mark uint64
	err = c.cfg.Ledger.View(func(tx *ledger.Tx) (err error) {
		mark, err = tx.CallsTold(c.cfg.Source)
		return err
	})
	if err != nil {
		return false, err
	}
	got, err := c.cfg.Read(ctx, c.cfg.Source, mark)
	if err != nil {
		return false, err
	}
	if got.Newest < mark {
		c.cfg.Log.Warn("the directory was restored from an older copy; calls may be told twice", "source", c.cfg.Source)
		return true, c.cfg.Ledger.Update(func(tx *ledger.Tx) error { return tx.SetCallsTold(c.cfg.Source, 0) })
	}
	for _, u := range got.Calls {
		if u.Seq <= mark { // it would be told for ever
			return false, fmt.Errorf("the directory answered with record %d after %d", u.Seq, mark)
		}
		if err := c.take(ctx, u); err != nil {
			return false, err
		}
		mark = u.Seq
	}
	if len(got.Calls) > 0 {
		return true, nil
	}
	return false, c.sweep(ctx)
}

// take tells the source of one record and notes that it has been told.
func (c *Clerk) take(ctx context.Context, u client.UserCall) error {
	if err := c.outrun(ctx, u); err != nil {
		return err
	}
	o, err := c.open(u)
	if err != nil {
		return err
	}
	what, ok := map[string]source.What{client.CallUp: source.Start, client.CallInterim: source.Interim, client.CallDown: source.Stop}[u.Record.Event]
	if !ok {
		return c.note(u.Seq, func(*ledger.Tx) error { return nil })
	}
	if err := c.tell(ctx, event(what, o, cause(u.Record.Cause))); err != nil {
		return err
	}
	return c.note(u.Seq, func(tx *ledger.Tx) error {
		if what == source.Stop {
			return tx.DropOpenCall(o.Source, o.Name)
		}
		return tx.PutOpenCall(o)
	})
}

func (c *Clerk) note(seq uint64, also func(*ledger.Tx) error) error {
	return c.cfg.Ledger.Update(func(tx *ledger.Tx) error {
		return errors.Join(also(tx), tx.SetCallsTold(c.cfg.Source, seq))
	})
}

// open is the call of a record as it is now.
func (c *Clerk) open(u client.UserCall) (o ledger.OpenCall, err error) {
	r := u.Record
	name := callName(u)
	err = c.cfg.Ledger.View(func(tx *ledger.Tx) error {
		var known bool
		if o, known, err = tx.OpenCall(c.cfg.Source, name); err != nil || known {
			return err
		}
		l, ok, err := tx.Login(r.User, u.Router)
		if ok && l.Source == c.cfg.Source {
			o.State = l.State
		}
		return err
	})
	if err != nil {
		return o, err
	}
	if o.Name == "" {
		o.Source, o.Name, o.UID, o.Router, o.Run, o.Address, o.Since = c.cfg.Source, name, r.User, u.Router, u.Run, r.Address, r.Since
		if o.Since.IsZero() {
			o.Since = r.Time
		}
	}
	o.Heard = r.Time
	// What the router sent into the call came from the user.
	o.BytesIn, o.PacketsIn, o.BytesOut, o.PacketsOut = max(o.BytesIn, r.TxBytes), max(o.PacketsIn, r.TxPackets), max(o.BytesOut, r.RxBytes), max(o.PacketsOut, r.RxPackets)
	return o, nil
}

// callName names a call among all calls of all routers and days.
func callName(u client.UserCall) string {
	name := fmt.Sprintf("%s/%s/%d", u.Router, u.Run, u.Record.Call)
	if len(name) > maxName {
		sum := sha256.Sum256([]byte(name))
		name = hex.EncodeToString(sum[:])
	}
	return name
}

func event(what source.What, o ledger.OpenCall, why source.Cause) source.Event {
	e := source.Event{What: what, Time: o.Heard, Session: o.Name, UID: o.UID, Router: o.Router, Address: o.Address, State: o.State}
	if what != source.Start {
		e.BytesIn, e.BytesOut, e.PacketsIn, e.PacketsOut, e.Lasted = o.BytesIn, o.BytesOut, o.PacketsIn, o.PacketsOut, max(0, o.Heard.Sub(o.Since))
	}
	if what == source.Stop {
		e.Cause = why
	}
	return e
}

// cause is a record's, in the words of sources.
func cause(s string) source.Cause {
	return map[string]source.Cause{
		client.CauseLogout: source.CauseUser, client.CauseLost: source.CauseLost, client.CauseIdle: source.CauseIdle,
		client.CauseSession: source.CauseSession, client.CauseRevoked: source.CauseRevoked, client.CauseShutdown: source.CauseShutdown,
	}[s]
}

// tell hands the source one event. What the source will never take is logged and counts as told.
func (c *Clerk) tell(ctx context.Context, e source.Event) error {
	ctx, cancel := context.WithTimeout(ctx, tellTime)
	defer cancel()
	err := c.cfg.To.Account(ctx, e)
	if err == nil || errors.Is(err, source.ErrUnavailable) || ctx.Err() != nil {
		return err
	}
	c.cfg.Log.Error("the source does not take an event of a call", "source", c.cfg.Source, "uid", e.UID, "call", e.Session, "error", err)
	return nil
}

// outrun ends the calls that a router had up when it began to run anew.
func (c *Clerk) outrun(ctx context.Context, u client.UserCall) error {
	return c.end(ctx, func(o ledger.OpenCall) bool {
		return o.Router == u.Router && o.Run != u.Run && !o.Heard.After(u.Record.Time)
	})
}

// sweep ends, now and then, the calls that were not heard of for too long.
func (c *Clerk) sweep(ctx context.Context) error {
	now := c.cfg.Now()
	if age := now.Sub(c.swept); age >= 0 && age < sweepEvery {
		return nil
	}
	err := c.end(ctx, func(o ledger.OpenCall) bool { return now.Sub(o.Heard) > unheard })
	if err == nil {
		c.swept = now
	}
	return err
}

// end tells that calls ended when they were last heard of, oldest first.
func (c *Clerk) end(ctx context.Context, gone func(ledger.OpenCall) bool) error {
	var calls []ledger.OpenCall
	err := c.cfg.Ledger.View(func(tx *ledger.Tx) (err error) {
		calls, err = tx.OpenCalls(c.cfg.Source)
		return err
	})
	if err != nil {
		return err
	}
	calls = slices.DeleteFunc(calls, func(o ledger.OpenCall) bool { return !gone(o) })
	slices.SortFunc(calls, func(a, b ledger.OpenCall) int { return cmp.Or(a.Heard.Compare(b.Heard), cmp.Compare(a.Name, b.Name)) })
	for _, o := range calls {
		if err := c.tell(ctx, event(source.Stop, o, source.CauseLost)); err != nil {
			return err
		}
		if err := c.cfg.Ledger.Update(func(tx *ledger.Tx) error { return tx.DropOpenCall(o.Source, o.Name) }); err != nil {
			return err
		}
	}
	return nil
}
