package sitemap

import (
	"context"
	"time"
)

// fallBack is how it goes with the CA's CRL, since the directory was lost.
type fallBack struct {
	asked   time.Time
	begun   bool   // it was taken at least once
	problem string // why not, the last time
}

// fallBack takes the CRL from the CA, if it was not asked just now, and ends what the CRL revokes: the CA puts into it at
// once what it cannot tell a directory that is away.
func (f *Follower) fallBack(ctx context.Context) {
	b := &f.fellBack
	if f.FromCA == nil || !b.asked.IsZero() && time.Since(b.asked) < fallBackEvery {
		return
	}
	b.asked = time.Now()
	der, err := f.FromCA(ctx)
	if err == nil {
		err = f.takeCRL(ctx, der)
	}
	switch {
	case ctx.Err() != nil:
	case err == nil && (!b.begun || b.problem != ""):
		f.log.Info("the CA is asked for its CRL while the directory is away", "every", fallBackEvery)
		b.begun, b.problem = true, ""
	case err != nil && err.Error() != b.problem:
		f.log.Warn("the CA's CRL not taken while the directory is away: revocations are not heard", "error", err)
		b.problem = err.Error()
	}
}

// takeCRL believes a CRL of the CA and lets go of what it revokes and was not known to be revoked.
func (f *Follower) takeCRL(ctx context.Context, der []byte) error {
	news, err := f.trust.TakeCRL(der, time.Now())
	if err != nil {
		return err
	}
	if f.sink.CRL != nil {
		f.sink.CRL(der)
	}
	if len(news) == 0 {
		return nil
	}
	for _, id := range news {
		f.log.Info("revocation heard", "certificate", id.String(), "by", "the CA's CRL")
	}
	if err := f.sink.Cut(ctx, news...); err != nil {
		return err
	}
	return f.publish(ctx) // a revoked site is none
}
