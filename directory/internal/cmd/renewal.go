package cmd

import (
	"context"
	"crypto/x509"
	"log/slog"
	"time"

	caclient "twinkey/ca/client"
	"twinkey/pkg/cli"
	"twinkey/pkg/identity"
)

const (
	// The clock is looked at this often, for it may jump while a timer sleeps.
	renewLook    = 10 * time.Minute
	renewTimeout = time.Minute
	renewRetry   = time.Minute // doubled up to renewLook
)

// renewal keeps the directory's certificate alive.
type renewal struct {
	id    *identity.Identity
	at    float64
	log   *slog.Logger
	renew func(context.Context) (identity.Bundle, error) // nil: nobody to ask
	now   func() time.Time
}

func newRenewal(id *identity.Identity, s Settings, log *slog.Logger) *renewal {
	r := &renewal{id: id, at: s.RenewAt, log: log, now: time.Now}
	if s.CA != "" {
		r.renew = func(ctx context.Context) (identity.Bundle, error) {
			return caclient.Renew(ctx, s.CA, id, caclient.Options{})
		}
	}
	return r
}

// due is when c has lived the part at of its life.
func due(c *x509.Certificate, at float64) time.Time {
	return c.NotBefore.Add(time.Duration(at * float64(c.NotAfter.Sub(c.NotBefore))))
}

func (r *renewal) run(ctx context.Context) {
	retry := renewRetry
	for {
		wait := renewLook
		if r.step(ctx) {
			retry = renewRetry
		} else {
			wait, retry = retry, min(2*retry, renewLook)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// step renews if it is time, and says whether all is well.
func (r *renewal) step(ctx context.Context) bool {
	leaf := r.id.Bundle().TLS.Leaf
	now := r.now()
	if now.Before(due(leaf, r.at)) {
		return true
	}
	if r.renew == nil {
		r.log.Warn("certificate-runs-out", "left", cli.Duration(leaf.NotAfter.Sub(now)), "hint", "set ca in directory.yaml, or pass --ca")
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	b, err := r.renew(ctx)
	if err == nil {
		err = r.id.Replace(b)
	}
	if err != nil {
		r.log.Error("certificate-renewal-failed", "left", cli.Duration(leaf.NotAfter.Sub(now)), "error", err)
		return false
	}
	r.log.Info("certificate-renewed", "certificate-until", b.TLS.Leaf.NotAfter)
	return true
}
