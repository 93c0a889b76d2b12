package ldap

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/go-ldap/ldap/v3"
)

// How many bytes a server may send between one call of allow and the next. The library makes a hundred times as much of them in
// memory, if they are chosen badly.
const (
	maxHello  = 64 << 10 // before it is known who the server is: the answer to StartTLS, and the handshake
	maxAnswer = 1 << 20  // more than any entry that can be a person, with all their groups
)

var errFlood = errors.New("the server sends more than any answer can be")

// conn is a connection to a server.
type conn struct {
	*ldap.Conn
	raw  *bounded
	stop func() bool
}

// bounded is a connection below TLS that takes so many bytes and no more: the library has no bound of its own.
type bounded struct {
	net.Conn
	left atomic.Int64
}

func (b *bounded) Read(p []byte) (int, error) {
	left := b.left.Load()
	if left <= 0 {
		return 0, errFlood
	}
	n, err := b.Conn.Read(p[:min(int64(len(p)), left)])
	b.left.Add(-int64(n))
	return n, err
}

// allow lets the server send another answer of so many bytes, within timeout.
func (c *conn) allow(n int64, timeout time.Duration) error {
	c.raw.left.Store(n)
	return c.raw.SetDeadline(time.Now().Add(timeout))
}

// close ends the connection. The deadline of the last answer bounds how long that takes.
func (c *conn) close() {
	c.stop()
	c.Conn.Close()
}

// dial connects to a server, with TLS unless the configuration says otherwise. It ends with ctx.
func (s *Source) dial(ctx context.Context, server string) (*conn, error) {
	u, err := url.Parse(server)
	if err != nil {
		return nil, err
	}
	d := net.Dialer{Timeout: s.cfg.Timeout}
	network, addr := address(u)
	socket, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	c := &conn{raw: &bounded{Conn: socket}}
	c.stop = context.AfterFunc(ctx, func() { _ = socket.Close() })
	if err := c.allow(maxHello, s.cfg.Timeout); err != nil {
		c.stop()
		return nil, errors.Join(err, socket.Close())
	}
	own := s.tls.Clone()
	if own.ServerName == "" {
		own.ServerName = u.Hostname()
	}
	if u.Scheme == schemeTLS {
		t := tls.Client(c.raw, own)
		if err := t.HandshakeContext(ctx); err != nil {
			c.stop()
			return nil, errors.Join(err, socket.Close())
		}
		c.Conn = ldap.NewConn(t, true)
	} else {
		c.Conn = ldap.NewConn(c.raw, false)
	}
	c.SetTimeout(s.cfg.Timeout)
	c.Start()
	if u.Scheme == schemeStartTLS && !s.cfg.Plain {
		if err := c.StartTLS(own); err != nil {
			c.close()
			return nil, fmt.Errorf("StartTLS: %w", err)
		}
		if _, ok := c.TLSConnectionState(); !ok {
			c.close()
			return nil, errors.New("StartTLS: the connection is not encrypted")
		}
	}
	return c, nil
}

// service connects and binds as the service account.
func (s *Source) service(ctx context.Context, server string) (*conn, error) {
	c, err := s.dial(ctx, server)
	if err != nil {
		return nil, err
	}
	if s.cfg.BindDN != "" {
		err = c.allow(maxAnswer, s.cfg.Timeout)
		if err == nil {
			err = c.Bind(s.cfg.BindDN, string(s.secret.Bytes()))
		}
		if err != nil {
			c.close()
			return nil, fmt.Errorf("binding as the service account %s: %w", s.cfg.BindDN, err)
		}
	}
	return c, nil
}

// search asks for entries below base. Limit is how many are of interest; one more means that there are more.
func (s *Source) search(c *conn, base string, scope, limit int, filter string, attributes ...string) ([]*ldap.Entry, error) {
	if err := c.allow(maxAnswer, s.cfg.Timeout); err != nil {
		return nil, err
	}
	r, err := c.Search(ldap.NewSearchRequest(base, scope, ldap.NeverDerefAliases, limit+1, int((s.cfg.Timeout+time.Second-1)/time.Second), false, filter, attributes, nil))
	if ldap.IsErrorWithCode(err, ldap.LDAPResultSizeLimitExceeded) && r != nil && len(r.Entries) > limit {
		return r.Entries, nil
	}
	if err != nil {
		return nil, err
	}
	return r.Entries, nil
}
