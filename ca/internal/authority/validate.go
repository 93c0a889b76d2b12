package authority

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/smallstep/certificates/acme"
)

// challengePath is where http-01 looks (RFC 8555 section 8.3).
const challengePath = "/.well-known/acme-challenge/"

// posted answers a router's challenges from what the router has put at the CA. It asks the network nothing: the CA reaches no
// LAN, and nobody should be able to send it there.
type posted struct {
	answer func(identifier, token string) (string, bool)
}

// Get answers http-01.
func (p *posted) Get(raw string) (*http.Response, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("validating: %w", err)
	}
	token, ok := strings.CutPrefix(u.Path, challengePath)
	if !ok {
		return nil, fmt.Errorf("validating %s: %w: no http-01", u.Hostname(), ErrReserved)
	}
	text, ok := p.answer(strings.TrimSuffix(u.Hostname(), "."), token)
	if !ok {
		return nil, fmt.Errorf("validating %s: %w: no router has put an answer here that may", u.Hostname(), ErrReserved)
	}
	return &http.Response{StatusCode: http.StatusOK, Status: "200 OK", Body: io.NopCloser(strings.NewReader(text)), ContentLength: int64(len(text))}, nil
}

// LookupTxt refuses dns-01.
func (*posted) LookupTxt(name string) ([]string, error) {
	return nil, fmt.Errorf("validating %s: %w: only http-01", name, ErrReserved)
}

// TLSDial refuses tls-alpn-01.
func (*posted) TLSDial(_, addr string, _ *tls.Config) (*tls.Conn, error) {
	return nil, fmt.Errorf("validating %s: %w: only http-01", addr, ErrReserved)
}

// orders are those of routers. An order lives for a day, and what was shown when it was validated may not hold any more when it is
// finalized: so nobody sees one, to finalize it or to fetch what came of it, who may not have all that it names at that moment.
type orders struct {
	acme.DB
	may func(ctx context.Context, identifier string) error
}

// GetOrder is what each request about an order begins with.
func (o *orders) GetOrder(ctx context.Context, id string) (*acme.Order, error) {
	order, err := o.DB.GetOrder(ctx, id)
	if err != nil {
		return nil, err
	}
	for _, i := range order.Identifiers {
		if err := o.may(ctx, i.Value); err != nil {
			return nil, acme.WrapError(acme.ErrorUnauthorizedType, err, "order %s", id)
		}
	}
	return order, nil
}

// outside validates strangers by the network, but nothing that is a router's: who answers there under that name need not be it.
type outside struct {
	acme.Client
	reserved func(names ...string) error
}

// Get asks for http-01.
func (o *outside) Get(raw string) (*http.Response, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("validating: %w", err)
	}
	if err := o.reserved(u.Hostname()); err != nil {
		return nil, err
	}
	return o.Client.Get(raw)
}

// LookupTxt asks for dns-01.
func (o *outside) LookupTxt(name string) ([]string, error) {
	if err := o.reserved(strings.TrimPrefix(name, "_acme-challenge.")); err != nil {
		return nil, err
	}
	return o.Client.LookupTxt(name)
}

// TLSDial asks for tls-alpn-01.
func (o *outside) TLSDial(network, addr string, c *tls.Config) (*tls.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("validating: %w", err)
	}
	if err := o.reserved(host); err != nil {
		return nil, err
	}
	return o.Client.TLSDial(network, addr, c)
}

// reserved fails with ErrReserved if one of names is not for strangers.
func (a *Authority) reserved(names ...string) error {
	if a.cfg.Reserved == nil {
		return nil
	}
	for _, n := range names {
		yes, err := a.cfg.Reserved(n)
		if err != nil {
			return err
		}
		if yes {
			return fmt.Errorf("%w: the name %s is a router's", ErrReserved, n)
		}
	}
	return nil
}
