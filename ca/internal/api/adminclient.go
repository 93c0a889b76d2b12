package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	caclient "twinkey/ca/client"
	"twinkey/ca/internal/home"
)

// ErrNotRunning says that no CA runs in a home.
var ErrNotRunning = errors.New("the CA is not running")

const (
	adminTimeout = 2 * time.Minute // longer than any answer may take
	maxAnswer    = 64 << 20
)

// Admin speaks to a running CA through its operator's socket.
type Admin struct{ http *http.Client }

// NewAdmin returns a client of the CA whose home is dir.
func NewAdmin(dir string) *Admin {
	return &Admin{&http.Client{Timeout: adminTimeout, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", home.Socket(dir))
		},
	}}}
}

// Close closes idle connections.
func (a *Admin) Close() { a.http.CloseIdleConnections() }

// Get asks for what is at path, such as /v1/status, and reads it into out.
func (a *Admin) Get(ctx context.Context, out any, path ...string) error {
	return a.call(ctx, http.MethodGet, nil, out, path...)
}

// Query is Get with parameters.
func (a *Admin) Query(ctx context.Context, out any, q url.Values, path ...string) error {
	return a.ask(ctx, http.MethodGet, q, nil, out, path...)
}

// Post sends in to path and reads the answer into out.
func (a *Admin) Post(ctx context.Context, in, out any, path ...string) error {
	return a.call(ctx, http.MethodPost, in, out, path...)
}

func (a *Admin) call(ctx context.Context, method string, in, out any, path ...string) error {
	return a.ask(ctx, method, nil, in, out, path...)
}

func (a *Admin) ask(ctx context.Context, method string, q url.Values, in, out any, path ...string) error {
	u, err := url.JoinPath("http://ca/v1", escaped(path)...)
	if err != nil {
		return fmt.Errorf("asking the CA: %w", err)
	}
	if len(q) > 0 {
		u += "?" + q.Encode()
	}
	var body []byte
	if in != nil {
		if body, err = json.Marshal(in); err != nil {
			return fmt.Errorf("asking the CA: %w", err)
		}
		defer clear(body) // it may hold a sealing key
	}
	req, err := http.NewRequestWithContext(ctx, method, u, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("asking the CA: %w", err)
	}
	res, err := a.http.Do(req)
	if err != nil {
		if _, ok := errors.AsType[*net.OpError](err); ok {
			return fmt.Errorf("%w: %w", ErrNotRunning, err)
		}
		return fmt.Errorf("asking the CA: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("asking the CA: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		var e caclient.ErrorBody
		if err := json.Unmarshal(b, &e); err != nil || e.Error.Code == "" {
			return fmt.Errorf("asking the CA: it answered %s", res.Status)
		}
		return &Refusal{Code: e.Error.Code, Message: e.Error.Message}
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("asking the CA: decoding its answer: %w", err)
	}
	return nil
}

func escaped(path []string) []string {
	out := make([]string, len(path))
	for i, p := range path {
		out[i] = url.PathEscape(p)
	}
	return out
}

// Refusal is a command that the CA refused. Code is one of ca/client's.
type Refusal struct{ Code, Message string }

func (r *Refusal) Error() string { return r.Message }
