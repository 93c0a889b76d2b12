package station

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"twinkey/proto/handshake"
	"twinkey/router/internal/engine"
	"twinkey/router/internal/policy"
	"twinkey/router/internal/voluntary"
)

// Limits of the back-off after the router in front was lost.
const (
	firstRetry = time.Second
	lastRetry  = 30 * time.Second
)

// follow takes what the router in front tells, until the session ends or ctx does. What it returns is why.
func (r *run) follow(ctx context.Context) error {
	wait := firstRetry
	for {
		began := time.Now()
		err := r.listen(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if errors.Is(err, ErrEnded) {
			return err
		}
		if isCode(err, voluntary.CodeToken) {
			err = r.relogin(ctx, r.s.admission().Token)
			if err == nil {
				continue
			}
			if final(err) {
				return err
			}
		}
		r.s.note(err)
		if time.Since(began) > lastRetry {
			wait = firstRetry
		}
		select {
		case <-time.After(wait + rand.N(wait/4)): //nolint:gosec // spreading load is no secret
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		wait = min(2*wait, lastRetry)
	}
}

func isCode(err error, c voluntary.Code) bool {
	e, ok := errors.AsType[*voluntary.Error](err)
	return ok && e.Code == c
}

// final says whether trying again is of no use without a person.
func final(err error) bool {
	e, ok := errors.AsType[*voluntary.Error](err)
	if !ok {
		return true
	}
	switch e.Code {
	case voluntary.CodeBusy, voluntary.CodeTaken, voluntary.CodeUnavailable, voluntary.CodeChallenge: // taken, maybe, by what we were before
		return false
	default:
		return true
	}
}

// note remembers trouble with the router in front, and says when it begins and when it is over.
func (s *Station) note(err error) {
	s.mu.Lock()
	was := s.problem
	s.problem = err
	s.mu.Unlock()
	switch {
	case err != nil && was == nil:
		s.log.Warn("router in front lost", "error", err)
	case err == nil && was != nil:
		s.log.Info("router in front found again")
	}
}

// listen follows one watch to its end.
func (r *run) listen(ctx context.Context) error {
	for w, err := range r.s.front.Watch(ctx, r.s.admission().Token) {
		if err != nil {
			return err
		}
		r.s.note(nil)
		if w.Ended != "" {
			return fmt.Errorf("%w: %s", ErrEnded, w.Ended)
		}
		if err := r.take(ctx, w, time.Now()); err != nil {
			return err
		}
	}
	return errors.New("the watch ended without a word")
}

// take passes on what one word says. Rules go before a newer certificate of our own, which may be of another group, and that before revocations, since the
// one before may be among them: what they concern is not to be called.
func (r *run) take(ctx context.Context, w voluntary.Word, now time.Time) error {
	if len(w.CRL) > 0 {
		if err := r.trust.SetCRL(w.CRL, now); err != nil {
			r.s.log.Warn("crl not taken", "error", err)
		}
	}
	if ago := time.Duration(w.Heard) * time.Millisecond; ago >= 0 && ago.Milliseconds() == w.Heard {
		r.trust.Told(now.Add(-ago), now)
	}
	if w.Rules != nil {
		p, err := policy.New(*w.Rules)
		if err != nil {
			return fmt.Errorf("the rules that the router tells: %w", err)
		}
		if err := r.eng.SetPolicy(ctx, p); err != nil {
			return err
		}
	}
	if w.Successor != nil {
		if err := r.succeed(ctx, *w.Successor, w.Close, now); err != nil {
			r.s.log.Error("newer certificate not taken", "error", err)
		}
	} else {
		r.proveAgain(ctx, w.Close)
	}
	if len(w.Revoked) > 0 {
		if err := r.eng.Revoke(ctx, w.Revoked...); err != nil {
			return err
		}
	}
	r.maps.Lock()
	defer r.maps.Unlock()
	if w.Sites != nil {
		r.sites, r.unread = *w.Sites, true
	}
	if r.ready(now) {
		return r.pushMap(ctx)
	}
	return nil
}

// ready says, once, whether the map that came last is to be told to the engine. While nothing has been heard for too long no
// certificate is believed: all of it would be refused, and the calls that are up end. The caller holds maps.
func (r *run) ready(now time.Time) bool {
	if !r.unread || r.trust.Fresh(now) != nil {
		return false
	}
	r.unread = false
	return true
}

// relogin logs in anew, with what is kept of the password, unless somebody else has since token was refused. errAnew: the
// session is another; ErrAgain: a source wants more than is kept.
func (r *run) relogin(ctx context.Context, token []byte) error {
	s := r.s
	s.again.Lock()
	defer s.again.Unlock()
	old := s.admission()
	if !bytes.Equal(old.Token, token) {
		return nil
	}
	if old.Source {
		return ErrAgain
	}
	adm, err := s.enter(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.adm = adm
	s.mu.Unlock()
	s.log.Info("logged in anew", "router", adm.Router, "address", adm.Address.String())
	if adm.Address != old.Address || !bytes.Equal(adm.Certificate, old.Certificate) {
		return errAnew
	}
	now := time.Now()
	r.believe(adm, now)
	if adm.Successor != nil {
		if err := r.succeed(ctx, *adm.Successor, adm.Close, now); err != nil {
			s.log.Error("newer certificate not taken", "error", err)
			return errAnew
		}
	} else {
		r.proveAgain(ctx, adm.Close)
	}
	return nil
}

// Sign implements native.Signer: it asks the router in front, while the engine goes on.
func (r *run) Sign(_ time.Time, st handshake.Statement, done func(time.Time, handshake.Voucher, error)) {
	r.asks.Go(func() {
		v, err := r.ask(r.ctx, st.Hash)
		// An engine that has stopped waits for nothing.
		_ = r.eng.Do(context.WithoutCancel(r.ctx), func(now time.Time) { done(now, v, err) })
	})
}

// ask has a handshake signed, logging in anew where the session is forgotten.
func (r *run) ask(ctx context.Context, hash [32]byte) (handshake.Voucher, error) {
	token := r.s.admission().Token
	v, good, err := r.s.front.Sign(ctx, token, hash)
	if isCode(err, voluntary.CodeToken) {
		if err = r.relogin(ctx, token); err != nil {
			if final(err) {
				r.stop(err)
			}
			return v, err
		}
		v, good, err = r.s.front.Sign(ctx, r.s.admission().Token, hash)
	}
	if err == nil {
		r.mu.Lock()
		r.vouched.note(time.Now(), good)
		r.mu.Unlock()
	}
	return v, err
}

// vouched is when the router's word for the tunnels that stand is to be had anew: at half of the time that it is good for. The zero
// value waits for nothing.
type vouched struct{ at time.Time }

// note takes for how long a word is good; 0: no better one is to be had.
func (v *vouched) note(now time.Time, good time.Duration) {
	if at := now.Add(good / 2); good > 0 && (v.at.IsZero() || at.Before(v.at)) {
		v.at = at
	}
}

// due says whether it is time, once.
func (v *vouched) due(now time.Time) bool {
	if v.at.IsZero() || now.Before(v.at) {
		return false
	}
	v.at = time.Time{}
	return true
}

// renewTick is how often it is looked whether the router is to be asked again.
const renewTick = time.Second

// renew places calls anew before the router's word for them runs out.
func (r *run) renew(ctx context.Context) {
	t := time.NewTicker(renewTick)
	defer t.Stop()
	for {
		select {
		case now := <-t.C:
			r.mu.Lock()
			due := r.vouched.due(now)
			r.mu.Unlock()
			if due {
				if err := r.eng.Anew(ctx); errors.Is(err, engine.ErrStopped) {
					return
				}
			}
		case <-ctx.Done():
			return
		}
	}
}
