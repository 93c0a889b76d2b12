package authn

import (
	"fmt"
	"time"

	"twinkey/pkg/keyfile"
	"twinkey/pkg/twincert"
	"twinkey/proto/secret"
	"twinkey/router/internal/native"
	"twinkey/router/internal/trust"
)

// Own opens the keys that a user has made on this machine (voluntary mode): nobody is asked for them. The keys in the
// credentials are the caller's to wipe. The key of another password is keybundle.ErrOpen; a certificate that is expired,
// revoked, or not believed under t fails as a peer's would.
func Own(now time.Time, t *trust.Store, f *keyfile.File, seal secret.Key) (c native.Credentials, err error) {
	keys, err := f.Open(seal)
	if err != nil {
		return c, fmt.Errorf("opening the keys of %s: %w", f.UID, err)
	}
	if c.Certificate, err = t.Twin(now, f.Certificate.Raw, twincert.User); err != nil {
		keys.Control.Wipe()
		keys.Data.Wipe()
		return native.Credentials{}, err
	}
	return pair(c, keys)
}
