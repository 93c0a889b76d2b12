package authn

import (
	"context"
	"fmt"
	"time"

	"twinkey/directory/client"
	"twinkey/pkg/keybundle"
	"twinkey/pkg/twincert"
	"twinkey/proto/handshake"
	"twinkey/proto/secret"
	"twinkey/router/internal/native"
	"twinkey/router/internal/trust"
)

// Login fetches and opens the sealed keys of uid. The password is read, never kept; the
// keys in the credentials are the caller's to wipe. What the directory refuses comes as
// client.ErrDenied or client.ErrLocked; ErrBusy says that too many others are at it.
func Login(ctx context.Context, dir *client.Client, g *Gate, t *trust.Store, uid string, password []byte) (native.Credentials, error) {
	proof, err := prove(ctx, dir, g, uid, password)
	if err != nil {
		return native.Credentials{}, err
	}
	defer proof.Wipe()
	return unseal(ctx, dir, t, uid, proof)
}

// prove derives from a password what the directory and the sealed keys want to see. It is the caller's to wipe.
func prove(ctx context.Context, dir *client.Client, g *Gate, uid string, password []byte) (keybundle.Proof, error) {
	params, err := dir.LoginParams(ctx, uid)
	if err != nil {
		return keybundle.Proof{}, fmt.Errorf("asking how to prove the password of %s: %w", uid, err)
	}
	proof, err := g.Derive(ctx, password, params)
	if err != nil {
		return keybundle.Proof{}, fmt.Errorf("deriving the proof of %s: %w", uid, err)
	}
	return proof, nil
}

// unseal has the keys of uid released and opens them.
func unseal(ctx context.Context, dir *client.Client, t *trust.Store, uid string, proof keybundle.Proof) (c native.Credentials, err error) {
	release, err := dir.Release(ctx, uid, proof.Auth)
	if err != nil {
		return c, fmt.Errorf("asking for the keys of %s: %w", uid, err)
	}
	return Open(time.Now(), t, uid, release, proof.Seal)
}

// Open opens sealed keys that were released for uid. They are the caller's to wipe.
func Open(now time.Time, t *trust.Store, uid string, release client.Release, seal secret.Key) (c native.Credentials, err error) {
	if c.Certificate, err = t.Twin(now, release.Certificate, twincert.User); err != nil {
		return c, err
	}
	if c.Certificate.Name != uid {
		return c, fmt.Errorf("asking for the keys of %s: the directory answered with those of %s", uid, c.Certificate.Name)
	}
	keys, err := keybundle.Open(release.Sealed, seal, c.Certificate.Raw)
	if err != nil {
		return c, fmt.Errorf("opening the keys of %s: %w", uid, err)
	}
	return pair(c, keys)
}

// pair checks that the private keys are those of the certificate.
func pair(c native.Credentials, k keybundle.Private) (native.Credentials, error) {
	var err error
	if c.Control, err = handshake.NewKeyPair(k.Control); err == nil {
		c.Data, err = handshake.NewKeyPair(k.Data)
	}
	if err == nil && (c.Control.Public != c.Certificate.Keys.Control || c.Data.Public != c.Certificate.Keys.Data) {
		err = fmt.Errorf("the keys of %s are not those of the certificate", c.Certificate.Name)
	}
	if err != nil {
		k.Control.Wipe()
		k.Data.Wipe()
		return native.Credentials{}, err
	}
	return c, nil
}
