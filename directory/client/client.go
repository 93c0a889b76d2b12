package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"twinkey/pkg/lockout"
	"twinkey/proto/secret"
)

const (
	dialTimeout   = 5 * time.Second
	answerTimeout = 30 * time.Second // of a whole call, when the context has no earlier deadline
	idleTimeout   = 30 * time.Second // short, so that a renewed certificate comes into use
	// maxIdle is for a morning on which many log in at once: a handshake costs either side more than a login.
	maxIdle = 16
)

// Client asks one directory. It is safe for concurrent use.
type Client struct {
	base string
	http *http.Client
}

// New returns a client of the directory at url, such as "https://hq.example:8702". The
// configuration must check that the server is the directory; identity.ClientTLS does.
func New(url string, tlsConfig *tls.Config) *Client {
	t := &http.Transport{
		DialContext:            (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSClientConfig:        tlsConfig,
		TLSHandshakeTimeout:    dialTimeout,
		IdleConnTimeout:        idleTimeout,
		MaxIdleConnsPerHost:    maxIdle,
		MaxResponseHeaderBytes: 16 << 10,
		DisableCompression:     true,
	}
	return &Client{base: strings.TrimRight(url, "/"), http: &http.Client{
		Transport:     t,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// CloseIdle closes connections that nobody uses.
func (c *Client) CloseIdle() { c.http.CloseIdleConnections() }

// Apply commits ch as one transaction. It may be called again with the same content
// after any failure whose outcome is unknown. CA only.
func (c *Client) Apply(ctx context.Context, ch Change) error {
	var out AppliedBody
	return c.call(ctx, "applying a change to the directory", http.MethodPost, PathChanges, ch, &out)
}

// Has says whether a change was applied. CA only.
func (c *Client) Has(ctx context.Context, changeID string) (bool, error) {
	var out AppliedBody
	err := c.call(ctx, "asking the directory for a change", http.MethodGet, PathChanges+"/"+url.PathEscape(changeID), nil, &out)
	return out.Applied, err
}

// Sites returns every router whose certificate is not revoked, and the revision to watch
// from. Whether a certificate is valid now is for the caller to see: a directory whose
// clock has jumped must not empty everybody's site map.
func (c *Client) Sites(ctx context.Context) ([]Site, Revision, error) {
	var out SitesBody
	err := c.call(ctx, "fetching the site map", http.MethodGet, PathSites, nil, &out)
	return out.Sites, out.Revision, err
}

// Announce states where the calling router is reached ("ip:port"; empty: it cannot be
// dialled) and which prefixes lie behind it. It fails with ErrDenied if its certificate
// does not cover one of them. Announcing the same again costs no revision.
func (c *Client) Announce(ctx context.Context, endpoint string, prefixes []netip.Prefix) error {
	return c.call(ctx, "announcing this site", http.MethodPut, PathSite, AnnounceBody{endpoint, prefixes}, nil)
}

// CRL returns the newest CRL, DER; ErrNotFound before the first.
func (c *Client) CRL(ctx context.Context) ([]byte, error) {
	var out []byte
	err := c.call(ctx, "fetching the CRL", http.MethodGet, PathCRL, nil, &out)
	return out, err
}

// Revoked returns all revocations.
func (c *Client) Revoked(ctx context.Context) ([]Revocation, error) {
	var out []Revocation
	err := c.call(ctx, "fetching the revocations", http.MethodGet, PathRevocations, nil, &out)
	return out, err
}

// LoginParams says how uid's password is to be stretched. Unknown users get parameters
// that look alike and stay the same.
func (c *Client) LoginParams(ctx context.Context, uid string) (LoginParams, error) {
	var out LoginParams
	const op = "asking how to check a password"
	if err := c.call(ctx, op, http.MethodPost, PathParams, ParamsBody{uid}, &out); err != nil {
		return LoginParams{}, err
	}
	if err := out.Check(); err != nil {
		return LoginParams{}, &Error{Op: op, Code: CodeUnavailable, Err: err}
	}
	return out, nil
}

// Release proves uid's password and returns the sealed keys. It fails with ErrDenied for
// every cause that concerns the user, with ErrLocked after too many of these. auth stays
// the caller's to wipe.
func (c *Client) Release(ctx context.Context, uid string, auth secret.Key) (Release, error) {
	var out Release
	err := c.call(ctx, "asking for a user's keys", http.MethodPost, PathRelease, ReleaseBody{uid, auth.Bytes()}, &out)
	return out, err
}

// Own asks whether a user may log in by the certificate whose keys they have proved to the calling router. It fails as
// Release does, and has the login noted.
func (c *Client) Own(ctx context.Context, l OwnLogin) error {
	return c.call(ctx, "asking about a user with keys of their own", http.MethodPost, PathOwn, l, nil)
}

// Reseal changes a user's password. It fails as Release does where the old proof or the user is not good, with
// ErrConflict if the user has other keys by now than those that were sealed, with ErrInvalid if what the new
// password yields is not taken. r.Auth stays the caller's to wipe.
func (c *Client) Reseal(ctx context.Context, r Reseal) error {
	return c.call(ctx, "changing a password", http.MethodPost, PathReseal, r, nil)
}

// Successors asks, for users whose keys the calling router holds, whether they have been certified anew; the
// answers are in the order of the question, at most MaxHoldings at a time. No password is shown: what is answered opens
// with a data key alone.
func (c *Client) Successors(ctx context.Context, holdings []Holding) ([]Held, error) {
	var out []Held
	const op = "asking for users' newer certificates"
	if err := c.call(ctx, op, http.MethodPost, PathSuccessors, HoldingsBody{holdings}, &out); err != nil {
		return nil, err
	}
	if len(out) != len(holdings) {
		return nil, &Error{Op: op, Code: CodeUnavailable, Message: "not as many answers as were asked for"}
	}
	return out, nil
}

// ReportCalls tells what became of calls of the calling router. Of records that it has told before, by their numbers in this run,
// nothing is noted again.
func (c *Client) ReportCalls(ctx context.Context, run string, records []CallRecord) error {
	return c.call(ctx, "accounting for calls", http.MethodPost, PathCalls, CallsBody{run, records}, nil)
}

// Vouch has sealed keys of a user of a source released to one router for a short while. It fails with ErrConflict if the
// directory has no such user, source, router or certificate. CA only.
func (c *Client) Vouch(ctx context.Context, v Vouch) error {
	return c.call(ctx, "vouching for a user", http.MethodPost, PathVouches, v, nil)
}

// Refused has it noted that a login was refused before the directory was asked for keys. CA only.
func (c *Client) Refused(ctx context.Context, r Refusal) error {
	return c.call(ctx, "noting a refusal", http.MethodPost, PathRefusals, r, nil)
}

// UserCalls returns what routers have told of calls of a source's users after record number after, oldest first and MaxCalls at
// the most, and lets the directory forget what came up to there. CA only.
func (c *Client) UserCalls(ctx context.Context, source string, after uint64) (UserCalls, error) {
	var out UserCalls
	err := c.call(ctx, "asking for the calls of users", http.MethodPost, PathUserCalls, UserCallsBody{source, after}, &out)
	return out, err
}

// Locks lists which logins are locked at the directory. CA only.
func (c *Client) Locks(ctx context.Context) ([]lockout.Lock, error) {
	var out []lockout.Lock
	err := c.call(ctx, "asking the directory which logins are locked", http.MethodGet, PathLocks, nil, &out)
	return out, err
}

// Unlock releases locks and returns those that held. CA only.
func (c *Client) Unlock(ctx context.Context, u Unlock) ([]lockout.Lock, error) {
	var out []lockout.Lock
	err := c.call(ctx, "unlocking logins at the directory", http.MethodPost, PathUnlock, u, &out)
	return out, err
}

// Health returns nil if the directory answers.
func (c *Client) Health(ctx context.Context) error {
	return c.call(ctx, "asking the directory's health", http.MethodGet, PathHealth, nil, nil)
}

// call sends in, if any, as JSON and reads the answer into out: raw into a *[]byte, as
// JSON otherwise.
func (c *Client) call(ctx context.Context, op, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	body, wipe, err := encode(in)
	if err != nil {
		return &Error{Op: op, Code: CodeInvalid, Err: err}
	}
	defer wipe()
	res, err := c.send(ctx, op, method, path, body)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	return decode(op, res.Body, out)
}

func encode(in any) (body []byte, wipe func(), err error) {
	if in == nil {
		return nil, func() {}, nil
	}
	body, err = json.Marshal(in)
	return body, func() { clear(body) }, err // a release holds a password proof
}

// send returns a response with status 200 or 204, or an error that tells why not.
func (c *Client) send(ctx context.Context, op, method, path string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, &Error{Op: op, Code: CodeInvalid, Err: err}
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, &Error{Op: op, Code: CodeUnavailable, Err: err}
	}
	if res.StatusCode == http.StatusOK || res.StatusCode == http.StatusNoContent {
		return res, nil
	}
	defer func() { _ = res.Body.Close() }()
	return nil, refusal(op, res)
}

func refusal(op string, res *http.Response) error {
	b, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err != nil {
		return &Error{Op: op, Code: CodeUnavailable, Err: err}
	}
	var e ErrorBody
	if err := json.Unmarshal(b, &e); err != nil || e.Error.Code == "" {
		return &Error{Op: op, Code: CodeUnavailable, Message: fmt.Sprintf("unexpected answer %q", res.Status)}
	}
	return &Error{Op: op, Code: e.Error.Code, Message: e.Error.Message,
		RetryAfter: time.Duration(e.Error.RetryAfterMS) * time.Millisecond}
}

func decode(op string, r io.Reader, out any) error {
	if out == nil {
		return nil
	}
	b, err := io.ReadAll(io.LimitReader(r, maxAnswer+1))
	if err == nil && len(b) > maxAnswer {
		err = errors.New("answer too large")
	}
	if err != nil {
		return &Error{Op: op, Code: CodeUnavailable, Err: err}
	}
	if raw, ok := out.(*[]byte); ok {
		*raw = b
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return &Error{Op: op, Code: CodeUnavailable, Err: fmt.Errorf("decoding the answer: %w", err)}
	}
	return nil
}
