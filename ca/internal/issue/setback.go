package issue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"twinkey/ca/internal/ledger"
)

// Compare asks the directory whether it knows the last change that it acknowledged. One that does not was
// restored from an older copy, or made anew: the ledger notes it, until Accept. The directory's revision would
// not tell, since a restored one goes on counting from a higher number.
func (d *Desk) Compare(ctx context.Context) error {
	if d.cfg.Directory == nil {
		return nil
	}
	var told ledger.Told
	var noticed ledger.Setback
	err := d.cfg.Ledger.View(func(tx *ledger.Tx) (err error) {
		if told, err = tx.Told(); err == nil {
			noticed, err = tx.Setback()
		}
		return err
	})
	if err != nil || told.ChangeID == "" || told.ChangeID == noticed.Told.ChangeID {
		return err
	}
	known, err := d.cfg.Directory.Has(ctx, told.ChangeID)
	if err != nil || known {
		return err
	}
	s := ledger.Setback{Noticed: d.now(), Told: told}
	if err := d.cfg.Ledger.Update(func(tx *ledger.Tx) error { return tx.SetSetback(s) }); err != nil {
		return fmt.Errorf("noting that the directory was restored: %w", err)
	}
	d.cfg.Log.Warn("the directory was restored from an older copy", "unknown", told.What, "acknowledged", told.Time)
	return nil
}

// Setback says what the directory has forgotten, in words; nothing if it knows all.
func (d *Desk) Setback() (string, error) {
	var s ledger.Setback
	err := d.cfg.Ledger.View(func(tx *ledger.Tx) (err error) {
		s, err = tx.Setback()
		return err
	})
	if err != nil || s.Told.ChangeID == "" {
		return "", err
	}
	return fmt.Sprintf("the directory was restored from an older copy, noticed at %s: it does not know %q of %s, which it had acknowledged, and perhaps more from before; renew the users and enrol anew the routers that it lacks, then: twinkey-ca directory accept-restore",
		s.Noticed.UTC().Format(time.RFC3339), s.Told.What, s.Told.Time.UTC().Format(time.RFC3339)), nil
}

// Accept forgets the setback: whatever the restored directory lacked has been mended. It fails with ErrUnknown if there is none.
func (d *Desk) Accept() error {
	return d.cfg.Ledger.Update(func(tx *ledger.Tx) error {
		s, err := tx.Setback()
		if err != nil {
			return err
		}
		if s.Told.ChangeID == "" {
			return fmt.Errorf("a restored directory %w", ErrUnknown)
		}
		told, err := tx.Told()
		if err == nil && told.ChangeID == s.Told.ChangeID { // or it would be missed again
			err = tx.SetTold(ledger.Told{})
		}
		return errors.Join(err, tx.SetSetback(ledger.Setback{}))
	})
}

// told notes that the directory has acknowledged in.
func (d *Desk) told(tx *ledger.Tx, in *ledger.Intent) error {
	if in.Change == nil || d.cfg.Directory == nil {
		return nil
	}
	if in.Change.Sources != nil {
		if err := tx.SetToldSources(*in.Change.Sources); err != nil {
			return err
		}
	}
	return tx.SetTold(ledger.Told{ChangeID: in.Change.ChangeID, What: in.What, Time: d.now()})
}
