package station

import (
	"context"
	"errors"
	"fmt"
	"time"

	"twinkey/directory/client"
	"twinkey/pkg/twincert"
	"twinkey/proto/secret"
	"twinkey/router/internal/authn"
	"twinkey/router/internal/engine"
	"twinkey/router/internal/native"
)

// certificate is the user's, of the moment.
func (r *run) certificate() *twincert.Certificate {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cred.Certificate
}

// succeed goes over to a newer certificate over the same data key: the calls are placed anew beside the old ones. One that we have is
// told again after the watch was lost. The end of the session is proved beforehand for the newer one against the key that is asked for, if any is, before
// the router is to sign for new tunnels.
func (r *run) succeed(ctx context.Context, next client.Successor, ending []byte, now time.Time) error {
	own, err := r.credentials()
	if err != nil {
		return err
	}
	defer own.Control.Private.Wipe()
	defer own.Data.Private.Wipe()
	uid := r.s.o.User
	cred, err := authn.Succeed(now, r.trust, uid, own.Data.Private, next)
	if err != nil {
		return err
	}
	if cred.Certificate.ID() == own.Certificate.ID() {
		cred.Control.Private.Wipe()
		cred.Data.Private.Wipe()
		r.proveAgain(ctx, ending)
		return nil
	}
	r.mu.Lock()
	old := r.cred
	r.cred = cred
	r.mu.Unlock()
	old.Control.Private.Wipe()
	old.Data.Private.Wipe()
	r.proveAgain(ctx, ending)
	r.s.say("the certificate has been renewed, until %s", cred.Certificate.NotAfter.Local().Format(time.DateTime))
	users, err := r.eng.Users(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, u := range users {
		err := r.eng.Succeed(ctx, u, func(data secret.Key) (native.Credentials, error) {
			return authn.Succeed(now, r.trust, uid, data, next)
		})
		if err != nil && !errors.Is(err, engine.ErrGone) {
			errs = append(errs, fmt.Errorf("call to %s: %w", u.Key.Peer, err))
		}
	}
	return errors.Join(errs...)
}
