package authn

import (
	"context"
	"fmt"
	"time"

	"twinkey/pkg/keybundle"
	"twinkey/pkg/keyfile"
	"twinkey/pkg/twincert"
	"twinkey/router/internal/native"
	"twinkey/router/internal/trust"
)

// Own opens the keys that a user has made on this machine (voluntary mode): nobody is asked for them. The password is
// read, never kept; the keys in the credentials are the caller's to wipe. A wrong password is keybundle.ErrOpen; a
// certificate that is expired, revoked, or not believed under t fails as a peer's would.
func Own(ctx context.Context, g *keybundle.Gate, t *trust.Store, f *keyfile.File, password []byte) (c native.Credentials, err error) {
	proof, err := g.Derive(ctx, password, f.Params)
	if err != nil {
		return c, fmt.Errorf("deriving the key of %s: %w", f.UID, err)
	}
	defer proof.Wipe()
	keys, err := f.Open(proof.Seal)
	if err != nil {
		return c, fmt.Errorf("opening the keys of %s: %w", f.UID, err)
	}
	if c.Certificate, err = t.Twin(time.Now(), f.Certificate.Raw, twincert.User); err != nil {
		keys.Control.Wipe()
		keys.Data.Wipe()
		return native.Credentials{}, err
	}
	return pair(c, keys)
}
