package ldap

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-ldap/ldap/v3"

	"twinkey/ca/internal/source"
	"twinkey/pkg/config"
	"twinkey/pkg/keybundle"
	"twinkey/pkg/twincert"
	"twinkey/proto/secret"
)

const (
	// maxOutstanding bounds the logins that are being asked about, each with a connection.
	maxOutstanding = 32
	// patience is how long another one waits for its turn.
	patience = 5 * time.Second
	// refusalTime is the least that a refusal takes, so that its time does not tell what was wrong.
	refusalTime = 300 * time.Millisecond
	// maxGroups is how many groups of a user are looked at.
	maxGroups = 500
	// noAttributes asks for none (RFC 4511 4.5.1.8).
	noAttributes = "1.1"
)

// Errors of Check, besides those of source.
var (
	errBusy   = fmt.Errorf("%d logins are being asked about already", maxOutstanding)
	errClosed = errors.New("the source was closed")
)

// Source is a set of LDAP servers that hold the same.
type Source struct {
	name   string
	cfg    Config
	log    *slog.Logger
	secret secret.Key
	tls    *tls.Config

	servers  *source.Servers
	turns    chan struct{}
	turn     time.Duration // of a server that is not the last
	followed followed
	count    counters

	life context.Context // ends at Close
	end  context.CancelFunc
}

var (
	_ source.Source   = (*Source)(nil)
	_ source.Watcher  = (*Source)(nil)
	_ source.Follower = (*Source)(nil)
	_ source.Reporter = (*Source)(nil)
)

// counters are what happened since the start.
type counters struct{ accepted, rejected, silent, ended, rounds, failed atomic.Uint64 }

// New makes the source of a configuration that was checked; key is the path of its section, dir what its files are
// relative to. Nobody is spoken to yet.
func New(name, key, dir string, c Config, log *slog.Logger) (*Source, error) {
	s := &Source{name: name, cfg: c, log: log.With("source", name), servers: source.NewServers(c.Servers), turns: make(chan struct{}, maxOutstanding), turn: source.Turn}
	if c.SecretFile != "" {
		var err error
		if s.secret, err = source.ReadSecret(dir, c.SecretFile); err != nil {
			return nil, config.Wrong(key+".secret_file", err)
		}
	}
	roots, err := source.Roots(dir, c.Root)
	if err != nil {
		return nil, config.Wrong(key+".root", err)
	}
	s.tls = &tls.Config{RootCAs: roots, ServerName: c.ServerName, MinVersion: tls.VersionTLS12}
	s.life, s.end = context.WithCancel(context.Background())
	return s, nil
}

// Name is what the operator calls it.
func (s *Source) Name() string { return s.name }

// Close ends what is under way.
func (s *Source) Close() error {
	s.end()
	return nil
}

// Check asks whether the password of uid is right.
func (s *Source) Check(ctx context.Context, uid string, password []byte) (source.Answer, error) {
	if twincert.CheckName(uid) != nil || len(password) == 0 || len(password) > keybundle.MaxPassword {
		return source.Answer{}, source.ErrRejected // nobody can have it, so nobody is asked
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.life, cancel)()
	turn := time.NewTimer(patience)
	defer turn.Stop()
	select {
	case s.turns <- struct{}{}:
		defer func() { <-s.turns }()
	case <-turn.C:
		return source.Answer{}, fmt.Errorf("%w: %w", source.ErrUnavailable, errBusy)
	case <-ctx.Done():
		return source.Answer{}, s.unavailable(ctx, nil)
	}
	refusal := time.NewTimer(refusalTime)
	defer refusal.Stop()
	var errs []error
	order := s.servers.Order(time.Now())
	for i, server := range order {
		a, err := s.inTurn(ctx, i == len(order)-1, server, uid, password)
		switch {
		case err == nil:
			s.servers.Answered(server)
			s.count.accepted.Add(1)
			s.Follow(uid)
			return a, nil
		case errors.Is(err, source.ErrRejected):
			s.servers.Answered(server)
			s.count.rejected.Add(1)
			select {
			case <-refusal.C:
			case <-ctx.Done():
			}
			return source.Answer{}, err
		case errors.Is(ctx.Err(), context.Canceled): // nobody waits any more; that there is no more time to wait says that it was silent
			return source.Answer{}, s.unavailable(ctx, nil)
		}
		s.servers.Silent(server, time.Now())
		s.count.silent.Add(1)
		s.log.Warn("a server gave no answer", "server", server, "error", err)
		if ctx.Err() != nil {
			return source.Answer{}, s.unavailable(ctx, nil)
		}
		errs = append(errs, fmt.Errorf("%s: %w", server, err))
	}
	return source.Answer{}, s.unavailable(ctx, errs)
}

// unavailable is an ErrUnavailable that says why.
func (s *Source) unavailable(ctx context.Context, errs []error) error {
	switch {
	case s.life.Err() != nil:
		errs = []error{errClosed}
	case ctx.Err() != nil:
		errs = []error{ctx.Err()}
	}
	return fmt.Errorf("%w: %w", source.ErrUnavailable, errors.Join(errs...))
}

// inTurn asks one server, and if it is not the last not for too long.
func (s *Source) inTurn(ctx context.Context, last bool, server, uid string, password []byte) (source.Answer, error) {
	if !last {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.turn)
		defer cancel()
	}
	return s.checkAt(ctx, server, uid, password)
}

// checkAt asks one server.
func (s *Source) checkAt(ctx context.Context, server, uid string, password []byte) (source.Answer, error) {
	c, err := s.service(ctx, server)
	if err != nil {
		return source.Answer{}, err
	}
	defer c.close()
	attributes := []string{noAttributes}
	if s.cfg.GroupAttribute != "" {
		attributes = []string{s.cfg.GroupAttribute}
	}
	found, err := s.search(c, s.cfg.Base, ldap.ScopeWholeSubtree, 1, fill(s.cfg.Filter, uid), attributes...)
	if err != nil {
		return source.Answer{}, fmt.Errorf("searching %s: %w", s.cfg.Base, err)
	}
	// Whom nobody has is asked about all the same: the time must not tell.
	e := &ldap.Entry{DN: "cn=nobody," + s.cfg.Base}
	if len(found) == 1 && found[0].DN != "" {
		e = found[0]
	}
	if len(found) > 1 {
		s.log.Error("the filter fits more than one entry, so nobody", "user", uid, "server", server)
	}
	group, err := s.groupOf(c, e)
	if err != nil {
		return source.Answer{}, err
	}
	if err := c.allow(maxAnswer, s.cfg.Timeout); err != nil {
		return source.Answer{}, err
	}
	switch err := c.Bind(e.DN, string(password)); {
	case err != nil && refused(err):
		return source.Answer{}, source.ErrRejected
	case err != nil:
		return source.Answer{}, fmt.Errorf("binding as a user: %w", err)
	case len(found) != 1 || e != found[0]:
		return source.Answer{}, source.ErrRejected
	}
	if group == "" {
		s.log.Warn("the server puts a user into no group that is known", "user", uid, "dn", e.DN)
	}
	return source.Answer{Group: group}, nil
}

// groupOf finds the tunnel group of an entry.
func (s *Source) groupOf(c *conn, e *ldap.Entry) (string, error) {
	var values []string
	if s.cfg.GroupAttribute != "" {
		values = e.GetEqualFoldAttributeValues(s.cfg.GroupAttribute)
	}
	if s.cfg.GroupBase != "" {
		groups, err := s.search(c, s.cfg.GroupBase, ldap.ScopeWholeSubtree, maxGroups, fill(s.cfg.GroupFilter, e.DN), noAttributes)
		if err != nil {
			return "", fmt.Errorf("searching %s: %w", s.cfg.GroupBase, err)
		}
		for _, g := range groups {
			values = append(values, g.DN)
		}
	}
	return source.PickGroup(s.cfg.Groups, values, same, s.cfg.Group), nil
}

// same compares values of attributes as most of them are compared, without regard to case, and DNs as DNs.
func same(a, b string) bool {
	if strings.EqualFold(a, b) {
		return true
	}
	da, errA := ldap.ParseDN(a)
	db, errB := ldap.ParseDN(b)
	return errA == nil && errB == nil && len(da.RDNs) > 0 && da.EqualFold(db)
}

// refused says whether a server said no to a user, by the result of the bind. Everything else, such as a server that is
// busy, says nothing of the user.
func refused(err error) bool {
	return ldap.IsErrorAnyOf(err, ldap.LDAPResultInvalidCredentials, ldap.LDAPResultInappropriateAuthentication, ldap.LDAPResultInsufficientAccessRights,
		ldap.LDAPResultConstraintViolation, ldap.LDAPResultNoSuchObject, ldap.LDAPResultInvalidDNSyntax, ldap.LDAPResultUnwillingToPerform)
}

// State says how the source does.
func (s *Source) State() source.State {
	st := source.State{Name: s.name, Kind: "ldap", Servers: s.cfg.Servers}
	if s.cfg.Plain {
		st.Kind = "ldap without TLS"
	}
	for _, n := range []struct {
		what string
		n    uint64
	}{
		{"accepted", s.count.accepted.Load()}, {"rejected", s.count.rejected.Load()}, {"servers silent", s.count.silent.Load()},
		{"users followed", uint64(s.followed.len())}, {"rounds", s.count.rounds.Load()}, {"rounds failed", s.count.failed.Load()}, {"users ended", s.count.ended.Load()},
	} {
		if n.n > 0 {
			st.Counts = append(st.Counts, source.Count{What: n.what, N: n.n})
		}
	}
	return st
}

// followed is whom Watch looks after. The zero value is nobody.
type followed struct {
	mu   sync.Mutex
	uids map[string]struct{}
}

// maxFollowed bounds it; it is more than a CA has users.
const maxFollowed = 1 << 20
