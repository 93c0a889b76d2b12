package voluntary

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	ca "twinkey/ca/client"
	"twinkey/pkg/identity"
	"twinkey/pkg/keybundle"
	"twinkey/pkg/twincert"
	"twinkey/proto/handshake"
	"twinkey/proto/secret"
)

const (
	dialTimeout   = 5 * time.Second
	answerTimeout = 15 * time.Second
	// askTimeout is for an answer that takes a source of the company, and for one that is held back: longer than the router takes for it.
	askTimeout = askTime + 15*time.Second

	maxReached = 4 // addresses of one router: two families, and what it had before
)

// Client is the client's side: it speaks to one router. Safe for concurrent use.
type Client struct {
	base string
	http *http.Client

	mu      sync.Mutex
	router  string              // its name, by its certificate
	chain   []*x509.Certificate // what it showed with that
	reached []netip.Addr        // where it was, the latest last
}

// ParseRoot returns a root certificate if it has the fingerprint: SHA-256 of the DER in hex, colons and case do not matter.
func ParseRoot(der []byte, fingerprint string) (*x509.Certificate, error) {
	want, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(fingerprint), ":", ""))
	if err != nil || len(want) != sha256.Size {
		return nil, &Error{Code: CodeInvalid, Message: fmt.Sprintf("a root's fingerprint is %d hexadecimal digits", 2*sha256.Size)}
	}
	if sum := sha256.Sum256(der); !bytes.Equal(sum[:], want) {
		return nil, &Error{Code: CodeRouter, Message: "no root certificate has this fingerprint"}
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, &Error{Code: CodeRouter, Message: "the root certificate cannot be read", Err: err}
	}
	return c, nil
}

// FetchRoot asks a router, of which nothing is known yet, for the root certificate with this fingerprint, from a local address
// if that is valid. Who answers is not trusted and need not be.
func FetchRoot(ctx context.Context, router string, local netip.Addr, fingerprint string) (*x509.Certificate, error) {
	if _, err := ParseRoot(nil, fingerprint); err != nil {
		if e, ok := errors.AsType[*Error](err); ok && e.Code == CodeInvalid {
			return nil, err
		}
	}
	c := newClient(router, local, &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, //nolint:gosec // the fingerprint decides
	})
	defer c.Close()
	var out Roots
	if err := c.call(ctx, http.MethodGet, pathRoots, nil, nil, &out); err != nil {
		return nil, err
	}
	for _, der := range out.Roots {
		if root, err := ParseRoot(der, fingerprint); err == nil {
			return root, nil
		}
	}
	return nil, &Error{Code: CodeRouter, Message: "the router has no root certificate with this fingerprint"}
}

// NewClient returns a client of the router at "host:port", that must be a router of the company whose root this is. Local is the
// address to speak from; invalid: the machine's choice.
func NewClient(router string, local netip.Addr, root *x509.Certificate) *Client {
	roots := x509.NewCertPool()
	roots.AddCert(root)
	var c *Client
	c = newClient(router, local, &tls.Config{
		MinVersion: tls.VersionTLS13,
		// Chain and name are checked below.
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection does all of it and more
		VerifyConnection:   func(cs tls.ConnectionState) error { return c.verify(cs, roots) },
	})
	return c
}

func newClient(router string, local netip.Addr, t *tls.Config) *Client {
	d := net.Dialer{Timeout: dialTimeout}
	if local.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(local, 0))
	}
	return &Client{base: "https://" + router, http: &http.Client{
		Transport: &http.Transport{
			DialContext: d.DialContext, TLSClientConfig: t, TLSHandshakeTimeout: dialTimeout,
			ResponseHeaderTimeout: askTimeout, MaxResponseHeaderBytes: maxHeader, DisableCompression: true, MaxIdleConnsPerHost: 2, IdleConnTimeout: idleTimeout / 2,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// verify believes a router of the company.
func (c *Client) verify(cs tls.ConnectionState, roots *x509.CertPool) error {
	if len(cs.PeerCertificates) == 0 {
		return identity.ErrServer
	}
	uri, err := identity.PeerURI(cs.PeerCertificates[0])
	if err != nil {
		return err
	}
	router, ok := strings.CutPrefix(uri, "twinkey://router/")
	if !ok {
		return fmt.Errorf("%w: it is %s, not a router", identity.ErrServer, uri)
	}
	if err := identity.VerifyServer(cs, roots, uri); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.router, c.chain = router, cs.PeerCertificates[1:]
	return nil
}

// Close lets go of connections that nobody uses.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Router is the name of the router, as the certificate has it by which it was authenticated last; empty: it was not yet.
func (c *Client) Router() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.router
}

// Chain is what the router showed with its certificate.
func (c *Client) Chain() []*x509.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.chain
}

// Reached are the addresses at which the router was, the latest last. A name that the router has says nothing of the kind.
func (c *Client) Reached() []netip.Addr {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.reached)
}

// got notes where a connection goes that a request is sent over; whoever is there has proved to be a router.
func (c *Client) got(i httptrace.GotConnInfo) {
	t, ok := i.Conn.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return
	}
	a := t.AddrPort().Addr().Unmap().WithZone("")
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.reached); n > 0 && c.reached[n-1] == a {
		return
	}
	c.reached = append(slices.DeleteFunc(c.reached, func(b netip.Addr) bool { return a == b }), a)
	if len(c.reached) > maxReached {
		c.reached = c.reached[1:]
	}
}

// Params asks how the user's password is stretched, and what it is sealed to. Whether that is the CA's key the caller verifies.
func (c *Client) Params(ctx context.Context, uid string) (ParamsAnswer, error) {
	var out ParamsAnswer
	if err := c.call(ctx, http.MethodPost, pathParams, nil, ParamsRequest{uid}, &out); err != nil {
		return out, err
	}
	return out, bearable(out.Params)
}

// bearable refuses parameters out of bounds.
func bearable(p keybundle.Params) error {
	if err := p.Check(); err != nil {
		return &Error{Code: CodeRouter, Message: "what the router says of the password", Err: err}
	}
	return nil
}

// Login proves the user's password. auth stays the caller's.
func (c *Client) Login(ctx context.Context, uid string, auth secret.Key) (Admission, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout) // a refusal is held back
	defer cancel()
	var out Admission
	_, err := c.exchangeWithin(ctx, http.MethodPost, pathLogin, nil, LoginRequest{uid, auth.Bytes()}, &out)
	if err == nil {
		err = out.sensible()
	}
	return out, err
}

// Ask proves the user's password to the directory, or has a source asked about it, whichever of both knows them; sealed is by
// sealedlogin.Seal, for this router. auth stays the caller's. Either there is an Admission, or there are Params, which say how the password is stretched
// now: whether they are the CA's the caller verifies. There is no session yet then, and Login is to follow within a minute.
func (c *Client) Ask(ctx context.Context, uid string, auth secret.Key, sealed []byte) (out Asked, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	_, err = c.exchangeWithin(ctx, http.MethodPost, pathAsk, nil, AskRequest{uid, auth.Bytes(), sealed}, &out)
	switch {
	case err != nil:
	case (out.Params == nil) == (out.Admission == nil):
		err = errSenseless
	case out.Params != nil:
		err = bearable(*out.Params)
	default:
		err = out.Admission.sensible()
	}
	if err != nil {
		return Asked{}, err
	}
	return out, nil
}

var errSenseless = &Error{Code: CodeRouter, Message: "the router's answer to the login makes no sense"}

// sensible says whether there is a session in it.
func (a *Admission) sensible() error {
	if len(a.Token) != tokenLen || !a.Address.IsValid() {
		return errSenseless
	}
	return nil
}

// LoginOwn proves that the user holds the keys of a certificate of their own. The keys stay the caller's.
func (c *Client) LoginOwn(ctx context.Context, cert *twincert.Certificate, control, data *ecdh.PrivateKey) (Admission, error) {
	var out Admission
	req, err := c.challenged(ctx, cert, control, data)
	if err != nil {
		return out, err
	}
	if err = c.call(ctx, http.MethodPost, pathProve, nil, req, &out); err != nil {
		return out, err
	}
	if !bytes.Equal(out.Certificate, cert.Raw) {
		return out, errSenseless
	}
	return out, out.sensible()
}

// challenged asks for a challenge and answers it.
func (c *Client) challenged(ctx context.Context, cert *twincert.Certificate, control, data *ecdh.PrivateKey) (ProveRequest, error) {
	var ch Challenge
	over, err := c.exchange(ctx, http.MethodPost, pathChallenge, nil, ChallengeRequest{cert.Name}, &ch)
	if err != nil {
		return ProveRequest{}, err
	}
	return answerTo(ch, over, cert, control, data)
}

// answerTo computes what a challenge asks for. What is proved names the router that was authenticated on the challenge's connection, not who it
// says that it is.
func answerTo(ch Challenge, over *tls.ConnectionState, cert *twincert.Certificate, control, data *ecdh.PrivateKey) (ProveRequest, error) {
	bad := func(err error) (ProveRequest, error) {
		return ProveRequest{}, &Error{Code: CodeRouter, Message: "the router's challenge makes no sense", Err: err}
	}
	public, err := ecdh.X25519().NewPublicKey(ch.Public)
	if err != nil || len(ch.Nonce) != nonceLen {
		return bad(err)
	}
	if over == nil || len(over.PeerCertificates) == 0 {
		return bad(identity.ErrServer)
	}
	uri, err := identity.PeerURI(over.PeerCertificates[0])
	router, ok := strings.CutPrefix(uri, "twinkey://router/")
	if err != nil || !ok {
		return bad(err)
	}
	channel, err := channelOf(over)
	if err != nil {
		return bad(err)
	}
	req := ProveRequest{User: cert.Name, Nonce: ch.Nonce, Certificate: cert.Raw}
	transcript := ca.LoginTranscript(router, cert.Name, cert.Raw, ch.Public, ch.Nonce, channel)
	if req.Control, err = ca.Proof(control, public, ca.LabelLoginControl, transcript); err != nil {
		return bad(err)
	}
	if req.Data, err = ca.Proof(data, public, ca.LabelLoginData, transcript); err != nil {
		return bad(err)
	}
	return req, nil
}

// Sign has the router vouch for a tunnel, and says for how long that is good; 0: until the end of the session.
func (c *Client) Sign(ctx context.Context, token []byte, hash [32]byte) (v handshake.Voucher, good time.Duration, err error) {
	var out Voucher
	err = c.call(ctx, http.MethodPost, pathSign, token, SignRequest{hash[:]}, &out)
	v = handshake.Voucher{Router: out.Router, Bound: out.Bound, Signature: out.Signature}
	return v, time.Duration(min(max(out.Good, 0), maxGood)) * time.Millisecond, err
}

// ProveEnd proves beforehand the end of the session on a certificate, against the CA's key as the router tells it. What is proved names the router that was
// authenticated, so it is good for the end of a session at that router, of that certificate, and nothing else. The data key stays the caller's.
func (c *Client) ProveEnd(ctx context.Context, token []byte, cert *twincert.Certificate, data *ecdh.PrivateKey, key []byte) error {
	c.mu.Lock()
	router := c.router
	c.mu.Unlock()
	public, err := ecdh.X25519().NewPublicKey(key)
	if err != nil || router == "" {
		return &Error{Code: CodeRouter, Message: "the key that the router names for the end of the session makes no sense", Err: err}
	}
	proof, err := ca.CloseProof(data, public, router, cert.Raw)
	if err != nil {
		return &Error{Code: CodeRouter, Message: "the key that the router names for the end of the session makes no sense", Err: err}
	}
	return c.call(ctx, http.MethodPost, pathClose, token, CloseRequest{cert.Serial.String(), proof}, nil)
}

// Logout ends the session.
func (c *Client) Logout(ctx context.Context, token []byte) error {
	return c.call(ctx, http.MethodPost, pathLogout, token, nil, nil)
}

// Watch yields what the router tells until the session or ctx ends or the stream fails; then it yields one error, unless the
// last word was Ended.
func (c *Client) Watch(ctx context.Context, token []byte) iter.Seq2[Word, error] {
	return func(yield func(Word, error) bool) {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		quiet := time.AfterFunc(silence, func() { cancel(errSilent) })
		defer quiet.Stop()
		res, err := c.send(ctx, http.MethodGet, pathWatch, token, nil)
		if err != nil {
			yield(Word{}, err)
			return
		}
		defer func() { _ = res.Body.Close() }()
		lines := bufio.NewScanner(res.Body)
		lines.Buffer(nil, maxWord)
		for lines.Scan() {
			quiet.Reset(silence)
			w, err := parseWord(lines.Bytes())
			if err != nil {
				yield(Word{}, &Error{Code: CodeUnavailable, Message: "the router's words make no sense", Err: err})
				return
			}
			if !yield(w, nil) || w.Ended != "" {
				return
			}
		}
		err = lines.Err()
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		if err == nil {
			err = io.ErrUnexpectedEOF
		}
		yield(Word{}, &Error{Code: CodeUnavailable, Message: "the router in front was lost", Err: err})
	}
}

var errSilent = errors.New("nothing was heard of it")

// parseWord reads one line of a watch. Fields of a newer router are passed over.
func parseWord(line []byte) (w Word, err error) {
	err = json.Unmarshal(line, &w)
	return w, err
}

// call sends in, if any, and reads the answer into out.
func (c *Client) call(ctx context.Context, method, path string, token []byte, in, out any) error {
	_, err := c.exchange(ctx, method, path, token, in, out)
	return err
}

// exchange is a call that says over which connection it went.
func (c *Client) exchange(ctx context.Context, method, path string, token []byte, in, out any) (*tls.ConnectionState, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	return c.exchangeWithin(ctx, method, path, token, in, out)
}

// exchangeWithin is one that lasts as long as ctx.
func (c *Client) exchangeWithin(ctx context.Context, method, path string, token []byte, in, out any) (*tls.ConnectionState, error) {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return nil, &Error{Code: CodeInvalid, Err: err}
		}
		defer clear(body) // it may hold a proof
	}
	res, err := c.send(ctx, method, path, token, body)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err == nil && len(b) > maxAnswer {
		err = errors.New("it is too long")
	}
	if err == nil && out != nil {
		err = json.Unmarshal(b, out)
	}
	if err != nil {
		return nil, &Error{Code: CodeUnavailable, Message: "the router's answer cannot be read", Err: err}
	}
	return res.TLS, nil
}

// send returns a response with status 200 or 204.
func (c *Client) send(ctx context.Context, method, path string, token, body []byte) (*http.Response, error) {
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: c.got})
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, &Error{Code: CodeInvalid, Message: "no router can be there", Err: err}
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if token != nil {
		req.Header.Set("Authorization", bearer(token))
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, transportError(err)
	}
	if res.StatusCode == http.StatusOK || res.StatusCode == http.StatusNoContent {
		return res, nil
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err != nil {
		return nil, transportError(err)
	}
	var r refusal
	if err := json.Unmarshal(b, &r); err != nil || r.Code == "" {
		return nil, &Error{Code: CodeUnavailable, Message: fmt.Sprintf("unexpected answer %q", res.Status)}
	}
	return nil, &Error{Code: r.Code, Message: r.Message, RetryAfter: time.Duration(r.RetryAfterMS) * time.Millisecond}
}

// transportError tells a server that is no router of the company from one that is not there.
func transportError(err error) error {
	_, stranger := errors.AsType[x509.UnknownAuthorityError](err)
	_, invalid := errors.AsType[x509.CertificateInvalidError](err)
	if stranger || invalid || errors.Is(err, identity.ErrServer) || errors.Is(err, identity.ErrURI) {
		return &Error{Code: CodeRouter, Message: "whoever answers is no router of the company", Err: err}
	}
	return &Error{Code: CodeUnavailable, Message: "the router cannot be reached", Err: err}
}

// Intermediates are those of candidates that hang from root. A router shows them, and could show others: with one of its own
// making it could forge certificates and CRLs.
func Intermediates(root *x509.Certificate, candidates []*x509.Certificate, now time.Time) []*x509.Certificate {
	roots, all := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(root)
	for _, c := range candidates {
		all.AddCert(c)
	}
	var good []*x509.Certificate
	for _, c := range candidates {
		o := x509.VerifyOptions{Roots: roots, Intermediates: all, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
		if _, err := c.Verify(o); err == nil && c.IsCA && c.BasicConstraintsValid {
			good = append(good, c)
		}
	}
	return good
}
