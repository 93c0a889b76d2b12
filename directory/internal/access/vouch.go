package access

import (
	"context"
	"fmt"
	"sync"
	"time"

	"twinkey/directory/client"
	"twinkey/directory/internal/store"
	"twinkey/pkg/twincert"
)

// maxVouches is how many may stand at a time: more logins in a minute than any company has.
const maxVouches = 1 << 16

// vouches are the CA's words that stand. The zero value is empty.
type vouches struct {
	mu sync.Mutex
	by map[vouched]vouch
}

// vouched is for whom, and where.
type vouched struct{ uid, router string }

type vouch struct {
	id twincert.ID
	at time.Time
}

// fresh says whether a vouch still holds. A clock that went back ends it.
func (v vouch) fresh(now time.Time) bool {
	age := now.Sub(v.at)
	return age >= 0 && age <= client.VouchLife
}

// add keeps a vouch; false: there are too many.
func (v *vouches) add(k vouched, id twincert.ID, now time.Time) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.by == nil {
		v.by = make(map[vouched]vouch)
	}
	if _, known := v.by[k]; !known && len(v.by) >= maxVouches {
		for k, old := range v.by {
			if !old.fresh(now) {
				delete(v.by, k)
			}
		}
		if len(v.by) >= maxVouches {
			return false
		}
	}
	v.by[k] = vouch{id, now}
	return true
}

// stands says whether the CA has just vouched for uid at router, and for the keys of this certificate.
func (v *vouches) stands(uid, router string, id twincert.ID, now time.Time) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	got, ok := v.by[vouched{uid, router}]
	return ok && got.id == id && got.fresh(now)
}

// Vouch takes the CA's word for a user of a source at a router. It fails with client.ErrConflict if the register does not
// have the user, the certificate and the router as the CA says: then one of both was restored from an older copy.
func (g *Guard) Vouch(ctx context.Context, c Caller, v client.Vouch) error {
	conflict := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", client.ErrConflict, fmt.Sprintf(format, args...))
	}
	for what, name := range map[string]string{"uid": v.UID, "router": v.Router, "source": v.Source} {
		if err := twincert.CheckName(name); err != nil {
			return fmt.Errorf("%w: %s: %w", client.ErrInvalid, what, err)
		}
	}
	err := g.reg.Write(ctx, c.URI, func(w *store.Writer) error {
		u, ok, err := w.User(v.UID)
		if err != nil {
			return err
		}
		b, sealed, err := w.Bundle(v.UID)
		if err != nil {
			return err
		}
		_, known, err := w.Router(v.Router)
		switch {
		case err != nil:
			return err
		case !ok || u.Disabled || u.Source != v.Source:
			return conflict("user %s of source %s is not known here, or disabled", v.UID, v.Source)
		case !sealed || b.Current() != v.ID:
			return conflict("the keys of user %s here are not those of certificate %s", v.UID, v.ID)
		case !known:
			return conflict("router %s is not known here", v.Router)
		}
		w.Audit(store.AuditVouch, v.UID, fmt.Sprintf("source %s has accepted the password at router %s", v.Source, v.Router))
		return nil
	})
	if err == nil && !g.vouches.add(vouched{v.UID, v.Router}, v.ID, g.reg.Now()) {
		err = fmt.Errorf("%w: %d users are vouched for already", client.ErrTooMany, maxVouches)
	}
	return err
}

// Refused notes a login that the CA has refused, as those are noted that are refused here.
func (g *Guard) Refused(ctx context.Context, c Caller, r client.Refusal) error {
	for what, name := range map[string]string{"uid": r.UID, "router": r.Router} {
		if err := twincert.CheckName(name); err != nil {
			return fmt.Errorf("%w: %s: %w", client.ErrInvalid, what, err)
		}
	}
	return g.reg.Write(ctx, c.URI, func(w *store.Writer) error {
		w.Audit(store.AuditDenied, r.UID, fmt.Sprintf("asked by router %s: %s", r.Router, client.CutReason(r.Cause)))
		return nil
	})
}
