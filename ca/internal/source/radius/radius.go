package radius

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	mrand "math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"layeh.com/radius"

	"twinkey/ca/internal/source"
	"twinkey/pkg/config"
	"twinkey/pkg/twincert"
	"twinkey/proto/secret"
)

// radsecSecret is what takes the place of the shared secret within TLS (RFC 6614 2.3).
const radsecSecret = "radsec"

const (
	// maxOutstanding bounds the requests that wait for an answer, and with them sockets or identifiers.
	maxOutstanding = 128
	// patience is how long another one waits for its turn.
	patience = 5 * time.Second
	// maxPassword is the longest that User-Password can hide (RFC 2865 5.2).
	maxPassword = 128
	// maxState is how much of Class is kept, so that an Accounting-Request has room for it.
	maxState = 2048
)

// Why no answer came.
var (
	errSilent  = errors.New("no answer that could be believed")
	errRefused = errors.New("nobody listens there")
	errBusy    = fmt.Errorf("%d requests wait for an answer already", maxOutstanding)
	errClosed  = errors.New("the source was closed")
)

// Source is a set of RADIUS servers that say the same.
type Source struct {
	name   string
	cfg    Config
	log    *slog.Logger
	secret secret.Key
	group  attribute
	tls    *tls.Config // nil over UDP

	servers, accounting *source.Servers
	turns               chan struct{}
	turn                time.Duration    // of a server that is not the last
	links               map[string]*link // of RadSec, by server
	clients             clients
	sessions            sessions
	count               counters

	life context.Context // ends at Close
	end  context.CancelFunc
	wg   sync.WaitGroup // readers of links
}

var (
	_ source.Source     = (*Source)(nil)
	_ source.Watcher    = (*Source)(nil)
	_ source.Accountant = (*Source)(nil)
	_ source.Reporter   = (*Source)(nil)
)

// New makes the source of a configuration that was checked; key is the path of its section, dir what its files are
// relative to. Nobody is spoken to yet.
func New(name, key, dir string, c Config, log *slog.Logger) (*Source, error) {
	s := &Source{name: name, cfg: c, log: log.With("source", name), turns: make(chan struct{}, maxOutstanding), turn: source.Turn,
		servers: source.NewServers(c.Servers), accounting: source.NewServers(c.Accounting)}
	var err error
	if s.group, err = parseAttribute(c.GroupAttribute); err != nil {
		return nil, config.Wrong(key+".group_attribute", err)
	}
	if c.Transport == UDP {
		if s.secret, err = source.ReadSecret(dir, c.SecretFile); err != nil {
			return nil, config.Wrong(key+".secret_file", err)
		}
	} else {
		s.secret = secret.Copy([]byte(radsecSecret))
		if s.tls, err = clientTLS(key, dir, c); err != nil {
			return nil, err
		}
	}
	if s.clients, err = readClients(key+".disconnect.clients", dir, c.Disconnect.Clients); err != nil {
		return nil, err
	}
	s.life, s.end = context.WithCancel(context.Background())
	if s.tls != nil {
		s.links = make(map[string]*link)
		for _, list := range [][]string{c.Servers, c.Accounting} {
			for _, server := range list {
				if s.links[server] == nil {
					s.links[server] = &link{server: server, s: s}
				}
			}
		}
	}
	return s, nil
}

func clientTLS(key, dir string, c Config) (*tls.Config, error) {
	if _, err := source.KeyPair(dir, c.Certificate, c.Key); err != nil {
		return nil, config.Wrong(key+".key", err)
	}
	roots, err := source.Roots(dir, c.Root)
	if err != nil {
		return nil, config.Wrong(key+".root", err)
	}
	// Read for each connection: certificates are renewed while we run.
	own := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		pair, err := source.KeyPair(dir, c.Certificate, c.Key)
		return &pair, err
	}
	return &tls.Config{GetClientCertificate: own, RootCAs: roots, ServerName: c.ServerName, MinVersion: tls.VersionTLS12}, nil
}

// Name is what the operator calls it.
func (s *Source) Name() string { return s.name }

// Close ends what is under way.
func (s *Source) Close() error {
	s.end()
	for _, l := range s.links {
		l.close(errClosed)
	}
	s.wg.Wait()
	return nil
}

// Check asks whether the password of uid is right.
func (s *Source) Check(ctx context.Context, uid string, password []byte) (source.Answer, error) {
	if twincert.CheckName(uid) != nil || len(password) == 0 || len(password) > maxPassword {
		return source.Answer{}, source.ErrRejected // nobody can have it, so nobody is asked
	}
	for _, b := range password {
		if b == 0 { // User-Password is padded with zeros: "secret" and "secret\0" would be the same
			return source.Answer{}, source.ErrRejected
		}
	}
	p, server, err := s.ask(ctx, s.servers, radius.CodeAccessRequest, func(p *radius.Packet) error {
		add(p, typeUserName, uid)
		hidden, err := radius.NewUserPassword(password, s.secret.Bytes(), p.Authenticator[:])
		if err != nil {
			return fmt.Errorf("hiding the password: %w", err)
		}
		p.Add(typeUserPassword, hidden)
		addNumber(p, typeServiceType, serviceFramed)
		addNumber(p, typeNASPortType, portVirtual)
		add(p, typeNASIdentifier, s.cfg.NASIdentifier)
		return nil
	})
	if err != nil {
		return source.Answer{}, fmt.Errorf("%w: %w", source.ErrUnavailable, err)
	}
	switch p.code { //nolint:exhaustive // no other answers an Access-Request
	case radius.CodeAccessAccept:
		s.count.accepted.Add(1)
		return s.answer(uid, p), nil
	case radius.CodeAccessChallenge:
		s.count.challenged.Add(1)
		s.log.Warn("the server asks for more than a password, which cannot be answered: the login is refused", "server", server, "user", uid)
		return source.Answer{}, fmt.Errorf("%w: the server asks for more than a password (Access-Challenge)", source.ErrRejected)
	default:
		s.count.rejected.Add(1)
		return source.Answer{}, source.ErrRejected
	}
}

// answer is what an Access-Accept says.
func (s *Source) answer(uid string, p packet) source.Answer {
	values := s.group.values(p.Attributes)
	a := source.Answer{Group: source.PickGroup(s.cfg.Groups, values, sameValue, s.cfg.Group)}
	if a.Group == "" {
		s.log.Warn("the server puts a user into no group that is known", "user", uid, "attribute", s.group.name, "values", values)
	}
	if seconds, ok := p.number(typeSessionTimeout); ok {
		a.Session = time.Duration(seconds) * time.Second
	}
	a.State = packState(p.Attributes)
	return a
}

// sameValue says whether two values of an attribute are the same: in all their octets.
func sameValue(a, b string) bool { return a == b }

// packState keeps all Class attributes as they came, each behind its length (RFC 2865 5.25: in that order, unmodified).
func packState(attrs radius.Attributes) []byte {
	var b []byte
	for _, a := range attrs {
		if a.Type == typeClass && len(a.Attribute) > 0 && len(b)+1+len(a.Attribute) <= maxState {
			b = append(append(b, byte(len(a.Attribute))), a.Attribute...)
		}
	}
	return b
}

// unpackState is the reverse of packState; what is none ends it.
func unpackState(b []byte) []radius.Attribute {
	var out []radius.Attribute
	for len(b) > 0 && b[0] > 0 && b[0] <= maxString && int(b[0]) < len(b) && len(b) <= maxState {
		out = append(out, radius.Attribute(b[1:1+b[0]]))
		b = b[1+b[0]:]
	}
	return out
}

// ask has a request answered by one server after the other; fill is called for each anew.
func (s *Source) ask(ctx context.Context, servers *source.Servers, code radius.Code, fill func(*radius.Packet) error) (packet, string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.life, cancel)()
	turn := time.NewTimer(patience)
	defer turn.Stop()
	select {
	case s.turns <- struct{}{}:
		defer func() { <-s.turns }()
	case <-turn.C:
		return packet{}, "", errBusy
	case <-ctx.Done():
		return packet{}, "", s.cause(ctx)
	}
	var errs []error
	order := servers.Order(time.Now())
	for i, server := range order {
		p, err := s.askOne(ctx, server, i == len(order)-1, code, fill)
		if err == nil {
			servers.Answered(server)
			return p, server, nil
		}
		if errors.Is(ctx.Err(), context.Canceled) { // nobody waits any more; that there is no more time to wait says that it was silent
			return packet{}, "", s.cause(ctx)
		}
		servers.Silent(server, time.Now())
		s.count.silent.Add(1)
		s.log.Warn("a server gave no answer", "server", server, "error", err)
		if ctx.Err() != nil {
			return packet{}, "", s.cause(ctx)
		}
		errs = append(errs, fmt.Errorf("%s: %w", server, err))
	}
	return packet{}, "", errors.Join(errs...)
}

// cause is why ctx of ask ended.
func (s *Source) cause(ctx context.Context) error {
	if s.life.Err() != nil {
		return errClosed
	}
	return ctx.Err()
}

func (s *Source) askOne(ctx context.Context, server string, last bool, code radius.Code, fill func(*radius.Packet) error) (packet, error) {
	if !last && code == radius.CodeAccessRequest {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.turn)
		defer cancel()
	}
	if s.tls != nil {
		return s.links[server].ask(ctx, code, fill)
	}
	return s.askUDP(ctx, server, last, code, fill)
}

// askUDP sends a request from a socket of its own, connected to the server: the kernel lets in only what comes from there, and
// whoever wants to answer in its place must know the port besides.
func (s *Source) askUDP(ctx context.Context, server string, last bool, code radius.Code, fill func(*radius.Packet) error) (packet, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "udp", server)
	if err != nil {
		return packet{}, err
	}
	defer func() { _ = conn.Close() }() // nothing is lost
	defer context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })()
	var id [1]byte
	if _, err := rand.Read(id[:]); err != nil {
		return packet{}, fmt.Errorf("making an Identifier: %w", err)
	}
	r, err := newRequest(code, id[0], s.secret.Bytes(), fill)
	if err != nil {
		return packet{}, err
	}
	silence := errSilent
	for try, wait := 0, s.cfg.Wait; try < s.cfg.Tries; try, wait = try+1, 2*wait {
		if try > 0 {
			s.count.repeated.Add(1)
		}
		until := time.Now().Add(jitter(wait))
		_, err := conn.Write(r.wire)
		var p packet
		if err == nil {
			p, err = s.receive(ctx, conn, server, r, until)
		}
		switch {
		case err == nil:
			return p, nil
		case ctx.Err() != nil:
			return packet{}, ctx.Err()
		case disbelieved(err):
			silence = err
			continue
		case errors.Is(err, errSilent):
			continue
		case !last:
			return packet{}, fmt.Errorf("%w: %w", errRefused, err)
		}
		silence = fmt.Errorf("%w: %w", errRefused, err)
		select { // it may be coming up again
		case <-time.After(time.Until(until)):
		case <-ctx.Done():
			return packet{}, ctx.Err()
		}
	}
	return packet{}, silence
}

// receive waits for the answer to r. What cannot be believed is told if nothing better comes.
func (s *Source) receive(ctx context.Context, conn net.Conn, server string, r *request, until time.Time) (packet, error) {
	if err := conn.SetReadDeadline(until); err != nil {
		return packet{}, err
	}
	if ctx.Err() != nil { // it may have ended before the deadline was set
		return packet{}, ctx.Err()
	}
	worst := errSilent
	var buf [maxPacket]byte
	for {
		n, err := conn.Read(buf[:])
		if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
			return packet{}, worst
		}
		if err != nil {
			return packet{}, err
		}
		p, err := r.believe(buf[:n])
		if err == nil {
			return p, nil
		}
		s.count.dropped(err)
		if errors.Is(worst, errSilent) { // once: whoever sends many must not fill the log
			s.log.Warn("an answer is not believed", "server", server, "why", err)
		}
		worst = err
	}
}

// disbelieved says whether err tells why an answer was dropped.
func disbelieved(err error) bool {
	for _, e := range []error{errMalformed, errStray, errAuthenticator, errNoSignature, errSignature, errProxyState} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// jitter is d, a tenth more or less (RFC 5080 2.2.1), so that what failed together is not repeated together.
func jitter(d time.Duration) time.Duration {
	return d - d/10 + mrand.N(max(d/5, 1)) //nolint:gosec // nobody gains by guessing it
}

// counters are what happened since the start.
type counters struct {
	accepted, rejected, challenged, accounted atomic.Uint64
	repeated, silent                          atomic.Uint64
	malformed, stray, authenticator           atomic.Uint64
	noSignature, signature, proxyState        atomic.Uint64
	stranger, stale                           atomic.Uint64
	ended, unended, changed, unchanged        atomic.Uint64
}

// dropped counts an answer or request that was not believed.
func (c *counters) dropped(why error) {
	switch {
	case errors.Is(why, errStray):
		c.stray.Add(1)
	case errors.Is(why, errAuthenticator):
		c.authenticator.Add(1)
	case errors.Is(why, errNoSignature):
		c.noSignature.Add(1)
	case errors.Is(why, errSignature):
		c.signature.Add(1)
	case errors.Is(why, errProxyState):
		c.proxyState.Add(1)
	case errors.Is(why, errStale):
		c.stale.Add(1)
	case errors.Is(why, errStranger):
		c.stranger.Add(1)
	default:
		c.malformed.Add(1)
	}
}

// State says how the source does.
func (s *Source) State() source.State {
	st := source.State{Name: s.name, Kind: "radius over TLS", Servers: s.cfg.Servers}
	if s.tls == nil {
		st.Kind = "radius over UDP"
		st.Warnings = append(st.Warnings, fmt.Sprintf("source %s speaks RADIUS over UDP: passwords are hidden by MD5 under the shared secret alone, and who logs in is not hidden at all; "+
			"let no stranger on the line, or use RadSec (transport: radsec)", s.name))
		if s.secret.Len() < goodSecret {
			st.Warnings = append(st.Warnings, fmt.Sprintf("the shared secret of source %s is shorter than %d bytes: whoever hears one login can try them all", s.name, goodSecret))
		}
	}
	c := &s.count
	for _, n := range []struct {
		what string
		n    *atomic.Uint64
	}{
		{"accepted", &c.accepted}, {"rejected", &c.rejected}, {"challenged", &c.challenged}, {"accounted", &c.accounted},
		{"repeated", &c.repeated}, {"servers silent", &c.silent},
		{"dropped: malformed", &c.malformed}, {"dropped: stray", &c.stray}, {"dropped: wrong authenticator", &c.authenticator},
		{"dropped: no Message-Authenticator", &c.noSignature}, {"dropped: wrong Message-Authenticator", &c.signature}, {"dropped: Proxy-State", &c.proxyState},
		{"dropped: from a stranger", &c.stranger}, {"dropped: too old or new", &c.stale},
		{"users ended", &c.ended}, {"users not ended", &c.unended}, {"users changed", &c.changed}, {"users not changed", &c.unchanged},
	} {
		if v := n.n.Load(); v > 0 {
			st.Counts = append(st.Counts, source.Count{What: n.what, N: v})
		}
	}
	return st
}
