package client

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"twinkey/pkg/identity"
	"twinkey/pkg/sealedlogin"
	"twinkey/pkg/twincert"
	"twinkey/proto/secret"
)

// caURI is who the CA has to be.
const caURI = sealedlogin.Signer

const (
	dialTimeout   = 5 * time.Second
	answerTimeout = 60 * time.Second // the CA may wait for the directory before it answers
	tries         = 3                // with the same keys, when an answer was lost
	tryAgain      = time.Second
)

// Options of Enroll and Renew. The zero value will do.
type Options struct {
	// Hosts are DNS names and IP addresses wanted in the TLS certificate; the CA grants
	// those that the token or the old certificate names.
	Hosts []string
	// Role that the token has to be for; empty: any. A token for another is not spent.
	Role string
	// Now is the box's clock; nil means time.Now.
	Now func() time.Time
}

func (o Options) now() time.Time {
	if o.Now != nil {
		return o.Now()
	}
	return time.Now()
}

// Enroll makes the keys of a box and has the CA certify them. rootFingerprint is the
// SHA-256 of the root certificate's DER in hex, colons and case do not matter; it alone
// says whom to trust. The token works once; Enroll itself tries again with the same keys
// when an answer was lost.
func Enroll(ctx context.Context, caURL, rootFingerprint, token string, o Options) (identity.Bundle, Endpoints, error) {
	none := func(err error) (identity.Bundle, Endpoints, error) { return identity.Bundle{}, Endpoints{}, err }
	role, roots, err := firstContact(ctx, caURL, rootFingerprint, token, o.Role)
	if err != nil {
		return none(err)
	}
	k, err := newKeys(role == "router")
	if err != nil {
		return none(err)
	}
	s := newSession(caURL, trusting(roots))
	defer s.close()
	a, err := s.certify(ctx, opEnroll, PathEnroll, k, token, o)
	if err != nil {
		return none(err)
	}
	b, err := k.bundle(a)
	if err == nil {
		err = checkBundle(b, roots, o.now())
	}
	if err != nil {
		return none(fmt.Errorf("%s: %w", opEnroll, err))
	}
	return b, a.Endpoints, nil
}

const opEnroll = "enrolling"

// firstContact looks at a token, which is to be for role if that is not empty, and fetches the root to trust. Nothing is
// spent yet.
func firstContact(ctx context.Context, caURL, rootFingerprint, token, want string) (role string, roots *x509.CertPool, err error) {
	refuse := func(err error) (string, *x509.CertPool, error) {
		return "", nil, &Error{Op: opEnroll, Code: CodeInvalid, Err: err}
	}
	role, ok := tokenRole(token)
	switch {
	case !ok:
		return refuse(errors.New("that is no enrolment token: it begins with " + TokenPrefix))
	case want != "" && role != want:
		return refuse(fmt.Errorf("the token is for a %s, not for a %s", role, want))
	case !strings.HasPrefix(caURL, "https://"):
		return refuse(fmt.Errorf("%q is no https:// URL", caURL))
	}
	root, err := fetchRoot(ctx, caURL, rootFingerprint)
	if err != nil {
		return "", nil, err
	}
	return role, pool([]*x509.Certificate{root}), nil
}

// trusting is the configuration of a client without a certificate that talks to the CA under roots alone.
func trusting(roots *x509.CertPool) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		// Chain and name are checked below.
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection does all of it and more
		VerifyConnection:   func(cs tls.ConnectionState) error { return identity.VerifyServer(cs, roots, caURI) },
	}
}

// Renew makes new keys for the box that id is and has them certified under its old TLS
// certificate, which may have expired within the CA's grace. It does not touch id.
func Renew(ctx context.Context, caURL string, id *identity.Identity, o Options) (identity.Bundle, error) {
	const op = "renewing certificates"
	k, err := newKeys(id.Role() == "router")
	if err != nil {
		return identity.Bundle{}, err
	}
	s := newSession(caURL, id.ClientTLS(caURI))
	defer s.close()
	a, err := s.certify(ctx, op, PathRenew, k, "", o)
	if err != nil {
		return identity.Bundle{}, err
	}
	b, err := k.bundle(a)
	if err == nil {
		err = checkBundle(b, pool(id.Bundle().Roots), o.now())
	}
	if err == nil {
		err = sameBearer(b.TLS.Leaf, id.Bundle().TLS.Leaf)
	}
	if err != nil {
		return identity.Bundle{}, fmt.Errorf("%s: %w", op, err)
	}
	return b, nil
}

// FetchTrust returns the CA's roots and intermediates as it has them now, and the
// company's endpoints. id's own roots say whether to believe it.
func FetchTrust(ctx context.Context, caURL string, id *identity.Identity) (roots, intermediates []*x509.Certificate, ends Endpoints, err error) {
	s := newSession(caURL, id.ClientTLS(caURI))
	defer s.close()
	var t Trust
	if err := s.call(ctx, "asking whom to trust", http.MethodGet, PathTrust, nil, &t); err != nil {
		return nil, nil, Endpoints{}, err
	}
	if roots, err = parseAll(t.Roots); err != nil {
		return nil, nil, Endpoints{}, err
	}
	intermediates, err = parseAll(t.Intermediates)
	return roots, intermediates, t.Endpoints, err
}

// PutAnswer puts a router's answer to an ACME challenge at the CA, which takes it for names and addresses that the router may have.
func PutAnswer(ctx context.Context, caURL string, id *identity.Identity, a ChallengeAnswer) error {
	s := newSession(caURL, id.ClientTLS(caURI))
	defer s.close()
	return s.call(ctx, "answering for "+a.Identifier, http.MethodPut, PathAnswer, a, &struct{}{})
}

// HTTP is a client for the CA's ACME endpoint (PathACME), which is for routers alone.
func HTTP(caURL string, id *identity.Identity) *http.Client {
	return newSession(caURL, id.ClientTLS(caURI)).http
}

// AskLogin asks the CA whether the password of uid is right: for users whom a source of the
// company authenticates, and who get their keys on the way. The router that asks is known by
// id. Besides ErrUnavailable there are ErrDenied for whatever concerns the user, ErrLocked, ErrTooMany and
// ErrSource. The password stays the caller's to wipe.
func AskLogin(ctx context.Context, caURL string, id *identity.Identity, uid string, password []byte) (Admission, error) {
	return askLogin(ctx, caURL, id, Login{UID: uid, Password: password})
}

// AskSealed is AskLogin with a password that the user's own machine has sealed. ErrLoginKey says that it is to be sealed to
// another login key: FetchLoginKey.
func AskSealed(ctx context.Context, caURL string, id *identity.Identity, uid string, sealed []byte) (Admission, error) {
	return askLogin(ctx, caURL, id, Login{UID: uid, Sealed: sealed})
}

func askLogin(ctx context.Context, caURL string, id *identity.Identity, l Login) (Admission, error) {
	const op = "asking the CA about a password"
	s := newSession(caURL, id.ClientTLS(caURI))
	defer s.close()
	var a Admission
	err := s.call(ctx, op, http.MethodPost, PathLogin, l, &a)
	if e, ok := errors.AsType[*Error](err); ok && e.Err != nil && e.Code == CodeDenied {
		e.Code = CodeUnavailable // somebody else answers at the CA's address: that speaks against nobody's password
	}
	if err != nil {
		return Admission{}, err
	}
	if err := a.Params.Check(); err != nil || a.SessionMS < 0 {
		return Admission{}, &Error{Op: op, Code: CodeUnavailable, Err: fmt.Errorf("%w: parameters or session out of bounds", ErrAnswer)}
	}
	return a, nil
}

// FetchLoginKey asks for the CA's word for the key that passwords are sealed to now; nil: it has no sources. Who seals to it has to
// verify it: see package sealedlogin.
func FetchLoginKey(ctx context.Context, caURL string, id *identity.Identity) ([]byte, error) {
	s := newSession(caURL, id.ClientTLS(caURI))
	defer s.close()
	var k LoginKey
	if err := s.call(ctx, "asking the CA for a login key", http.MethodGet, PathLoginKey, nil, &k); err != nil {
		return nil, err
	}
	return k.Statement, nil
}

// tokenRole reads the role that a token is for.
func tokenRole(token string) (string, bool) {
	rest, ok := strings.CutPrefix(token, TokenPrefix)
	if !ok {
		return "", false
	}
	role, random, ok := strings.Cut(rest, ".")
	return role, ok && role != "" && random != ""
}

// checkBundle holds what the CA answered against the roots that we trust already: the
// roots in the answer count for later, not for this.
func checkBundle(b identity.Bundle, roots *x509.CertPool, now time.Time) error {
	if key, ok := b.TLS.PrivateKey.(*ecdsa.PrivateKey); !ok || !key.PublicKey.Equal(b.TLS.Leaf.PublicKey) {
		return fmt.Errorf("%w: the TLS certificate is for another key", ErrAnswer)
	}
	inter := pool(b.Intermediates)
	opts := x509.VerifyOptions{Roots: roots, Intermediates: inter, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if _, err := b.TLS.Leaf.Verify(opts); err != nil {
		return fmt.Errorf("%w: the TLS certificate: %w%s", ErrAnswer, err, clockHint(err))
	}
	if b.Twin == nil {
		return nil
	}
	if !bytes.Equal(b.Twin.Keys.Control[:], public(b.Control)) || !bytes.Equal(b.Twin.Keys.Data[:], public(b.Data)) {
		return fmt.Errorf("%w: the twin certificate is for other keys", ErrAnswer)
	}
	err := b.Twin.Verify(twincert.VerifyOptions{Roots: roots, Intermediates: inter, Now: now, Role: twincert.Router, AllowUnknownRevocation: true})
	if err != nil {
		return fmt.Errorf("%w: the twin certificate: %w%s", ErrAnswer, err, clockHint(err))
	}
	return nil
}

// public is the X25519 public key of priv; nil if priv is none.
func public(priv secret.Key) []byte {
	k, err := ecdh.X25519().NewPrivateKey(priv.Bytes())
	if err != nil {
		return nil
	}
	return k.PublicKey().Bytes()
}

func clockHint(err error) string {
	invalid, ok := errors.AsType[x509.CertificateInvalidError](err)
	if ok && invalid.Reason == x509.Expired || errors.Is(err, twincert.ErrExpired) || errors.Is(err, twincert.ErrNotYetValid) {
		return " (is this box's clock right?)"
	}
	return ""
}

func sameBearer(got, old *x509.Certificate) error {
	was, err := identity.PeerURI(old)
	if err != nil {
		return err
	}
	is, err := identity.PeerURI(got)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	if is != was {
		return fmt.Errorf("%w: it names %s, not %s", ErrAnswer, is, was)
	}
	return nil
}

// FetchCRL fetches the CA's newest CRL, DER, from the CA itself. Whether it is to be believed its signature says.
func FetchCRL(ctx context.Context, caURL string, id *identity.Identity) ([]byte, error) {
	s := newSession(caURL, id.ClientTLS(caURI))
	defer s.close()
	var der []byte
	err := s.call(ctx, "fetching the CA's CRL", http.MethodGet, PathCRL, nil, &der)
	return der, err
}

// fetchRoot asks a server that nothing is known of yet for its roots and returns the one
// with the fingerprint. The transport is not trusted and need not be.
func fetchRoot(ctx context.Context, caURL, fingerprint string) (*x509.Certificate, error) {
	const op = "fetching the CA's root"
	want, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(fingerprint), ":", ""))
	if err != nil || len(want) != sha256.Size {
		return nil, &Error{Op: op, Code: CodeInvalid, Err: fmt.Errorf("a root's fingerprint is %d hexadecimal digits", 2*sha256.Size)}
	}
	s := newSession(caURL, &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, //nolint:gosec // the fingerprint below decides
	})
	defer s.close()
	var answer struct {
		Certificates []string `json:"crts"` // PEM
	}
	if err := s.call(ctx, op, http.MethodGet, PathRoots, nil, &answer); err != nil {
		return nil, err
	}
	for _, text := range answer.Certificates {
		block, _ := pem.Decode([]byte(text))
		if block == nil {
			continue
		}
		if sum := sha256.Sum256(block.Bytes); !bytes.Equal(sum[:], want) {
			continue
		}
		root, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, &Error{Op: op, Code: CodeUnavailable, Err: fmt.Errorf("%w: %w", ErrAnswer, err)}
		}
		return root, nil
	}
	return nil, &Error{Op: op, Code: CodeDenied, Err: ErrFingerprint}
}

// session is a few calls to one CA.
type session struct {
	base string
	http *http.Client
}

func newSession(base string, c *tls.Config) *session {
	return &session{base: strings.TrimRight(base, "/"), http: &http.Client{
		Transport: &http.Transport{
			DialContext:            (&net.Dialer{Timeout: dialTimeout}).DialContext,
			TLSClientConfig:        c,
			TLSHandshakeTimeout:    dialTimeout,
			MaxResponseHeaderBytes: 16 << 10,
			DisableCompression:     true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

func (s *session) close() { s.http.CloseIdleConnections() }

// certify proves k and has it certified, and asks again if an answer was lost.
func (s *session) certify(ctx context.Context, op, path string, k keys, token string, o Options) (*Answer, error) {
	r, err := k.request(o.Hosts)
	if err != nil {
		return nil, err
	}
	r.Token = token
	for try := 1; ; try++ {
		a, err := s.certifyOnce(ctx, op, path, k, r)
		if err == nil || try == tries || !errors.Is(err, ErrUnavailable) {
			return a, err
		}
		select {
		case <-time.After(tryAgain):
		case <-ctx.Done():
			return nil, err
		}
	}
}

func (s *session) certifyOnce(ctx context.Context, op, path string, k keys, r *Request) (*Answer, error) {
	var c Challenge
	if err := s.call(ctx, op, http.MethodPost, PathChallenge, nil, &c); err != nil {
		return nil, err
	}
	if err := k.prove(r, c); err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	var a Answer
	if err := s.call(ctx, op, http.MethodPost, path, r, &a); err != nil {
		return nil, err
	}
	return &a, nil
}

func (s *session) call(ctx context.Context, op, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	body, err := encode(in)
	if err != nil {
		return &Error{Op: op, Code: CodeInvalid, Err: err}
	}
	defer clear(body) // a login holds a password
	req, err := http.NewRequestWithContext(ctx, method, s.base+path, bytes.NewReader(body))
	if err != nil {
		return &Error{Op: op, Code: CodeInvalid, Err: err}
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := s.http.Do(req)
	if err != nil {
		return &Error{Op: op, Code: transportCode(err), Err: err}
	}
	defer func() { _ = res.Body.Close() }()
	raw, isRaw := out.(*[]byte)
	most := maxAnswer
	if isRaw {
		most = twincert.MaxCRLSize
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, int64(most)+1))
	if err == nil && len(b) > most {
		err = errors.New("answer too large")
	}
	if err != nil {
		return &Error{Op: op, Code: CodeUnavailable, Err: err}
	}
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return refusal(op, res.Status, b)
	}
	if isRaw {
		*raw = b
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return &Error{Op: op, Code: CodeUnavailable, Err: fmt.Errorf("%w: %w", ErrAnswer, err)}
	}
	return nil
}

// encode is the JSON of in, if there is any. A password is none of json.Marshal's business, which keeps what it has encoded in
// buffers of its own.
func encode(in any) ([]byte, error) {
	if in == nil {
		return nil, nil
	}
	l, isLogin := in.(Login)
	if !isLogin || l.Sealed != nil {
		return json.Marshal(in)
	}
	uid, err := json.Marshal(l.UID)
	if err != nil {
		return nil, err
	}
	const before, between, after = `{"uid":`, `,"password":"`, `"}`
	b := make([]byte, 0, len(before)+len(uid)+len(between)+base64.StdEncoding.EncodedLen(len(l.Password))+len(after)) // it never grows
	b = append(append(append(b, before...), uid...), between...)
	return append(base64.StdEncoding.AppendEncode(b, l.Password), after...), nil
}

// transportCode tells a server that is not the CA from one that is not there.
func transportCode(err error) string {
	if errors.Is(err, identity.ErrServer) || errors.Is(err, identity.ErrURI) {
		return CodeDenied
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return CodeDenied
	}
	return CodeUnavailable
}

func refusal(op, status string, b []byte) error {
	var e ErrorBody
	if err := json.Unmarshal(b, &e); err != nil || e.Error.Code == "" {
		return &Error{Op: op, Code: CodeUnavailable, Message: fmt.Sprintf("unexpected answer %q", status)}
	}
	return &Error{Op: op, Code: e.Error.Code, Message: e.Error.Message, RetryAfter: time.Duration(e.Error.RetryAfterMS) * time.Millisecond}
}
