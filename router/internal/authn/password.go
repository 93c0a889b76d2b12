package authn

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"twinkey/directory/client"
	"twinkey/pkg/keybundle"
	"twinkey/router/internal/trust"
)

// Errors of ChangePassword.
var (
	ErrSame      = errors.New("the new password is the old one")
	ErrUncertain = errors.New("whether the password was changed is not known")
)

// ChangePassword proves the old password as a login does, opens the sealed keys and has the directory keep them sealed
// under the new one. Both passwords are read, never kept. Besides what a login fails with there are keybundle.ErrWeak and
// ErrSame, before anybody is asked; client.ErrConflict: the user has got other keys meanwhile; and ErrUncertain: the
// directory fell silent over the change itself.
func ChangePassword(ctx context.Context, dir *client.Client, g *keybundle.Gate, t *trust.Store, uid string, old, chosen []byte) error {
	if err := keybundle.CheckPassword(uid, chosen); err != nil {
		return err
	}
	if bytes.Equal(old, chosen) {
		return ErrSame
	}
	// The password of a user of a source is not for the directory to change, which refuses that as it refuses a wrong one.
	known, err := dir.LoginParams(ctx, uid)
	if err != nil {
		return fmt.Errorf("asking how to prove the password of %s: %w", uid, err)
	}
	was, err := derive(ctx, g, uid, old, known.Params)
	if err != nil {
		return err
	}
	defer was.Wipe()
	c, err := unseal(ctx, dir, t, uid, was)
	if err != nil {
		return err
	}
	keys := keybundle.Private{Control: c.Control.Private, Data: c.Data.Private}
	defer keys.Control.Wipe()
	defer keys.Data.Wipe()
	params, err := keybundle.DefaultParams(rand.Reader)
	if err != nil {
		return err
	}
	is, err := g.Derive(ctx, chosen, params)
	if err != nil {
		return fmt.Errorf("deriving the new proof of %s: %w", uid, err)
	}
	defer is.Wipe()
	sealed, err := keybundle.Seal(rand.Reader, keys, is.Seal, c.Certificate.Raw)
	if err != nil {
		return err
	}
	err = dir.Reseal(ctx, client.Reseal{UID: uid, Auth: was.Auth.Bytes(), ID: c.Certificate.ID(), Params: params, Verifier: keybundle.Verifier(is.Auth.Bytes()), Sealed: sealed})
	switch {
	case errors.Is(err, client.ErrUnavailable):
		return fmt.Errorf("%w: %w", ErrUncertain, err)
	case err != nil:
		return fmt.Errorf("having the keys of %s kept under the new password: %w", uid, err)
	}
	return nil
}
