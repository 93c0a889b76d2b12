package issue

import (
	"context"
	"fmt"
	"time"

	"twinkey/ca/internal/ledger"
	"twinkey/directory/client"
	"twinkey/pkg/twincert"
)

const (
	// MaxGrace bounds how long certificates over a retired control key go on.
	MaxGrace = 30 * 24 * time.Hour
	// maxRetired bounds how many control keys of a group may be in their grace.
	maxRetired = 8
	// carryOver is how long routers have, once everybody has a new certificate, to place the calls that are up anew, before
	// the old ones are revoked, whatever the grace. They do it within a second or two.
	carryOver = 10 * time.Second
)

// AddGroup makes a tunnel group that has no users yet.
func (d *Desk) AddGroup(ctx context.Context, actor, name string) error {
	if err := twincert.CheckName(name); err != nil {
		return fmt.Errorf("group %q: %w: %w", name, ErrInvalid, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	ctx, cancel, err := d.begin(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	err = d.View(func(tx *ledger.Tx) error {
		_, ok, err := tx.Group(name)
		if err == nil && ok {
			err = fmt.Errorf("group %s %w", name, ErrExists)
		}
		return err
	})
	if err != nil {
		return err
	}
	g, err := d.newGroup(name)
	if err != nil {
		return err
	}
	return d.commit(ctx, groupIntent(actor, "adding group "+name, g))
}

func groupIntent(actor, what string, g ledger.Group) *ledger.Intent {
	in := &ledger.Intent{Kind: ledger.KindIssue, What: what, Change: &client.Change{Actor: actor}}
	in.Effects.Groups = []ledger.Group{g}
	in.Change.Groups = []client.GroupRecord{{Name: g.Name, Control: g.Control}}
	return in
}

// RotateGroup gives a group another control key. Tend does the rest: it gives the users certificates over it, and revokes those over
// the old one when the grace is over.
func (d *Desk) RotateGroup(ctx context.Context, actor, name string, grace time.Duration) error {
	if grace < 0 || grace > MaxGrace {
		return fmt.Errorf("%w: a grace of %s is not within 0 and %s", ErrInvalid, grace, MaxGrace)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	ctx, cancel, err := d.begin(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	var old ledger.Group
	err = d.View(func(tx *ledger.Tx) (err error) {
		var ok bool
		if old, ok, err = tx.Group(name); err == nil && !ok {
			err = fmt.Errorf("group %s %w", name, ErrUnknown)
		}
		return err
	})
	if err != nil {
		return err
	}
	if len(old.Retired) >= maxRetired {
		return fmt.Errorf("%w: %d older control keys of group %s are in their grace, the first until %s", ErrInvalid, len(old.Retired), name, RevokeAt(old.Retired[0]).Format(time.RFC3339))
	}
	g, err := d.newGroup(name)
	if err != nil {
		return err
	}
	// To the moment: a second is not to be missing from the grace.
	g.Retired = append(old.Retired, ledger.RetiredKey{Control: old.Control, By: actor, Since: d.cfg.Now().UTC(), Grace: grace})
	return d.commit(ctx, groupIntent(actor, "rotating group "+name, g))
}

// RevokeAt is when certificates over a retired control key are revoked; not before, if users are still to get others.
func RevokeAt(r ledger.RetiredKey) time.Time {
	at := r.Since.Add(r.Grace)
	if over := r.Handed.Add(carryOver); over.After(at) {
		return over
	}
	return at
}

// GroupState is a tunnel group as an operator wants to see it.
type GroupState struct {
	ledger.Group
	Members int // users who are not revoked
	Behind  int // of them, those whose present certificate lives and is over a retired control key
	Old     int // living certificates over retired control keys, of whomever
}

// Groups lists all tunnel groups, by name.
func (d *Desk) Groups() ([]GroupState, error) {
	out := []GroupState{}
	now := d.now()
	err := d.View(func(tx *ledger.Tx) error {
		groups, err := tx.Groups()
		if err != nil {
			return err
		}
		users, err := tx.Users()
		if err != nil {
			return err
		}
		certs, err := tx.Certs()
		if err != nil {
			return err
		}
		present, members := map[string]bool{}, map[string]int{}
		for _, u := range users {
			if u.Active() {
				members[u.Group]++
				present[u.Serial] = true
			}
		}
		of := map[string]int{} // groups by retired key
		for i, g := range groups {
			out = append(out, GroupState{Group: g, Members: members[g.Name]})
			for _, r := range g.Retired {
				of[string(r.Control)] = i
			}
		}
		for _, c := range certs {
			i, ok := of[string(controlOf(c))]
			if c.Role != "user" || !ok || !c.Revoked.IsZero() || !now.Before(c.NotAfter) {
				continue
			}
			out[i].Old++
			if present[c.Serial] {
				out[i].Behind++
			}
		}
		return nil
	})
	return out, err
}
