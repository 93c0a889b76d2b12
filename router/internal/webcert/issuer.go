package webcert

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/crypto/acme"

	caclient "twinkey/ca/client"
	"twinkey/pkg/identity"
)

// issueTime is how long an order may take.
const issueTime = time.Minute

// Issuer orders certificates from the company's CA. Use NewIssuer.
type Issuer struct {
	ca      string
	id      *identity.Identity
	account *ecdsa.PrivateKey
}

// NewIssuer orders from the CA at url as the router that id is. The account lives as long as the process: who may have what
// hangs on the router's certificate.
func NewIssuer(url string, id *identity.Identity) (*Issuer, error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making an account key: %w", err)
	}
	return &Issuer{ca: strings.TrimRight(url, "/"), id: id, account: k}, nil
}

// Issue has key certified for names, DNS names and addresses. The chain is DER, leaf first.
func (i *Issuer) Issue(ctx context.Context, key crypto.Signer, names []string) ([][]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, issueTime)
	defer cancel()
	hc := caclient.HTTP(i.ca, i.id)
	defer hc.CloseIdleConnections()
	c := &acme.Client{Key: i.account, HTTPClient: hc, DirectoryURL: i.ca + caclient.PathACME, UserAgent: "twinkey-router", RetryBackoff: giveUp}
	if _, err := c.Register(ctx, &acme.Account{}, acme.AcceptTOS); err != nil && !errors.Is(err, acme.ErrAccountAlreadyExists) {
		return nil, fmt.Errorf("registering at the CA: %w", err)
	}
	req := &x509.CertificateRequest{}
	var ids []acme.AuthzID
	for _, n := range names {
		if a, err := netip.ParseAddr(n); err == nil {
			ids, req.IPAddresses = append(ids, acme.IPIDs(n)...), append(req.IPAddresses, a.AsSlice())
		} else {
			ids, req.DNSNames = append(ids, acme.DomainIDs(n)...), append(req.DNSNames, n)
		}
	}
	order, err := c.AuthorizeOrder(ctx, ids)
	if err != nil {
		return nil, fmt.Errorf("ordering a certificate for %v: %w", names, err)
	}
	for _, u := range order.AuthzURLs {
		if err := i.authorize(ctx, c, u); err != nil {
			return nil, err
		}
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, req, key)
	if err != nil {
		return nil, fmt.Errorf("asking for a certificate for %v: %w", names, err)
	}
	chain, _, err := c.CreateOrderCert(ctx, order.FinalizeURL, csr, true)
	if err != nil {
		return nil, fmt.Errorf("fetching the certificate for %v: %w", names, err)
	}
	return chain, nil
}

// giveUp leaves trying again to the keeper.
func giveUp(int, *http.Request, *http.Response) time.Duration { return -1 }

// authorize shows that one name is ours.
func (i *Issuer) authorize(ctx context.Context, c *acme.Client, url string) error {
	z, err := c.GetAuthorization(ctx, url)
	if err != nil {
		return fmt.Errorf("asking how to show whose a name is: %w", err)
	}
	if z.Status == acme.StatusValid {
		return nil
	}
	for _, ch := range z.Challenges {
		if ch.Type != "http-01" {
			continue
		}
		text, err := c.HTTP01ChallengeResponse(ch.Token)
		if err != nil {
			return fmt.Errorf("answering for %s: %w", z.Identifier.Value, err)
		}
		if err := caclient.PutAnswer(ctx, i.ca, i.id, caclient.ChallengeAnswer{Identifier: z.Identifier.Value, Token: ch.Token, KeyAuthorization: text}); err != nil {
			return err
		}
		if _, err := c.Accept(ctx, ch); err != nil {
			return fmt.Errorf("showing that %s is ours: %w", z.Identifier.Value, err)
		}
		if _, err := c.WaitAuthorization(ctx, url); err != nil {
			return fmt.Errorf("showing that %s is ours: %w", z.Identifier.Value, err)
		}
		return nil
	}
	return fmt.Errorf("showing that %s is ours: the CA offers no http-01", z.Identifier.Value)
}
