package api

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	caclient "twinkey/ca/client"
	"twinkey/ca/internal/authority"
	"twinkey/ca/internal/enroll"
	"twinkey/ca/internal/issue"
	"twinkey/ca/internal/ledger"
	"twinkey/ca/internal/login"
	"twinkey/pkg/identity"
	"twinkey/pkg/limit"
	"twinkey/pkg/strictjson"
)

var (
	errPeer = errors.New("a certificate of this CA is needed")
	errBody = errors.New("unreadable request")
)

// tlsConfig lets in clients without a certificate and with an expired one; see the package
// comment. Nothing is resumed, so that each connection proves its key anew.
func tlsConfig(id *identity.Identity) *tls.Config {
	c := id.ServerTLS()
	c.GetConfigForClient = nil
	c.ClientAuth = tls.RequestClientCert
	c.SessionTicketsDisabled = true
	return c
}

// public answers everybody.
func (s *Server) public() (http.Handler, error) {
	plain, err := s.cfg.CA.Authority.Handler(s.cfg.Port, s.board.Answer, s.mayBe)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+caclient.PathChallenge, s.limited(s.challenge))
	mux.HandleFunc("POST "+caclient.PathEnroll, s.limited(s.enroll))
	mux.HandleFunc("POST "+caclient.PathRenew, s.limited(s.renew))
	mux.HandleFunc("POST "+caclient.PathRenewUser, s.limited(s.renewUser))
	mux.HandleFunc("PUT "+caclient.PathAnswer, s.limited(s.post))
	mux.HandleFunc(authority.PortalACME, s.routersOnly(plain))
	mux.HandleFunc("POST "+caclient.PathClose, s.limited(s.close))
	mux.HandleFunc("GET "+caclient.PathTrust, s.answering(s.plain, func(*http.Request) (any, error) { return s.trust(), nil }))
	mux.HandleFunc("POST "+caclient.PathLogin, s.answered(s.login))
	mux.HandleFunc("GET "+caclient.PathLoginKey, s.answered(s.loginKey))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if !s.plain.Allow(r.RemoteAddr, time.Now()) {
			writeError(w, http.StatusTooManyRequests, caclient.CodeTooMany, errTooMany.Error(), time.Second)
			return
		}
		plain.ServeHTTP(w, r)
	})
	return mux, nil
}

// limited wraps an operation that costs us something.
func (s *Server) limited(f func(*http.Request) (any, error)) http.HandlerFunc {
	return s.answering(s.costly, f)
}

// answering wraps an operation that an address may ask for as often as l allows.
func (s *Server) answering(l *limit.Rates, f func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !l.Allow(r.RemoteAddr, time.Now()) {
			writeError(w, http.StatusTooManyRequests, caclient.CodeTooMany, errTooMany.Error(), time.Second)
			return
		}
		s.answered(f)(w, r)
	}
}

// answered wraps an operation.
func (s *Server) answered(f func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := f(r)
		if err != nil {
			code, status := codeOf(err)
			if !errors.Is(err, errTooMany) { // which would have the log filled by whoever wants to
				s.cfg.Log.Warn("request refused", "path", r.URL.Path, "from", r.RemoteAddr, "code", code, "error", err)
			}
			writeError(w, status, code, public(code, err), after(code, err))
			return
		}
		writeJSON(w, http.StatusOK, v)
	}
}

// login lets in a user whom a source authenticates. Only a router in good standing may ask; the door has limits of its
// own for each.
func (s *Server) login(r *http.Request) (any, error) {
	router, err := s.standing(r)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(r.Body, caclient.MaxRequest+1))
	defer clear(b)
	if err != nil || len(b) > caclient.MaxRequest {
		return nil, fmt.Errorf("%w: %w", errBody, errors.Join(err, errors.New("it broke off or is too long")))
	}
	var in caclient.Login
	if err := strictjson.Decode(b, &in); err != nil || (in.Password == nil) == (in.Sealed == nil) {
		return nil, fmt.Errorf("%w: it is no login", errBody) // what JSON finds wrong may be a part of the password
	}
	defer clear(in.Password)
	var a login.Admission
	if in.Sealed != nil {
		a, err = s.door.LoginSealed(r.Context(), router, in.UID, in.Sealed)
	} else {
		a, err = s.door.Login(r.Context(), router, in.UID, in.Password)
	}
	if err != nil {
		return nil, err
	}
	return caclient.Admission{Params: a.Params, SessionMS: a.Session.Milliseconds(), Confirm: a.Confirm}, nil
}

// loginKey says what passwords are to be sealed to. Only routers ask: it is for those who speak by way of one.
func (s *Server) loginKey(r *http.Request) (any, error) {
	if _, err := s.standing(r); err != nil {
		return nil, err
	}
	statement, err := s.door.LoginKey()
	if err != nil {
		return nil, err
	}
	return caclient.LoginKey{Statement: statement}, nil
}

// standing is the router that asks, if it is one in good standing. Others spend what their address may, and cannot take it from a
// router that shares it.
func (s *Server) standing(r *http.Request) (ledger.Router, error) {
	router, err := s.asking(r)
	if err != nil && !s.plain.Allow(r.RemoteAddr, time.Now()) {
		err = errTooMany
	}
	return router, err
}

// asking is the router that asks, if it is one in good standing.
func (s *Server) asking(r *http.Request) (ledger.Router, error) {
	name, leaf, err := s.routerOf(r)
	if err != nil {
		return ledger.Router{}, err
	}
	return s.cfg.CA.Desk.Router(name, leaf)
}

func (s *Server) challenge(*http.Request) (any, error) { return s.challenger.New(s.cfg.Now()) }

func (s *Server) enroll(r *http.Request) (any, error) {
	req, keys, err := s.proved(r)
	if err != nil {
		return nil, err
	}
	if keys.Old != nil {
		return nil, fmt.Errorf("%w: an enrolment shows no old certificate", enroll.ErrRequest)
	}
	issued, err := s.cfg.CA.Desk.Enroll(r.Context(), req.Token, keys)
	if err != nil {
		return nil, err
	}
	return s.answer(issued), nil
}

func (s *Server) renew(r *http.Request) (any, error) {
	role, name, leaf, err := s.peer(r)
	if err != nil {
		return nil, err
	}
	req, keys, err := s.proved(r)
	if err != nil {
		return nil, err
	}
	if req.Token != "" {
		return nil, fmt.Errorf("%w: a renewal shows no token", enroll.ErrRequest)
	}
	issued, err := s.cfg.CA.Desk.Renew(r.Context(), role, name, leaf, keys)
	if err != nil {
		return nil, err
	}
	return s.answer(issued), nil
}

func (s *Server) renewUser(r *http.Request) (any, error) {
	req, keys, err := s.proved(r)
	if err != nil {
		return nil, err
	}
	if req.Token != "" {
		return nil, fmt.Errorf("%w: a renewal shows no token", enroll.ErrRequest)
	}
	issued, err := s.cfg.CA.Desk.RenewOwn(r.Context(), keys)
	if err != nil {
		return nil, err
	}
	return s.answer(issued), nil
}

// post takes a router's answer to an ACME challenge, if the name is one that it may have.
func (s *Server) post(r *http.Request) (any, error) {
	router, leaf, err := s.routerOf(r)
	if err != nil {
		return nil, err
	}
	b, err := body(r)
	if err != nil {
		return nil, err
	}
	var a caclient.ChallengeAnswer
	if err := strictjson.Decode(b, &a); err != nil {
		return nil, fmt.Errorf("%w: %w", errBody, err)
	}
	if err := s.cfg.CA.Desk.PortalName(router, leaf, a.Identifier); err != nil {
		return nil, err
	}
	return struct{}{}, s.board.Put(router, a.Identifier, a.Token, a.KeyAuthorization)
}

// routerOf is whoever shows the certificate of one.
func (s *Server) routerOf(r *http.Request) (name string, leaf *x509.Certificate, err error) {
	role, name, leaf, err := s.peer(r)
	if err == nil && role != issue.RoleRouter {
		err = fmt.Errorf("%w: that of a router, not of %s", errPeer, role)
	}
	return name, leaf, err
}

// shown is a router and the certificate that it has shown, in the context of a request.
type shown struct {
	router string
	leaf   *x509.Certificate
}

type shownKey struct{}

// mayBe says whether the router that sends a request may have a certificate for identifier, as the ledger is now.
func (s *Server) mayBe(ctx context.Context, identifier string) error {
	who, ok := ctx.Value(shownKey{}).(shown)
	if !ok {
		return errPeer
	}
	return s.cfg.CA.Desk.PortalName(who.router, who.leaf, identifier)
}

// routersOnly lets nobody else order certificates that are validated by the board, and no router that is none any more.
func (s *Server) routersOnly(next http.Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !s.plain.Allow(r.RemoteAddr, time.Now()) {
			writeError(w, http.StatusTooManyRequests, caclient.CodeTooMany, errTooMany.Error(), time.Second)
			return
		}
		name, leaf, err := s.routerOf(r)
		if err == nil {
			_, err = s.cfg.CA.Desk.Router(name, leaf)
		}
		if err != nil {
			code, status := codeOf(err)
			s.cfg.Log.Warn("request refused", "path", r.URL.Path, "from", r.RemoteAddr, "code", code, "error", err)
			writeError(w, status, code, public(code, err), 0)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), shownKey{}, shown{name, leaf})))
	}
}

func (s *Server) close(r *http.Request) (any, error) {
	name, leaf, err := s.routerOf(r)
	if err != nil {
		return nil, err
	}
	b, err := body(r)
	if err != nil {
		return nil, err
	}
	closed, err := enroll.ParseClose(b)
	if err != nil {
		return nil, err
	}
	refused, err := s.cfg.CA.Desk.Close(r.Context(), name, leaf, closed)
	if err != nil {
		return nil, err
	}
	return caclient.CloseAnswer{Refused: refused}, nil
}

func body(r *http.Request) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r.Body, caclient.MaxRequest+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errBody, err)
	}
	return b, nil
}

// proved reads a request and checks its proofs.
func (s *Server) proved(r *http.Request) (*caclient.Request, issue.Keys, error) {
	b, err := body(r)
	if err != nil {
		return nil, issue.Keys{}, err
	}
	req, err := enroll.Parse(b)
	if err != nil {
		return nil, issue.Keys{}, err
	}
	p, err := s.challenger.Check(req, s.cfg.Now())
	if err != nil {
		return nil, issue.Keys{}, err
	}
	return req, issue.Keys{CSR: p.CSR, Twin: p.Twin, User: p.User, Old: p.Old}, nil
}

// peer says who shows the client certificate. It must be of this CA; that it has expired is
// no matter here.
func (s *Server) peer(r *http.Request) (role, name string, leaf *x509.Certificate, err error) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return "", "", nil, errPeer
	}
	leaf = r.TLS.PeerCertificates[0]
	roots, inter := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(s.cfg.CA.Authority.Root())
	inter.AddCert(s.cfg.CA.Authority.Intermediate())
	at := s.cfg.Now()
	if at.After(leaf.NotAfter) {
		at = leaf.NotAfter
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: inter, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		return "", "", nil, fmt.Errorf("%w: %w", errPeer, err)
	}
	uri, err := identity.PeerURI(leaf)
	if err != nil {
		return "", "", nil, fmt.Errorf("%w: %w", errPeer, err)
	}
	role, name, _ = strings.Cut(strings.TrimPrefix(uri, identity.Scheme+"://"), "/")
	return role, name, leaf, nil
}

func (s *Server) answer(i issue.Issued) caclient.Answer {
	a := caclient.Answer{Twin: i.Twin, Trust: s.trust()}
	for _, c := range i.TLS {
		a.TLS = append(a.TLS, c.Raw)
	}
	return a
}

func (s *Server) trust() caclient.Trust {
	ca := s.cfg.CA
	return caclient.Trust{
		Roots:         [][]byte{ca.Authority.Root().Raw},
		Intermediates: [][]byte{ca.Authority.Intermediate().Raw},
		Close:         s.closeKey,
		Endpoints:     caclient.Endpoints{DirectoryURL: ca.Config.Directory},
	}
}
