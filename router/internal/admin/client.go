package admin

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
)

// Client speaks to a running router. It implements Router.
type Client struct {
	path string
	http http.Client
}

// NewClient returns a client of the socket at path.
func NewClient(path string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}
	return &Client{path: path, http: http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
}

// Status implements Router.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return call[Status](ctx, c, http.MethodGet, "/status", nil)
}

// Portal implements Router.
func (c *Client) Portal(ctx context.Context) (Portal, error) {
	return call[Portal](ctx, c, http.MethodGet, "/portal", nil)
}

// Login implements Router.
func (c *Client) Login(ctx context.Context, l Login) (Call, error) {
	bare := l
	bare.Password = nil
	return call[Call](ctx, c, http.MethodPost, "/login", bare, field{"password", l.Password})
}

// Hangup implements Router.
func (c *Client) Hangup(ctx context.Context, h Hangup) (Ended, error) {
	return call[Ended](ctx, c, http.MethodPost, "/hangup", h)
}

// Passwd implements Router.
func (c *Client) Passwd(ctx context.Context, p Passwd) error {
	_, err := call[struct{}](ctx, c, http.MethodPost, "/passwd", Passwd{User: p.User}, field{"password", p.Password}, field{"new", p.New})
	return err
}

// Reload implements Router.
func (c *Client) Reload(ctx context.Context) error {
	_, err := call[struct{}](ctx, c, http.MethodPost, "/reload", nil)
	return err
}

// field is one of a request's that nobody else shall have a copy of.
type field struct {
	name  string
	value []byte
}

// encode is the JSON object of in, which has a field at least, with secrets beside. These are not for json.Marshal, which keeps what it has
// encoded in buffers of its own. The result is the caller's to wipe.
func encode(in any, secrets []field) ([]byte, error) {
	bare, err := json.Marshal(in)
	if err != nil {
		return nil, fmt.Errorf("encoding a request to the router: %w", err)
	}
	size := len(bare)
	for _, s := range secrets {
		size += len(s.name) + len(`,"":""`) + base64.StdEncoding.EncodedLen(len(s.value))
	}
	b := append(make([]byte, 0, size), bare[:len(bare)-1]...) // it never grows, which would leave a copy behind
	for _, s := range secrets {
		b = append(b, `,"`+s.name+`":"`...)
		b = append(base64.StdEncoding.AppendEncode(b, s.value), '"')
	}
	return append(b, '}'), nil
}

func call[Out any](ctx context.Context, c *Client, method, path string, in any, secrets ...field) (out Out, err error) {
	var body io.Reader
	if in != nil {
		b, err := encode(in, secrets)
		if err != nil {
			return out, err
		}
		defer clear(b)
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://router"+path, body)
	if err != nil {
		return out, fmt.Errorf("asking the router: %w", err)
	}
	resp, err := c.http.Do(req)
	switch {
	case errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED):
		return out, &Error{What: fmt.Sprintf("no router is running on %s", c.path), Hint: "start it with `twinkey-router up`, or name its state directory with --state", Err: ErrNotRunning}
	case errors.Is(err, os.ErrPermission):
		return out, &Error{What: fmt.Sprintf("may not open %s", c.path), Hint: "run as the user that the router runs as", Err: ErrDenied}
	case err != nil:
		return out, fmt.Errorf("asking the router on %s: %w", c.path, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		e := &Error{}
		if err := json.NewDecoder(resp.Body).Decode(e); err != nil || e.What == "" {
			return out, fmt.Errorf("asking the router on %s: %s", c.path, resp.Status)
		}
		return out, e
	}
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
		return out, fmt.Errorf("reading the router's answer: %w", err)
	}
	return out, nil
}
