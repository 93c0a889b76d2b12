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
	// maxOpen is how many calls a user has at one router: one with each other router, in a large company.
	maxOpen = 256
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
	cfg     Config
	swept   time.Time
	routers map[string]*router // by name; what is not here is in the ledger
	warned  map[string]bool    // routers of which something was not believed, since the last sweep
}

// router is what is open at one.
type router struct {
	run  string
	open map[string]int // calls, by user
	left time.Time      // when the first of its calls that are of another run was last heard of; zero: there is none
}

// New returns a clerk; Run has it work.
func New(c Config) *Clerk {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Clerk{cfg: c, routers: map[string]*router{}, warned: map[string]bool{}}
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
	noted := mark
	for _, u := range got.Calls {
		if u.Seq <= mark { // it would be told for ever
			return false, fmt.Errorf("the directory answered with record %d after %d", u.Seq, mark)
		}
		told, err := c.take(ctx, u)
		if err != nil {
			return false, err
		}
		if mark = u.Seq; told {
			noted = mark
		}
	}
	if mark > noted { // once for all that were passed over, so that many of them cost little
		if err := c.note(mark, func(*ledger.Tx) error { return nil }); err != nil {
			return false, err
		}
	}
	if len(got.Calls) > 0 {
		return true, nil
	}
	return false, c.sweep(ctx)
}

// take tells the source of one record and notes that it has been told. A record that is not to be believed is passed over:
// told says that it was not.
func (c *Clerk) take(ctx context.Context, u client.UserCall) (told bool, err error) {
	if now := c.cfg.Now(); u.Record.Time.After(now) { // a call of the future would never be swept
		u.Record.Time = now
	}
	r, err := c.outrun(ctx, u)
	if err != nil {
		return false, err
	}
	what, ok := map[string]source.What{client.CallUp: source.Start, client.CallInterim: source.Interim, client.CallDown: source.Stop}[u.Record.Event]
	if !ok {
		return false, nil
	}
	o, known, err := c.open(u)
	if err == nil && !known && what != source.Stop && r.open[u.Record.User] >= maxOpen {
		err = fmt.Errorf("%w: %d calls are open already", errLie, maxOpen)
	}
	if errors.Is(err, errLie) {
		if !c.warned[u.Router] {
			c.cfg.Log.Warn("a router tells of a call that cannot be; the source is not told, nor is this log of more such calls for a while",
				"source", c.cfg.Source, "router", u.Router, "uid", u.Record.User, "error", err)
		}
		c.warned[u.Router] = true
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := c.tell(ctx, event(what, o, cause(u.Record.Cause))); err != nil {
		return false, err
	}
	err = c.note(u.Seq, func(tx *ledger.Tx) error {
		if what == source.Stop {
			return tx.DropOpenCall(o.Source, o.Name)
		}
		return tx.PutOpenCall(o)
	})
	switch {
	case err != nil:
	case known && what == source.Stop:
		r.open[o.UID]--
	case !known && what != source.Stop:
		r.open[o.UID]++
	}
	return true, err
}

func (c *Clerk) note(seq uint64, also func(*ledger.Tx) error) error {
	return c.cfg.Ledger.Update(func(tx *ledger.Tx) error {
		return errors.Join(also(tx), tx.SetCallsTold(c.cfg.Source, seq))
	})
}

// errLie says that a call is none of which the router may tell.
var errLie = errors.New("not believed")

// open is the call of a record as it is now, and whether the source knows it. A new one is believed of a user whom this source has
// let in at that router; else the error is errLie.
func (c *Clerk) open(u client.UserCall) (o ledger.OpenCall, known bool, err error) {
	r := u.Record
	name := callName(u)
	err = c.cfg.Ledger.View(func(tx *ledger.Tx) error {
		if o, known, err = tx.OpenCall(c.cfg.Source, name); err != nil {
			return err
		}
		if known {
			if o.UID != r.User {
				return fmt.Errorf("%w: the call is that of %s", errLie, o.UID)
			}
			return nil
		}
		l, ok, err := tx.Login(r.User, u.Router)
		if err == nil && (!ok || l.Source != c.cfg.Source) {
			err = fmt.Errorf("%w: the user never logged in there", errLie)
		}
		o.State, o.Login = l.State, l.Time
		return err
	})
	if err != nil {
		return o, known, err
	}
	if !known {
		o.Source, o.Name, o.UID, o.Router, o.Run, o.Address, o.Since = c.cfg.Source, name, r.User, u.Router, u.Run, r.Address, r.Since
		if o.Since.IsZero() {
			o.Since = r.Time
		}
		if o.Since.Before(o.Login) { // the user would have been there before the source let them in
			o.Since = o.Login
		}
	}
	o.Heard = r.Time
	// What the router sent into the call came from the user.
	o.BytesIn, o.PacketsIn, o.BytesOut, o.PacketsOut = max(o.BytesIn, r.TxBytes), max(o.PacketsIn, r.TxPackets), max(o.BytesOut, r.RxBytes), max(o.PacketsOut, r.RxPackets)
	return o, known, nil
}

// callName names a call among all calls of all routers and days.
func callName(u client.UserCall) string {
	name := fmt.Sprintf("%s/%d", u.Run, u.Record.Call)
	if len(callsOf(u.Router))+len(name) > maxName {
		sum := sha256.Sum256([]byte(name))
		name = hex.EncodeToString(sum[:])
	}
	return callsOf(u.Router) + name
}

// callsOf is how the names of a router's calls begin.
func callsOf(router string) string { return router + "/" }

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

// outrun ends the calls that a router had up when it began to run anew, and returns what is open there. It looks through them
// when the run is another one, or when there is one to end: a router that tells much does not have it done for each record.
func (c *Clerk) outrun(ctx context.Context, u client.UserCall) (*router, error) {
	at := u.Record.Time
	if r := c.routers[u.Router]; r != nil && r.run == u.Run && (r.left.IsZero() || at.Before(r.left)) {
		return r, nil
	}
	delete(c.routers, u.Router)
	calls, err := c.calls(callsOf(u.Router))
	if err != nil {
		return nil, err
	}
	r := &router{run: u.Run, open: map[string]int{}}
	var gone []ledger.OpenCall
	for _, o := range calls {
		other := o.Run != u.Run
		if other && !o.Heard.After(at) {
			gone = append(gone, o)
			continue
		}
		r.open[o.UID]++
		if other && (r.left.IsZero() || o.Heard.Before(r.left)) {
			r.left = o.Heard
		}
	}
	if err := c.end(ctx, gone); err != nil {
		return nil, err
	}
	c.routers[u.Router] = r
	return r, nil
}

// sweep ends, now and then, the calls that were not heard of for too long.
func (c *Clerk) sweep(ctx context.Context) error {
	now := c.cfg.Now()
	if age := now.Sub(c.swept); age >= 0 && age < sweepEvery {
		return nil
	}
	clear(c.routers)
	clear(c.warned)
	calls, err := c.calls("")
	if err != nil {
		return err
	}
	if err = c.end(ctx, slices.DeleteFunc(calls, func(o ledger.OpenCall) bool { return now.Sub(o.Heard) <= unheard })); err == nil {
		c.swept = now
	}
	return err
}

// calls are those of which the source knows and whose names begin so.
func (c *Clerk) calls(begin string) (calls []ledger.OpenCall, err error) {
	err = c.cfg.Ledger.View(func(tx *ledger.Tx) (err error) {
		calls, err = tx.OpenCalls(c.cfg.Source, begin)
		return err
	})
	return calls, err
}

// end tells that calls ended when they were last heard of, oldest first.
func (c *Clerk) end(ctx context.Context, calls []ledger.OpenCall) error {
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
