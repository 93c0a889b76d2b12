package api

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"time"

	"twinkey/ca/internal/issue"
)

func (s *Server) groups() ([]Group, error) {
	all, err := s.cfg.CA.Desk.Groups()
	out := make([]Group, 0, len(all))
	for _, g := range all {
		sum := sha256.Sum256(g.Control)
		v := Group{Name: g.Name, Members: g.Members, Fingerprint: hex.EncodeToString(sum[:]), Since: g.Created, Left: g.Behind, Old: g.Old}
		for _, r := range g.Retired {
			v.Rotating = v.Rotating || r.Handed.IsZero()
			if at := issue.RevokeAt(r); v.RevokeAt.IsZero() || at.Before(v.RevokeAt) {
				v.RevokeAt = at
			}
		}
		out = append(out, v)
	}
	return out, err
}

func (s *Server) group(name string) (Group, error) {
	all, err := s.groups()
	if err != nil {
		return Group{}, err
	}
	for _, g := range all {
		if g.Name == name {
			return g, nil
		}
	}
	return Group{}, fmt.Errorf("group %s %w", name, issue.ErrUnknown)
}

func (s *Server) addGroup(r *http.Request) (any, error) {
	in, err := read[NewGroup](r)
	if err != nil {
		return nil, err
	}
	if err := s.cfg.CA.Desk.AddGroup(r.Context(), actor(r), in.Name); err != nil {
		return nil, err
	}
	return s.group(in.Name)
}

// rotateGroup makes the new key; that the users get certificates over it is seen to at once, and asked for by GET.
func (s *Server) rotateGroup(r *http.Request) (any, error) {
	in, err := read[Rotate](r)
	if err != nil {
		return nil, err
	}
	grace, err := time.ParseDuration(in.Grace)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", issue.ErrInvalid, err)
	}
	name := r.PathValue("name")
	if err := s.cfg.CA.Desk.RotateGroup(r.Context(), actor(r), name, grace); err != nil {
		return nil, err
	}
	select {
	case s.kick <- struct{}{}:
	default:
	}
	return s.group(name)
}

func (s *Server) certs(r *http.Request) (any, error) {
	return s.certStates(r.URL.Query().Get("role"), r.URL.Query().Get("name"))
}

func (s *Server) certStates(role, name string) ([]CertState, error) {
	all, err := s.cfg.CA.Desk.Certs(role, name)
	out, now := make([]CertState, 0, len(all)), s.cfg.Now()
	for _, c := range all {
		out = append(out, CertState{Serial: c.Serial, Kind: c.Kind, Role: c.Role, Name: c.Name, State: state(c.Revoked.IsZero(), c.NotAfter, now),
			Current: c.Current, NotAfter: c.NotAfter, Reason: c.Reason})
	}
	return out, err
}
