package station

import (
	"context"
	"errors"
	"time"

	"twinkey/router/internal/admin"
	"twinkey/router/internal/appliance"
)

// errNoRouter says that a request is for a router and this is none.
var errNoRouter = &admin.Error{Kind: admin.KindConflict, What: "this is a client, not a router", Hint: "see: twinkey-router client --help"}

// Status implements admin.Router.
func (s *Station) Status(ctx context.Context) (admin.Status, error) {
	s.mu.Lock()
	adm, r, problem := s.adm, s.run, s.problem
	s.mu.Unlock()
	if r == nil {
		return admin.Status{}, &admin.Error{Kind: admin.KindUnavailable, What: "the client is logging in", Hint: "ask again in a moment"}
	}
	es, err := r.eng.Status(ctx)
	if err != nil {
		return admin.Status{}, err
	}
	now := time.Now()
	st := admin.Status{
		Name: s.o.User, Version: s.o.Version, Since: s.since,
		Device:    admin.Device{Name: s.dev.Name(), Kind: s.dev.Kind(), MTU: appliance.MTU(s.set)},
		Directory: admin.DirectoryOf("by way of "+adm.Router, r.trust.Standing(now)),
		Self:      &admin.Self{User: s.o.User, Router: adm.Router, At: s.home.Router, Address: adm.Address, Until: adm.Until},
	}
	if problem != nil {
		st.Directory.Problem = problem.Error()
	}
	own := r.certificate()
	c := admin.Certificate{Kind: "twin", Subject: "user " + own.Name, Serial: own.ID().Serial, NotAfter: own.NotAfter}
	if now.After(c.NotAfter) {
		c.Problem = "expired"
	}
	st.Certificates = []admin.Certificate{c}
	appliance.Fill(&st, es)
	return st, nil
}

// Portal implements admin.Router.
func (s *Station) Portal(context.Context) (admin.Portal, error) { return admin.Portal{}, errNoRouter }

// Login implements admin.Router.
func (s *Station) Login(context.Context, admin.Login) (admin.Call, error) {
	return admin.Call{}, errNoRouter
}

// Passwd implements admin.Router. A password is changed at a router, which the directory knows.
func (s *Station) Passwd(context.Context, admin.Passwd) error { return errNoRouter }

// Reload implements admin.Router.
func (s *Station) Reload(context.Context) error { return errNoRouter }

// Hangup implements admin.Router: without a number it logs out.
func (s *Station) Hangup(ctx context.Context, h admin.Hangup) (admin.Ended, error) {
	s.mu.Lock()
	r := s.run
	s.mu.Unlock()
	if h.ID == 0 {
		s.stop(errLogout)
		return admin.Ended{Clients: 1}, nil
	}
	if r == nil {
		return admin.Ended{}, errors.New("the client is logging in")
	}
	ended, err := r.eng.Hangup(ctx, h.ID, "")
	if err == nil && len(ended) == 0 {
		err = &admin.Error{Kind: admin.KindNotFound, What: "no such call", Hint: "`twinkey-router client status` lists them"}
	}
	return admin.Ended{Calls: ended}, err
}

var _ admin.Router = (*Station)(nil)
