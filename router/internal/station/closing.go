package station

import (
	"context"
	"crypto/ecdh"
	"fmt"
	"time"
)

// proveTime is how long proving the end of a session may take: the router waits for it.
const proveTime = 5 * time.Second

// proveEnd proves beforehand that the session on the present certificate has ended, against the CA's key: the router in front, which has no key of the
// user's, hands it to the CA then, where the policy says revoke-on-close.
func (r *run) proveEnd(ctx context.Context, key []byte) error {
	ctx, cancel := context.WithTimeout(ctx, proveTime)
	defer cancel()
	own, err := r.credentials()
	if err != nil {
		return err
	}
	defer own.Control.Private.Wipe()
	defer own.Data.Private.Wipe()
	data, err := ecdh.X25519().NewPrivateKey(own.Data.Private.Bytes())
	if err != nil {
		return fmt.Errorf("data key of %s: %w", r.s.o.User, err)
	}
	return r.s.front.ProveEnd(ctx, r.s.admission().Token, own.Certificate, data, key)
}

// proveAgain does it in a session that goes on, if it is asked for. Where it fails the router ends the session, and says why.
func (r *run) proveAgain(ctx context.Context, key []byte) {
	if len(key) == 0 {
		return
	}
	if err := r.proveEnd(ctx, key); err != nil {
		r.s.log.Error("end of the session not proved beforehand, as the router wants it", "error", err)
	}
}
