package api

import (
	"context"
	"net/http"

	"twinkey/directory/client"
	"twinkey/directory/internal/store"
	"twinkey/pkg/lockout"
	"twinkey/pkg/operator"
)

// Unlock is what the operator of this machine asks for: client.Unlock without what only the CA may say.
type Unlock struct {
	UID    string `json:"uid,omitempty"`
	Router string `json:"router,omitempty"`
}

func (s *Server) locks(ctx context.Context) (out []lockout.Lock, err error) {
	err = s.reg.Read(ctx, func(r *store.Reader) (err error) {
		out, err = r.Locks(s.reg.Now())
		return err
	})
	return out, err
}

// unlock answers the CA.
func (s *Server) unlock(r *request) (any, error) {
	var in client.Unlock
	if err := r.decode(client.MaxBody, &in); err != nil {
		return nil, err
	}
	return s.unlockFor(r.ctx(), r.who.URI, in)
}

func (s *Server) unlockFor(ctx context.Context, actor string, u client.Unlock) ([]lockout.Lock, error) {
	released, err := s.reg.Unlock(ctx, actor, u)
	if err != nil {
		return nil, err
	}
	for _, l := range released {
		s.log.Info("unlocked", "of", l.Subject.String(), "until", l.Until, "actor", actor, "for", u.Actor)
	}
	return released, nil
}

func (s *Server) adminLocks(w http.ResponseWriter, r *http.Request) {
	out, err := s.locks(r.Context())
	if err != nil {
		s.refuse(w, err)
		return
	}
	answer(w, out)
}

func (s *Server) adminUnlock(w http.ResponseWriter, hr *http.Request) {
	r := &request{w: w, http: hr}
	var in Unlock
	err := r.decode(client.MaxBody, &in)
	if err != nil {
		s.refuse(w, err)
		return
	}
	out, err := s.unlockFor(r.ctx(), operator.Of(r.ctx()), client.Unlock{UID: in.UID, Router: in.Router})
	if err != nil {
		s.refuse(w, err)
		return
	}
	answer(w, out)
}
