package api

import (
	"context"
	"fmt"
	"net/http"

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
	Locks     []Lock `json:"locks"`
	Directory string `json:"directory,omitempty"` // why the directory could not be asked, whose locks are not among these then
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

func (s *Server) locks(ctx context.Context) (Locks, error) {
	out := Locks{Locks: []Lock{}}
	var own []lockout.Lock
	err := s.cfg.CA.Ledger.View(func(tx *ledger.Tx) (err error) {
		own, err = tx.Locks(s.cfg.Now())
		return err
	})
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

// unlock releases locks here and at the directory, which keeps the record of both. A directory that cannot be asked does not
// keep locked who is locked here alone.
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
	var own []lockout.Lock
	err = s.cfg.CA.Ledger.Update(func(tx *ledger.Tx) (err error) {
		own, err = tx.Unlock(in.UID, in.Router, s.cfg.Now())
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, l := range own {
		s.cfg.Log.Info("logins unlocked", "of", l.Subject.String(), "until", l.Until, "actor", actor(r))
	}
	out := Locks{Locks: []Lock{}}
	out.add(AtCA, own)
	if d := s.cfg.CA.Directory; d != nil {
		theirs, err := d.Unlock(r.Context(), dirclient.Unlock{UID: in.UID, Router: in.Router, Actor: actor(r), AtCA: own[:min(len(own), dirclient.MaxLocks)]})
		if err != nil {
			s.cfg.Log.Warn("locks at the directory not released", "uid", in.UID, "router", in.Router, "actor", actor(r), "error", err)
			out.Directory = err.Error()
		}
		out.add(AtDirectory, theirs)
	}
	return out, nil
}
