package store

import (
	"bytes"

	"twinkey/directory/client"
	"twinkey/pkg/keybundle"
)

// CheckReseal looks at all that can be said of r without the database. Its error is client.ErrInvalid.
func CheckReseal(r client.Reseal, least keybundle.Params) error {
	if err := r.Params.Check(); err != nil {
		return invalid("the new password: %w", err)
	}
	switch {
	case r.Params.Weaker(least):
		return invalid("the new password: %d passes over %d KiB protect it less than the %d over %d KiB that this directory asks for",
			r.Params.Time, r.Params.MemoryKiB, least.Time, least.MemoryKiB)
	case len(r.Verifier) != verifierLen():
		return invalid("the new password: verifier of %d bytes", len(r.Verifier))
	case len(r.Sealed) != keybundle.Len:
		return invalid("the keys under the new password: %d bytes, sealed ones have %d", len(r.Sealed), keybundle.Len)
	}
	return nil
}

// Reseal replaces what a user's password is checked against and the keys that are sealed under it. CheckReseal has
// passed r, and whoever asks has proved the old password. It fails with client.ErrConflict if the keys of the user
// are by now those of another certificate, with client.ErrInvalid if salt or verifier are the old ones.
func (w *Writer) Reseal(r client.Reseal) error {
	u, ok, err := w.User(r.UID)
	if err != nil {
		return err
	}
	b, found, err := w.Bundle(r.UID)
	if err != nil {
		return err
	}
	switch {
	case !ok || !found || b.Current() != r.ID:
		return conflict("user %s has no keys of certificate %s any more", r.UID, r.ID)
	case bytes.Equal(u.Params.Salt, r.Params.Salt) || bytes.Equal(u.Verifier, r.Verifier):
		return invalid("the new password: its salt is the old one's")
	}
	u.Params, u.Verifier = r.Params, r.Verifier
	// Sealed for the present certificate. The successor stays: the data key is the same, and routers that hold an older certificate go on from that.
	b.ID, b.Sealed = r.ID, r.Sealed
	if err := put(w.tx, Users, r.UID, u); err != nil {
		return err
	}
	return put(w.tx, Bundles, r.UID, b)
}
