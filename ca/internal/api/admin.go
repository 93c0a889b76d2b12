package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"twinkey/ca/internal/home"
	"twinkey/ca/internal/issue"
	"twinkey/ca/internal/ledger"
	"twinkey/pkg/operator"
	"twinkey/proto/secret"
)

const (
	maxAdminBody   = 64 << 10
	maxReason      = 200
	expiringWithin = 14 * 24 * time.Hour
	healthTimeout  = 2 * time.Second
)

func actor(r *http.Request) string { return operator.Of(r.Context()) }

// admin answers the operator.
func (s *Server) admin() http.Handler {
	mux := http.NewServeMux()
	for pattern, f := range map[string]func(*http.Request) (any, error){
		"GET /v1/status":                 func(r *http.Request) (any, error) { return s.status(r.Context()) },
		"GET /v1/users":                  func(*http.Request) (any, error) { return s.users() },
		"GET /v1/users/{name}":           s.user,
		"POST /v1/users":                 s.addUser,
		"POST /v1/users/{name}/revoke":   s.revoker(s.revokeUser),
		"POST /v1/users/{name}/allow":    s.allowUser,
		"POST /v1/users/{name}/renew":    s.renewSameKeys,
		"GET /v1/locks":                  func(r *http.Request) (any, error) { return s.locks(r.Context()) },
		"POST /v1/unlock":                s.unlock,
		"GET /v1/groups":                 func(*http.Request) (any, error) { return s.groups() },
		"GET /v1/groups/{name}":          func(r *http.Request) (any, error) { return s.group(r.PathValue("name")) },
		"POST /v1/groups":                s.addGroup,
		"POST /v1/groups/{name}/rotate":  s.rotateGroup,
		"GET /v1/certs":                  s.certs,
		"GET /v1/routers":                func(*http.Request) (any, error) { return s.routers() },
		"GET /v1/routers/{name}":         s.router,
		"POST /v1/routers/{name}/revoke": s.revoker(s.cfg.CA.Desk.RevokeRouter),
		"GET /v1/tokens":                 func(*http.Request) (any, error) { return s.tokens() },
		"POST /v1/tokens":                s.newToken,
		"POST /v1/sign-tokens":           s.newSignToken,
		"GET /v1/certs/{serial}":         s.cert,
		"GET /v1/crl":                    func(*http.Request) (any, error) { return s.crl() },
		"POST /v1/crl":                   s.newCRL,
		"POST /v1/directory/accept":      func(*http.Request) (any, error) { return struct{}{}, s.cfg.CA.Desk.Accept() },
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			v, err := f(r)
			if err != nil {
				code, status := codeOf(err)
				s.cfg.Log.Warn("command refused", "path", r.URL.Path, "actor", actor(r), "code", code, "error", err)
				writeError(w, status, code, err.Error(), 0)
				return
			}
			writeJSON(w, http.StatusOK, v)
		})
	}
	return mux
}

func read[T any](r *http.Request) (v T, err error) {
	b, err := io.ReadAll(io.LimitReader(r.Body, maxAdminBody+1))
	if err != nil {
		return v, fmt.Errorf("%w: %w", errBody, err)
	}
	defer clear(b) // it may hold a sealing key
	if len(b) > maxAdminBody {
		return v, fmt.Errorf("%w: too long", errBody)
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return v, fmt.Errorf("%w: %w", errBody, err)
	}
	return v, nil
}

func (s *Server) addUser(r *http.Request) (any, error) {
	in, err := read[AddUser](r)
	if err != nil {
		return nil, err
	}
	q := issue.UserRequest{UID: in.UID, Group: in.Group, Params: in.Params, Verifier: in.Verifier, Seal: secret.New(in.Seal)}
	defer q.Seal.Wipe()
	do := s.cfg.CA.Desk.AddUser
	if in.Renew {
		do = s.cfg.CA.Desk.RenewUser
	}
	if _, err := do(r.Context(), actor(r), q); err != nil {
		return nil, err
	}
	return s.userNamed(in.UID)
}

func (s *Server) revoker(do func(ctx context.Context, actor, name, reason string) (issue.Revoked, error)) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		in, err := read[Reason](r)
		if err != nil {
			return nil, err
		}
		if len(in.Reason) > maxReason {
			return nil, fmt.Errorf("%w: the reason is longer than %d bytes", issue.ErrInvalid, maxReason)
		}
		done, err := do(r.Context(), actor(r), r.PathValue("name"), in.Reason)
		if err != nil {
			return nil, err
		}
		out := Revoked{Certificates: done.Certificates, Told: done.Told}
		if done.Err != nil {
			out.Pending = done.Err.Error()
		}
		return out, nil
	}
}

func (s *Server) revokeUser(ctx context.Context, actor, uid, reason string) (issue.Revoked, error) {
	r, err := s.cfg.CA.Desk.RevokeUser(ctx, actor, uid, reason)
	if err == nil {
		s.door.Gone(uid)
	}
	return r, err
}

func (s *Server) allowUser(r *http.Request) (any, error) {
	if err := s.cfg.CA.Desk.AllowUser(actor(r), r.PathValue("name")); err != nil {
		return nil, err
	}
	return s.userNamed(r.PathValue("name"))
}

func (s *Server) newToken(r *http.Request) (any, error) {
	in, err := read[NewToken](r)
	if err != nil {
		return nil, err
	}
	ttl, err := time.ParseDuration(in.TTL)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", issue.ErrInvalid, err)
	}
	sec, t, err := s.cfg.CA.Desk.Token(issue.TokenRequest{Role: in.Role, Name: in.Name, Group: in.Group, Prefixes: in.Prefixes, Scope: in.Scope, Hosts: in.Hosts, TTL: ttl, Overlap: in.Overlap})
	if err != nil {
		return nil, err
	}
	s.cfg.Log.Info("token made", "actor", actor(r), "role", t.Role, "name", t.Name, "id", t.ID, "expires", t.Expires)
	out := tokenView(t, s.cfg.Now())
	out.Secret, out.CA, out.Fingerprint = sec, s.cfg.CA.Config.URL, home.Fingerprint(s.cfg.CA.Authority.Root())
	return out, nil
}

func (s *Server) newSignToken(r *http.Request) (any, error) {
	in, err := read[NewSignToken](r)
	if err != nil {
		return nil, err
	}
	ttl, err := time.ParseDuration(in.TTL)
	if err != nil || ttl <= 0 || ttl > time.Hour {
		return nil, fmt.Errorf("%w: such a token lives longer than 0 and at most 1h", issue.ErrInvalid)
	}
	if in.Name == "" {
		return nil, fmt.Errorf("%w: a name is needed", issue.ErrInvalid)
	}
	t, err := s.cfg.CA.Authority.SignToken(in.Name, in.SANs, ttl)
	return SignToken{t}, err
}

func (s *Server) newCRL(r *http.Request) (any, error) {
	if err := s.cfg.CA.Desk.PublishCRL(r.Context()); err != nil {
		return nil, err
	}
	return s.crl()
}

func (s *Server) crl() (CRLFile, error) {
	c, err := s.cfg.CA.Authority.CRL()
	return CRLFile{CRL{c.Number, c.Next}, c.DER}, err
}

func (s *Server) cert(r *http.Request) (any, error) {
	c, err := s.cfg.CA.Desk.Certificate(r.PathValue("serial"))
	return Cert{Serial: c.Serial, Kind: c.Kind, Role: c.Role, Name: c.Name, DER: c.DER, Revoked: c.Revoked, Reason: c.Reason}, err
}

func (s *Server) users() ([]User, error) {
	out := []User{}
	now := s.cfg.Now()
	err := s.cfg.CA.Desk.View(func(tx *ledger.Tx) error {
		all, err := tx.Users()
		for _, u := range all {
			v := User{UID: u.UID, Group: u.Group, Source: u.Source, Barred: u.Barred, Keys: KeysSealed, Serial: u.Serial, Created: u.Created, Revoked: u.Revoked, Reason: u.Reason}
			if u.Own {
				v.Keys = KeysOwn
			}
			c, _, cerr := tx.Cert(u.Serial)
			v.NotAfter, v.State = c.NotAfter, state(u.Active(), c.NotAfter, now)
			if u.Active() && !c.Revoked.IsZero() {
				v.State, v.Revoked, v.Reason = StateClosed, c.Revoked, c.Reason
			}
			out, err = append(out, v), errors.Join(err, cerr)
		}
		return err
	})
	return out, err
}

func state(active bool, end, now time.Time) string {
	switch {
	case !active:
		return StateRevoked
	case now.After(end):
		return StateExpired
	}
	return StateActive
}

func (s *Server) user(r *http.Request) (any, error) {
	u, err := s.userNamed(r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	certs, err := s.certStates("user", u.UID)
	return UserDetail{u, certs}, err
}

// renewSameKeys goes on with the keys that the user has.
func (s *Server) renewSameKeys(r *http.Request) (any, error) {
	uid := r.PathValue("name")
	if err := s.cfg.CA.Desk.RenewSameKeys(r.Context(), actor(r), uid); err != nil {
		return nil, err
	}
	return s.userNamed(uid)
}

func (s *Server) userNamed(uid string) (User, error) {
	all, err := s.users()
	if err != nil {
		return User{}, err
	}
	for _, u := range all {
		if u.UID == uid {
			return u, nil
		}
	}
	return User{}, fmt.Errorf("user %s %w", uid, issue.ErrUnknown)
}

func (s *Server) routers() ([]Router, error) {
	out := []Router{}
	now := s.cfg.Now()
	err := s.cfg.CA.Desk.View(func(tx *ledger.Tx) error {
		all, err := tx.Routers()
		for _, r := range all {
			v := Router{Name: r.Name, Prefixes: r.Prefixes, Scope: r.Scope, Profile: r.Profile, Twin: r.Twin, TLS: r.TLS,
				Enrolled: r.Enrolled, Renewed: r.Renewed, Revoked: r.Revoked, Reason: r.Reason}
			twin, _, e1 := tx.Cert(r.Twin)
			own, _, e2 := tx.Cert(r.TLS)
			v.NotAfter = twin.NotAfter
			if own.NotAfter.Before(v.NotAfter) {
				v.NotAfter = own.NotAfter
			}
			v.State = state(r.Active(), v.NotAfter, now)
			out, err = append(out, v), errors.Join(err, e1, e2)
		}
		return err
	})
	return out, err
}

func (s *Server) router(r *http.Request) (any, error) {
	all, err := s.routers()
	if err != nil {
		return nil, err
	}
	for _, v := range all {
		if v.Name == r.PathValue("name") {
			return v, nil
		}
	}
	return nil, fmt.Errorf("router %s %w", r.PathValue("name"), issue.ErrUnknown)
}

func (s *Server) tokens() ([]Token, error) {
	out := []Token{}
	err := s.cfg.CA.Desk.View(func(tx *ledger.Tx) error {
		all, err := tx.Tokens()
		for _, t := range all {
			out = append(out, tokenView(t, s.cfg.Now()))
		}
		return err
	})
	return out, err
}

func tokenView(t ledger.Token, now time.Time) Token {
	v := Token{ID: t.ID, Role: t.Role, Name: t.Name, Group: t.Group, State: StateUnused, Prefixes: t.Prefixes, Scope: t.Scope, Expires: t.Expires}
	switch {
	case t.Used != nil:
		v.State = StateUsed
	case t.Intent != 0:
		v.State = StatePending
	case now.After(t.Expires):
		v.State = StateExpired
	}
	return v
}

// status collects what there is to know.
func (s *Server) status(ctx context.Context) (Status, error) {
	ca, now := s.cfg.CA, s.cfg.Now()
	st := Status{Name: ca.Config.Name, URL: ca.Config.URL, Fingerprint: home.Fingerprint(ca.Authority.Root()), Certificates: s.own(),
		Directory: DirectoryState{URL: ca.Config.Directory}, Pending: []Pending{}, Expiring: []Expiring{}, Rotating: []Group{}}
	crl, err := ca.Authority.CRL()
	if err != nil {
		return st, err
	}
	st.CRL = CRL{crl.Number, crl.Next}
	if err := ca.Desk.CheckClock(); err != nil {
		st.Clock = err.Error()
	}
	if ca.Directory != nil {
		ctx, cancel := context.WithTimeout(ctx, healthTimeout)
		defer cancel()
		err := ca.Directory.Health(ctx)
		if err == nil {
			err = ca.Desk.Compare(ctx)
		}
		if err != nil {
			st.Directory.Error = err.Error()
		}
	}
	st.Sources = s.sources()
	st.Warnings = s.warnings(now)
	err = ca.Desk.View(func(tx *ledger.Tx) error {
		queue, err := tx.Intents()
		for _, in := range queue {
			st.Pending = append(st.Pending, Pending{What: in.What, Since: in.Created, Withdrawn: in.Withdrawn, LastFailed: in.LastFailed})
		}
		users, e1 := tx.Users()
		routers, e2 := tx.Routers()
		for _, u := range users {
			if u.Active() {
				st.Users++
			}
		}
		for _, r := range routers {
			if r.Active() {
				st.Routers++
			}
		}
		return errors.Join(err, e1, e2)
	})
	if err != nil {
		return st, err
	}
	groups, err := s.groups()
	if err != nil {
		return st, err
	}
	for _, g := range groups {
		if g.Rotating || !g.RevokeAt.IsZero() {
			st.Rotating = append(st.Rotating, g)
		}
	}
	soon, err := ca.Desk.Expiring(now.Add(expiringWithin))
	for _, c := range soon {
		st.Expiring = append(st.Expiring, Expiring{c.Role, c.Name, c.Kind, c.Serial, c.NotAfter})
	}
	return st, err
}
