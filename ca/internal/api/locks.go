package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"twinkey/ca/internal/issue"
	"twinkey/ca/internal/ledger"
	dirclient "twinkey/directory/client"
	"twinkey/pkg/lockout"
	"twinkey/pkg/twincert"
)

// The places where failed logins are counted.
const (
	AtCA        = "ca"        // those of users of a source
	AtDirectory = "directory" // everybody's
)

// Lock is a lock after failed logins that holds, or did until it was released.
type Lock struct {
	lockout.Lock
	At string `json:"at"` // one of the two above
}

// Locks is what is locked, or what an Unlock has released.
type Locks struct {
	Locks []Lock `json:"locks"`
	// Directory is why the directory could not be asked. Its locks are not among these then, and what is not among these is not released.
	Directory string `json:"directory,omitempty"`
}

// Unlock asks for the release of locks: all that have the user's name, that on all logins at a router, or both.
type Unlock struct {
	UID    string `json:"uid,omitempty"`
	Router string `json:"router,omitempty"`
}

func (l *Locks) add(at string, locks []lockout.Lock) {
	for _, k := range locks {
		l.Locks = append(l.Locks, Lock{k, at})
	}
}

// ownLocks are those that the CA keeps.
func (s *Server) ownLocks() (own []lockout.Lock, err error) {
	err = s.cfg.CA.Ledger.View(func(tx *ledger.Tx) (err error) {
		own, err = tx.Locks(s.cfg.Now())
		return err
	})
	return own, err
}

func (s *Server) locks(ctx context.Context) (Locks, error) {
	out := Locks{Locks: []Lock{}}
	own, err := s.ownLocks()
	if err != nil {
		return out, err
	}
	out.add(AtCA, own)
	if d := s.cfg.CA.Directory; d != nil {
		theirs, err := d.Locks(ctx)
		if err != nil {
			out.Directory = err.Error()
		}
		out.add(AtDirectory, theirs)
	}
	return out, nil
}

// unlock releases locks here and at the directory, which keeps the record of both.
func (s *Server) unlock(r *http.Request) (any, error) {
	in, err := read[Unlock](r)
	if err != nil {
		return nil, err
	}
	if in.UID == "" && in.Router == "" {
		return nil, fmt.Errorf("%w: name a user, a router, or both", issue.ErrInvalid)
	}
	for _, name := range []string{in.UID, in.Router} {
		if err := twincert.CheckName(name); name != "" && err != nil {
			return nil, fmt.Errorf("%w: %q: %w", issue.ErrInvalid, name, err)
		}
	}
	note := func(context.Context, dirclient.Unlock) ([]lockout.Lock, error) { return nil, issue.ErrNoDirectory }
	if d := s.cfg.CA.Directory; d != nil {
		note = d.Unlock
	}
	return s.release(r.Context(), dirclient.Unlock{UID: in.UID, Router: in.Router, Actor: actor(r)}, note)
}

// release has the directory note what is released here, and release its own, and only then does it: a release without an audit record would be worse
// than none, since nobody can log in without the directory anyway. note takes so many at once.
func (s *Server) release(ctx context.Context, u dirclient.Unlock, note func(context.Context, dirclient.Unlock) ([]lockout.Lock, error)) (Locks, error) {
	out := Locks{Locks: []Lock{}}
	own, err := s.ownLocks()
	if err != nil {
		return out, err
	}
	own = slices.DeleteFunc(own, func(l lockout.Lock) bool { return !l.Concerns(u.UID, u.Router) })
	for {
		u.AtCA = own[:min(len(own), dirclient.MaxLocks)]
		own = own[len(u.AtCA):]
		theirs, err := note(ctx, u)
		if err != nil {
			s.cfg.Log.Warn("locks not released, since the directory does not note it", "uid", u.UID, "router", u.Router, "actor", u.Actor, "error", err)
			out.Directory = err.Error()
			return out, nil
		}
		out.add(AtDirectory, theirs)
		var released []lockout.Lock
		err = s.cfg.CA.Ledger.Update(func(tx *ledger.Tx) (err error) {
			released, err = tx.Unlock(u.AtCA, s.cfg.Now())
			return err
		})
		if err != nil {
			return out, err
		}
		for _, l := range released {
			s.cfg.Log.Info("logins unlocked", "of", l.Subject.String(), "until", l.Until, "actor", u.Actor)
		}
		out.add(AtCA, released)
		if len(own) == 0 {
			return out, nil
		}
	}
}
