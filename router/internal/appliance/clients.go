package appliance

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"time"

	caclient "twinkey/ca/client"
	"twinkey/pkg/twincert"
	"twinkey/router/internal/authn"
	"twinkey/router/internal/settings"
	"twinkey/router/internal/voluntary"
)

var errNoKey = errors.New("the TLS key is no ECDSA key")

// newDesk serves users' own machines.
func (a *Appliance) newDesk(s *settings.Settings) *voluntary.Server {
	return voluntary.NewServer(a.deskConfig(), s.Policy)
}

func (a *Appliance) deskConfig() voluntary.Config {
	return voluntary.Config{
		Name: a.id.Name(), Directory: a.dir, Hall: a.eng, Trust: a.trust, Log: a.log,
		Sign:  a.signForClient,
		Scope: func() []string { return a.id.Bundle().Twin.Scope },
		Anchors: func() (roots, intermediates []*x509.Certificate) {
			b := a.id.Bundle()
			return b.Roots, b.Intermediates
		},
		LoginKey: func(ctx context.Context) ([]byte, error) { return caclient.FetchLoginKey(ctx, a.ends.CA, a.id) },
		Ask:      a.askSealed, Hold: authn.Hold,
		Guesses: a.tries, CloseKey: a.ended.Key,
		Vouch: func() time.Duration { return a.set.Load().Clients.Vouch },
	}
}

// signForClient signs by the TLS key of the moment, and says of which certificate it is.
func (a *Appliance) signForClient(digest []byte) (router, signature []byte, err error) {
	b := a.id.Bundle()
	key, ok := b.TLS.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, nil, errNoKey
	}
	signature, err = twincert.SignLowS(rand.Reader, key, digest)
	return b.TLS.Certificate[0], signature, err
}

// revoke passes revocations to the engine and to clients.
func (a *Appliance) revoke(ctx context.Context, ids ...twincert.ID) error {
	a.desk.Revoked(ids...)
	return a.eng.Revoke(ctx, ids...)
}
