package access

import (
	"context"
	"errors"
	"fmt"

	"twinkey/directory/client"
	"twinkey/directory/internal/store"
	"twinkey/pkg/twincert"
)

// Successors answers which of the certificates that a router holds have been succeeded, and by what. Nothing is
// handed out unless that it was could be written down. What concerns a user is in the answer, not in the error.
func (g *Guard) Successors(ctx context.Context, c Caller, holdings []client.Holding) ([]client.Held, error) {
	if len(holdings) == 0 || len(holdings) > client.MaxHoldings {
		return nil, fmt.Errorf("%w: %d holdings, 1 to %d are taken", client.ErrInvalid, len(holdings), client.MaxHoldings)
	}
	for _, h := range holdings {
		if err := twincert.CheckName(h.UID); err != nil {
			return nil, fmt.Errorf("%w: uid: %w", client.ErrInvalid, err)
		}
	}
	// Mostly there is nothing to hand out, and what is only read costs the disk nothing.
	var out []client.Held
	found := false
	look := func(r *store.Reader) error {
		router, err := r.TrustedRouter(c.Router, g.Verify)
		if err != nil {
			return err
		}
		out = make([]client.Held, len(holdings))
		for i, h := range holdings {
			if out[i], err = g.succession(r, router, h); err != nil {
				return err
			}
			found = found || out[i].Successor != nil
		}
		return nil
	}
	if err := g.reg.Read(ctx, look); err != nil {
		return nil, err
	}
	if !found {
		return out, nil
	}
	err := g.reg.Write(ctx, c.URI, func(w *store.Writer) error {
		if err := look(&w.Reader); err != nil {
			return err
		}
		for _, h := range out {
			if h.Successor == nil {
				continue
			}
			b, _, err := w.Bundle(h.UID)
			if err != nil {
				return err
			}
			w.Audit(store.AuditRelease, h.UID, fmt.Sprintf("successor, certificate %s, to router %s, which holds the keys", b.Current(), c.Router))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// succession answers one holding.
func (g *Guard) succession(r *store.Reader, router *twincert.Certificate, h client.Holding) (client.Held, error) {
	none := client.Held{UID: h.UID, State: client.HoldingNone}
	u, ok, err := r.User(h.UID)
	if err != nil {
		return none, err
	}
	if !ok || u.Disabled || !twincert.InScope(router.Scope, h.UID, u.Group) {
		return none, nil
	}
	b, ok, err := r.Bundle(h.UID)
	if err != nil || !ok {
		return none, err
	}
	current, err := g.valid(r, b)
	if errors.Is(err, store.ErrDamaged) {
		return none, err
	}
	if err != nil {
		return none, nil //nolint:nilerr // the user has no certificate to go on with
	}
	held := none
	if b.Current() == h.ID {
		held.State = client.HoldingCurrent
		return held, nil
	}
	held.State = client.HoldingReplaced
	if b.Successor == nil {
		return held, nil
	}
	row, ok, err := r.Certificate(h.ID)
	if err != nil || !ok || row.Kind != client.KindTwin || row.Name != h.UID {
		return none, err // it never was theirs
	}
	of, err := twincert.Parse(row.DER)
	if err != nil {
		return none, fmt.Errorf("%w: certificate of user %s: %w", store.ErrDamaged, h.UID, err)
	}
	if of.Keys.Data != current.Keys.Data { // keys of before the last password
		return held, nil
	}
	held.State, held.Successor = client.HoldingSucceeded, &client.Successor{Certificate: current.Raw, Sealed: b.Successor.Sealed}
	return held, nil
}
