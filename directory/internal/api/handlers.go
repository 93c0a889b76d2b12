package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"twinkey/directory/client"
	"twinkey/directory/internal/access"
	"twinkey/directory/internal/store"
	"twinkey/proto/secret"
)

// eventTimeout is how long a watcher may take to read one event before it is cut.
const eventTimeout = 10 * time.Second

func (s *Server) apply(r *request) (any, error) {
	var c client.Change
	if err := r.decode(client.MaxChange, &c); err != nil {
		return nil, err
	}
	rev, err := s.reg.Apply(r.ctx(), r.who.URI, c)
	if err != nil {
		return nil, err
	}
	s.Changes.Add(1)
	s.log.Info("change-applied", "change", c.ChangeID, "for", c.Actor, "revision", rev, "certificates", len(c.Certificates), "users", len(c.Users),
		"bundles", len(c.Bundles), "successors", len(c.Successors), "groups", len(c.Groups), "routers", len(c.Routers), "disabled", len(c.Disable), "revocations", len(c.Revocations), "crl", c.CRL != nil)
	return client.AppliedBody{Applied: true, Revision: rev}, nil
}

func (s *Server) applied(r *request) (any, error) {
	rev, ok, err := s.reg.Applied(r.ctx(), r.http.PathValue("id"))
	return client.AppliedBody{Applied: ok, Revision: rev}, err
}

func (s *Server) sites(r *request) (any, error) {
	var out client.SitesBody
	err := s.reg.Read(r.ctx(), func(rd *store.Reader) (err error) {
		if out.Revision, err = rd.Revision(); err != nil {
			return err
		}
		out.Sites, err = rd.Sites()
		return err
	})
	return out, err
}

func (s *Server) announce(r *request) (any, error) {
	var in client.AnnounceBody
	if err := r.decode(client.MaxBody, &in); err != nil {
		return nil, err
	}
	if err := s.reg.Announce(r.ctx(), r.who.URI, r.who.Router, in.Endpoint, in.Prefixes, s.guard.Verify); err != nil {
		return nil, err
	}
	s.log.Info("site-announced", "router", r.who.Router, "endpoint", in.Endpoint, "prefixes", len(in.Prefixes))
	return nil, nil //nolint:nilnil // no answer, no error
}

func (s *Server) calls(r *request) (any, error) {
	var in client.CallsBody
	if err := r.decode(client.MaxBody, &in); err != nil {
		return nil, err
	}
	if !s.told.of(r.who, recordRate, recordBurst).AllowN(time.Now(), len(in.Records)) {
		return nil, fmt.Errorf("%w: more than %d records of calls a second", client.ErrTooMany, recordRate)
	}
	return nil, s.reg.RecordCalls(r.ctx(), r.who.URI, r.who.Router, in, s.guard.Verify)
}

func (s *Server) vouch(r *request) (any, error) {
	var in client.Vouch
	if err := r.decode(client.MaxBody, &in); err != nil {
		return nil, err
	}
	if err := s.guard.Vouch(r.ctx(), r.who, in); err != nil {
		return nil, err
	}
	s.log.Info("user-vouched-for", "uid", in.UID, "router", in.Router, "source", in.Source)
	return nil, nil //nolint:nilnil // no answer, no error
}

func (s *Server) refused(r *request) (any, error) {
	var in client.Refusal
	if err := r.decode(client.MaxBody, &in); err != nil {
		return nil, err
	}
	return nil, s.guard.Refused(r.ctx(), r.who, in)
}

func (s *Server) userCalls(r *request) (any, error) {
	var in client.UserCallsBody
	if err := r.decode(client.MaxBody, &in); err != nil {
		return nil, err
	}
	return s.reg.UserCalls(r.ctx(), r.who.URI, in.Source, in.After)
}

func (s *Server) crl(r *request) (any, error) {
	var der []byte
	err := s.reg.Read(r.ctx(), func(rd *store.Reader) error {
		der = rd.CRL()
		return nil
	})
	if err == nil && len(der) == 0 {
		err = fmt.Errorf("%w: the CA has sent no CRL yet", client.ErrNotFound)
	}
	return der, err
}

func (s *Server) revocations(r *request) (any, error) {
	var out []client.Revocation
	err := s.reg.Read(r.ctx(), func(rd *store.Reader) (err error) {
		out, err = rd.Revocations()
		return err
	})
	return out, err
}

func (s *Server) params(r *request) (any, error) {
	var in client.ParamsBody
	if err := r.decode(client.MaxBody, &in); err != nil {
		return nil, err
	}
	return s.guard.LoginParams(r.ctx(), r.who, in.UID)
}

func (s *Server) release(r *request) (any, error) {
	var in client.ReleaseBody
	if err := r.decode(client.MaxBody, &in); err != nil {
		return nil, err
	}
	auth := secret.New(in.Auth)
	defer auth.Wipe()
	out, err := s.guard.Release(r.ctx(), r.who, in.UID, auth)
	if err != nil {
		return nil, err
	}
	s.Released.Add(1)
	s.log.Info("keys-released", "uid", in.UID, "router", r.who.Router)
	return out, nil
}

func (s *Server) reseal(r *request) (any, error) {
	var in client.Reseal
	if err := r.decode(client.MaxBody, &in); err != nil {
		return nil, err
	}
	auth := secret.New(in.Auth)
	defer auth.Wipe()
	if err := s.guard.Reseal(r.ctx(), r.who, in, auth); err != nil {
		return nil, err
	}
	s.log.Info("password-changed", "uid", in.UID, "router", r.who.Router)
	return nil, nil //nolint:nilnil // no answer, no error
}

func (s *Server) successors(r *request) (any, error) {
	var in client.HoldingsBody
	if err := r.decode(client.MaxBody, &in); err != nil {
		return nil, err
	}
	out, err := s.guard.Successors(r.ctx(), r.who, in.Holdings)
	if err != nil {
		return nil, err
	}
	for _, h := range out {
		if h.Successor != nil {
			s.log.Info("successor-released", "uid", h.UID, "router", r.who.Router)
		}
	}
	return out, nil
}

func (s *Server) own(r *request) (any, error) {
	var in client.OwnLogin
	if err := r.decode(client.MaxBody, &in); err != nil {
		return nil, err
	}
	if err := s.guard.LoginOwn(r.ctx(), r.who, in); err != nil {
		return nil, err
	}
	s.log.Info("login-by-own-keys", "uid", in.UID, "router", r.who.Router)
	return nil, nil //nolint:nilnil // no answer, no error
}

// watch streams until the watcher goes, may no longer watch, or does not read.
func (s *Server) watch(r *request) (any, error) {
	since, err := strconv.ParseUint(r.http.URL.Query().Get("since"), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("%w: since: %w", client.ErrInvalid, err)
	}
	ctl := http.NewResponseController(r.w)
	lines := json.NewEncoder(r.w)
	admit := func(ctx context.Context) (func(client.Event) bool, error) {
		if err := s.guard.Admit(ctx, r.who, access.Read); err != nil {
			return nil, err
		}
		return s.guard.Visible(ctx, r.who)
	}
	began := false
	for e, err := range s.hub.Stream(r.ctx(), since, admit) {
		if err == nil {
			if !began {
				r.w.Header().Set("Content-Type", "application/x-ndjson")
				s.log.Debug("watch-began", "caller", r.who.URI, "since", since)
				began = true
			}
			err = send(ctl, lines, e)
		}
		if err != nil && !began {
			return nil, err
		}
		if err != nil {
			s.watchEnded(r, err)
			break
		}
	}
	return nil, errStreamed
}

func send(ctl *http.ResponseController, lines *json.Encoder, e client.Event) error {
	if err := ctl.SetWriteDeadline(time.Now().Add(eventTimeout)); err != nil {
		return err
	}
	if err := lines.Encode(e); err != nil {
		return err
	}
	if e.More {
		return nil
	}
	return ctl.Flush()
}

// watchEnded says why, loudly if the watcher was thrown out.
func (s *Server) watchEnded(r *request, err error) {
	if errors.Is(err, client.ErrDenied) {
		s.Denied.Add(1)
		s.log.Warn("watch-cut", "caller", r.who.URI, "remote", r.http.RemoteAddr, "error", err)
		return
	}
	s.log.Debug("watch-ended", "caller", r.who.URI, "error", err)
}
