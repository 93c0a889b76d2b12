package authority

import (
	"fmt"
	"time"

	"go.step.sm/crypto/jose"
	"go.step.sm/crypto/randutil"
)

// SignToken makes a one-time token for /sign, as the step command takes it: a plain TLS
// certificate for name with the given DNS names and addresses. It is good for ttl.
func (a *Authority) SignToken(name string, sans []string, ttl time.Duration) (string, error) {
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: a.jwk.Key},
		new(jose.SignerOptions).WithType("JWT").WithHeader("kid", a.jwk.KeyID))
	if err != nil {
		return "", fmt.Errorf("signing a token: %w", err)
	}
	id, err := randutil.Hex(64)
	if err != nil {
		return "", fmt.Errorf("signing a token: %w", err)
	}
	now := a.cfg.Now()
	claims := struct {
		jose.Claims
		SANs []string `json:"sans"`
	}{jose.Claims{
		ID: id, Subject: name, Issuer: provisionerName, Audience: jose.Audience{a.step.GetConfig().Audience("/1.0/sign")[0]},
		NotBefore: jose.NewNumericDate(now), IssuedAt: jose.NewNumericDate(now), Expiry: jose.NewNumericDate(now.Add(ttl)),
	}, sans}
	token, err := jose.Signed(signer).Claims(claims).CompactSerialize()
	if err != nil {
		return "", fmt.Errorf("signing a token: %w", err)
	}
	return token, nil
}
