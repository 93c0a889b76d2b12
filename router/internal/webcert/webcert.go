package webcert

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	mrand "math/rand/v2"

	"twinkey/pkg/identity"
)

// How often the clock is looked at, and how long a failed order waits: ever longer, since a CA that starts takes seconds and one
// that is broken takes hours.
const (
	look       = 5 * time.Second
	firstRetry = 2 * time.Second
	lastRetry  = 5 * time.Minute
)

// ErrNone says that there is no certificate that a browser could be shown.
var ErrNone = errors.New("the portal has no valid certificate yet")

// Config of a keeper. All fields are needed.
type Config struct {
	File  string   // key and chain in PEM
	Names []string // DNS names and addresses, all of which the certificate must hold
	Issue func(ctx context.Context, key crypto.Signer, names []string) ([][]byte, error)
	Roots func() []*x509.Certificate // as the router trusts them now
	Log   *slog.Logger
}

// Keeper has the portal's certificate. Safe for concurrent use.
type Keeper struct {
	c       Config
	now     atomic.Pointer[tls.Certificate]
	problem atomic.Pointer[string]
}

// Load returns a keeper with what the file holds, if that is any good; Run does the rest.
func Load(c Config) (*Keeper, error) {
	k := &Keeper{c: c}
	info, err := os.Stat(c.File)
	if errors.Is(err, os.ErrNotExist) {
		return k, nil
	}
	if err == nil {
		err = identity.OwnerOnly(c.File, info.Mode())
	}
	if err != nil {
		return nil, fmt.Errorf("reading the portal's certificate: %w", err)
	}
	b, err := os.ReadFile(c.File)
	if err != nil {
		return nil, fmt.Errorf("reading the portal's certificate: %w", err)
	}
	defer clear(b)
	cert, err := tls.X509KeyPair(b, b)
	if err == nil {
		err = k.fit(&cert)
	}
	if err != nil { // another CA, another name, or half a disk: a new one is ordered
		c.Log.Warn("the portal's certificate is not used", "file", c.File, "reason", err.Error())
		return k, nil
	}
	k.now.Store(&cert)
	return k, nil
}

// Certificate is the one of now, or ErrNone.
func (k *Keeper) Certificate() (*tls.Certificate, error) {
	c := k.now.Load()
	if c == nil || time.Now().After(c.Leaf.NotAfter) {
		return nil, ErrNone
	}
	return c, nil
}

// Problem is why the last order failed; empty: it did not.
func (k *Keeper) Problem() string {
	if p := k.problem.Load(); p != nil {
		return *p
	}
	return ""
}

// RenewAt is when a certificate is replaced.
func RenewAt(c *x509.Certificate) time.Time {
	return c.NotBefore.Add(c.NotAfter.Sub(c.NotBefore) / 3 * 2)
}

// Fingerprint is how people compare certificates: the SHA-256 of the DER.
func Fingerprint(c *x509.Certificate) [sha256.Size]byte { return sha256.Sum256(c.Raw) }

// fit says whether a certificate is one to show, and sets its Leaf.
func (k *Keeper) fit(c *tls.Certificate) error {
	leaf, err := x509.ParseCertificate(c.Certificate[0])
	if err != nil {
		return fmt.Errorf("parsing it: %w", err)
	}
	c.Leaf = leaf
	roots, inter := x509.NewCertPool(), x509.NewCertPool()
	for _, r := range k.c.Roots() {
		roots.AddCert(r)
	}
	for _, der := range c.Certificate[1:] {
		i, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("parsing its chain: %w", err)
		}
		inter.AddCert(i)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: inter, CurrentTime: time.Now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err != nil {
		return err
	}
	for _, n := range k.c.Names {
		if err := leaf.VerifyHostname(n); err != nil {
			return err
		}
	}
	return nil
}

// Run keeps the certificate alive until ctx ends.
func (k *Keeper) Run(ctx context.Context) {
	tick := time.NewTicker(look)
	defer tick.Stop()
	var next time.Time
	wait := firstRetry
	for {
		now := time.Now().Round(0) // by the wall: certificates know no other clock
		if next.Sub(now) > 2*lastRetry {
			next = now // the clock was set back
		}
		if c := k.now.Load(); (c == nil || !now.Before(RenewAt(c.Leaf))) && !now.Before(next) {
			if err := k.renew(ctx); err == nil {
				wait = firstRetry
			} else if ctx.Err() == nil {
				text := err.Error()
				k.problem.Store(&text)
				next = now.Add(wait + mrand.N(wait/4)) //nolint:gosec // spreading load is no secret
				k.c.Log.Error("no certificate for the portal", "names", k.c.Names, "error", err, "again_in", next.Sub(now).Round(time.Second).String())
				wait = min(2*wait, lastRetry)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// renew orders a certificate for a new key, and puts both on disk before they are used.
func (k *Keeper) renew(ctx context.Context) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("making a key: %w", err)
	}
	chain, err := k.c.Issue(ctx, key, k.c.Names)
	if err != nil {
		return err
	}
	if len(chain) == 0 {
		return errors.New("the CA answered with no certificate")
	}
	c := &tls.Certificate{Certificate: chain, PrivateKey: key}
	if err := k.fit(c); err != nil {
		return fmt.Errorf("the CA's certificate is not to be used: %w", err)
	}
	if !key.PublicKey.Equal(c.Leaf.PublicKey) {
		return errors.New("the CA's certificate is for another key")
	}
	if err := k.save(c, key); err != nil {
		return err
	}
	k.now.Store(c)
	k.problem.Store(nil)
	sum := Fingerprint(c.Leaf)
	k.c.Log.Info("portal's certificate renewed", "names", k.c.Names, "serial", c.Leaf.SerialNumber.String(), "not_after", c.Leaf.NotAfter, "sha256", fmt.Sprintf("%x", sum))
	return nil
}

// save replaces the file: whole, or not at all.
func (k *Keeper) save(c *tls.Certificate, key *ecdsa.PrivateKey) (err error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encoding the portal's key: %w", err)
	}
	defer clear(der)
	b := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	for _, der := range c.Certificate {
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	defer clear(b)
	dir := filepath.Dir(k.c.File)
	f, err := os.CreateTemp(dir, filepath.Base(k.c.File)+".new-") // 0600
	if err != nil {
		return fmt.Errorf("saving the portal's certificate: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("saving the portal's certificate: %w", err), os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), k.c.File)
}
