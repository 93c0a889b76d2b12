package renewal

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	"twinkey/pkg/identity"
)

// How often the clock is looked at, and how long a failed renewal waits. A box that
// slept past expiry finds out within seconds of waking.
const (
	look  = 10 * time.Second
	retry = time.Minute
)

// Keeper renews one identity.
type Keeper struct {
	ID    *identity.Identity
	Renew func(ctx context.Context) (identity.Bundle, error)
	// Renewed is told of the new certificates after they are safely on disk.
	Renewed func(ctx context.Context) error
	// At is the fraction of a certificate's life after which it is renewed.
	At func() float64
	// Warn is how long before an end of life a line is logged, once a day.
	Warn func() time.Duration
	Log  *slog.Logger
}

// Life is one certificate's term.
type Life struct {
	Kind, Subject, Serial string
	NotBefore, NotAfter   time.Time
	RenewAt               time.Time // zero: not ours to renew
}

// Lives lists the certificates that the box lives by: its own first, then the CA's.
func Lives(b identity.Bundle, at float64) []Life {
	var all []Life
	if leaf := b.TLS.Leaf; leaf != nil {
		all = append(all, Life{Kind: "tls", Subject: leaf.Subject.CommonName, Serial: leaf.SerialNumber.String(), NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter})
	}
	if t := b.Twin; t != nil {
		all = append(all, Life{Kind: "twin", Subject: t.Name, Serial: t.Serial.String(), NotBefore: t.NotBefore, NotAfter: t.NotAfter})
	}
	for i := range all {
		term := all[i].NotAfter.Sub(all[i].NotBefore)
		all[i].RenewAt = all[i].NotBefore.Add(time.Duration(float64(term) * at))
	}
	for _, c := range b.Intermediates {
		all = append(all, Life{Kind: "intermediate", Subject: c.Subject.CommonName, Serial: c.SerialNumber.String(), NotBefore: c.NotBefore, NotAfter: c.NotAfter})
	}
	for _, c := range b.Roots {
		all = append(all, Life{Kind: "root", Subject: c.Subject.CommonName, Serial: c.SerialNumber.String(), NotBefore: c.NotBefore, NotAfter: c.NotAfter})
	}
	return all
}

// Run keeps the identity alive until ctx ends.
func (k *Keeper) Run(ctx context.Context) {
	var (
		next, warned time.Time
		untold       bool // the new certificates are on disk, and Renewed has not taken them
	)
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		now := time.Now().Round(0) // by the wall: certificates know no other clock
		lives := Lives(k.ID.Bundle(), k.At())
		if now.Sub(warned) >= 24*time.Hour || now.Before(warned) {
			warned = now
			k.tell(now, lives)
		}
		if next.Sub(now) > 2*retry {
			next = now // the clock was set back
		}
		if (untold || due(now, lives)) && !now.Before(next) {
			var wait time.Duration
			untold, wait = k.renew(ctx, untold)
			next = now.Add(wait)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func due(now time.Time, lives []Life) bool {
	for _, l := range lives {
		if !l.RenewAt.IsZero() && !now.Before(l.RenewAt) {
			return true
		}
	}
	return false
}

// renew tries once; of certificates that are on disk already (untold) it only tells. It
// returns whether they are still to be told of, and how long to wait before the next try.
func (k *Keeper) renew(ctx context.Context, untold bool) (bool, time.Duration) {
	var err error
	if !untold {
		var b identity.Bundle
		if b, err = k.Renew(ctx); err == nil {
			err = k.ID.Replace(b)
		}
		untold = err == nil
	}
	if err == nil {
		err = k.Renewed(ctx)
	}
	if ctx.Err() != nil && err != nil {
		return untold, retry // we are told to end
	}
	if err != nil {
		k.Log.Error("certificates not renewed", "error", err, "again_in", retry.String())
		return untold, retry + rand.N(retry/4) //nolint:gosec // spreading load is no secret
	}
	for _, l := range Lives(k.ID.Bundle(), k.At()) {
		if !l.RenewAt.IsZero() {
			k.Log.Info("certificate renewed", "kind", l.Kind, "subject", l.Subject, "serial", l.Serial, "not_after", l.NotAfter)
		}
	}
	return false, 0
}

// tell logs how long each certificate still lives.
func (k *Keeper) tell(now time.Time, lives []Life) {
	for _, l := range lives {
		left := l.NotAfter.Sub(now).Round(time.Second)
		level := slog.LevelInfo
		if left < k.Warn() {
			level = slog.LevelWarn
		}
		k.Log.Log(context.Background(), level, "certificate lives", "kind", l.Kind, "subject", l.Subject, "serial", l.Serial, "for", left.String(), "not_after", l.NotAfter)
	}
}
