package authn

import (
	"context"
	"errors"
	"fmt"
	"time"

	caclient "twinkey/ca/client"
	"twinkey/directory/client"
	"twinkey/pkg/keybundle"
	"twinkey/pkg/twincert"
	"twinkey/proto/handshake"
	"twinkey/proto/secret"
	"twinkey/router/internal/native"
	"twinkey/router/internal/trust"
)

// AskCA asks the CA about a user whom a source may know, as the router that it is bound to: caclient.AskLogin.
type AskCA func(ctx context.Context, uid string, password []byte) (caclient.Admission, error)

// refuseAfter is between the moments at which refusals go out: more than the CA takes to refuse, and a directory.
const refuseAfter = 4 * time.Second

// Hold waits, if a login that began then was refused for who the user is, for the next moment at which such refusals go out: how long it
// took to find out would tell who is known, and to whom. Whoever answers people calls it, when nothing of the router's is taken up any more.
func Hold(ctx context.Context, began time.Time, err error) {
	if !errors.Is(err, client.ErrDenied) && !errors.Is(err, caclient.ErrDenied) {
		return
	}
	select {
	case <-time.After(refuseAfter - time.Since(began)%refuseAfter):
	case <-ctx.Done():
	}
}

// Ask finds out how a password is to be stretched, and has the CA ask the user's source about it, if there may be one. session is how
// long the login may last whatever the policy says, 0: as it says. What the directory or the CA refuses comes as ErrDenied
// or ErrLocked of its client; caclient.ErrSource and ErrUnavailable say that who must be asked is away. The password is read, never kept.
func Ask(ctx context.Context, dir *client.Client, ask AskCA, uid string, password []byte) (p keybundle.Params, session time.Duration, err error) {
	params, err := dir.LoginParams(ctx, uid)
	if err != nil {
		return p, 0, fmt.Errorf("asking how to prove the password of %s: %w", uid, err)
	}
	if !params.AskCA {
		return params.Params, 0, nil
	}
	a, err := ask(ctx, uid, password)
	if err != nil {
		return p, 0, fmt.Errorf("asking whether the password of %s is right: %w", uid, err)
	}
	return a.Params, a.Session(), nil // the keys may have been sealed anew
}

// Fetch proves the password to the directory and opens what it releases. The password is read, never kept; the keys in the credentials are
// the caller's to wipe. What the directory refuses comes as client.ErrDenied or client.ErrLocked; keybundle.ErrBusy says that too many
// others are at it.
func Fetch(ctx context.Context, dir *client.Client, g *keybundle.Gate, t *trust.Store, uid string, password []byte, params keybundle.Params) (c native.Credentials, err error) {
	proof, err := derive(ctx, g, uid, password, params)
	if err != nil {
		return c, err
	}
	defer proof.Wipe()
	return unseal(ctx, dir, t, uid, proof)
}

// derive makes of a password what the directory and the sealed keys want to see. It is the caller's to wipe.
func derive(ctx context.Context, g *keybundle.Gate, uid string, password []byte, params keybundle.Params) (keybundle.Proof, error) {
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
	if s := release.Successor; s != nil {
		// The certificate that the keys were sealed for is not believed: it only opens them, and may be revoked.
		keys, err := keybundle.Open(release.Sealed, seal, release.Certificate)
		if err != nil {
			return c, fmt.Errorf("opening the keys of %s: %w", uid, err)
		}
		defer keys.Control.Wipe()
		defer keys.Data.Wipe()
		return Succeed(now, t, uid, keys.Data, *s)
	}
	if c.Certificate, err = certificate(now, t, uid, release.Certificate); err != nil {
		return c, err
	}
	keys, err := keybundle.Open(release.Sealed, seal, c.Certificate.Raw)
	if err != nil {
		return native.Credentials{}, fmt.Errorf("opening the keys of %s: %w", uid, err)
	}
	return pair(c, keys)
}

// Succeed opens a user's newer certificate with their data key, which stays the caller's. The keys in the credentials are the
// caller's to wipe, too.
func Succeed(now time.Time, t *trust.Store, uid string, data secret.Key, s client.Successor) (c native.Credentials, err error) {
	if c.Certificate, err = certificate(now, t, uid, s.Certificate); err != nil {
		return c, err
	}
	control, err := keybundle.OpenControl(s.Sealed, data, c.Certificate.Raw)
	if err != nil {
		return native.Credentials{}, fmt.Errorf("opening the successor of %s: %w", uid, err)
	}
	return pair(c, keybundle.Private{Control: control, Data: secret.Copy(data.Bytes())})
}

// certificate is a user's, if it is one to believe.
func certificate(now time.Time, t *trust.Store, uid string, der []byte) (*twincert.Certificate, error) {
	c, err := t.Twin(now, der, twincert.User)
	if err != nil {
		return nil, err
	}
	if c.Name != uid {
		return nil, fmt.Errorf("asking for the keys of %s: the directory answered with those of %s", uid, c.Name)
	}
	return c, nil
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
