package client

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/netip"

	"twinkey/pkg/identity"
	"twinkey/pkg/twincert"
	"twinkey/proto/secret"
)

// keys are the private keys of one box or user, before and while they are certified.
type keys struct {
	tls           *ecdsa.PrivateKey // nil: a user's
	control, data *ecdh.PrivateKey  // nil unless it is a router or a user

	name string // UserID of a user
	old  *UserKeys
}

// newKeys makes those of a box.
func newKeys(router bool) (k keys, err error) {
	if k.tls, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return k, fmt.Errorf("making a TLS key: %w", err)
	}
	if !router {
		return k, nil
	}
	return k, k.makeTwin()
}

func (k *keys) makeTwin() (err error) {
	if k.control, err = ecdh.X25519().GenerateKey(rand.Reader); err != nil {
		return fmt.Errorf("making a control key: %w", err)
	}
	if k.data, err = ecdh.X25519().GenerateKey(rand.Reader); err != nil {
		return fmt.Errorf("making a data key: %w", err)
	}
	return nil
}

// request fills in a request, all but its token and proofs.
func (k keys) request(hosts []string) (*Request, error) {
	if k.tls == nil {
		r := &Request{Name: k.name, Control: k.control.PublicKey().Bytes(), Data: k.data.PublicKey().Bytes()}
		if k.old != nil {
			r.Old = k.old.Certificate.Raw
		}
		return r, nil
	}
	t := &x509.CertificateRequest{}
	for _, h := range hosts {
		if a, err := netip.ParseAddr(h); err == nil {
			t.IPAddresses = append(t.IPAddresses, a.AsSlice())
			continue
		}
		t.DNSNames = append(t.DNSNames, h)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, t, k.tls)
	if err != nil {
		return nil, fmt.Errorf("making a certificate request: %w", err)
	}
	r := &Request{CSR: csr}
	if k.control != nil {
		r.Control, r.Data = k.control.PublicKey().Bytes(), k.data.PublicKey().Bytes()
	}
	return r, nil
}

// prove answers a challenge in r.
func (k keys) prove(r *Request, c Challenge) error {
	r.Cookie = c.Cookie
	if k.control == nil {
		return nil
	}
	public, err := ecdh.X25519().NewPublicKey(c.Public)
	if err != nil {
		return fmt.Errorf("%w: its challenge: %w", ErrAnswer, err)
	}
	transcript := r.Transcript(c.Public)
	if r.ControlProof, err = Proof(k.control, public, LabelControl, transcript); err != nil {
		return err
	}
	if r.DataProof, err = Proof(k.data, public, LabelData, transcript); err != nil || k.old == nil {
		return err
	}
	for _, o := range []struct {
		key   secret.Key
		label string
		to    *[]byte
	}{{k.old.Control, LabelOldControl, &r.OldControlProof}, {k.old.Data, LabelOldData, &r.OldDataProof}} {
		private, err := ecdh.X25519().NewPrivateKey(o.key.Bytes())
		if err != nil {
			return fmt.Errorf("reading an old key: %w", err)
		}
		if *o.to, err = Proof(private, public, o.label, transcript); err != nil {
			return err
		}
	}
	return nil
}

// bundle puts an answer and the keys together. It does not check that they belong together.
func (k keys) bundle(a *Answer) (b identity.Bundle, err error) {
	if b.Roots, err = parseAll(a.Roots); err != nil {
		return b, err
	}
	if b.Intermediates, err = parseAll(a.Intermediates); err != nil {
		return b, err
	}
	chain, err := parseAll(a.TLS)
	if err != nil {
		return b, err
	}
	if len(chain) == 0 {
		return b, fmt.Errorf("%w: no TLS certificate", ErrAnswer)
	}
	b.TLS = tls.Certificate{Certificate: a.TLS, PrivateKey: k.tls, Leaf: chain[0]}
	if k.control == nil {
		return b, nil
	}
	if b.Twin, err = twincert.Parse(a.Twin); err != nil {
		return b, fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	b.Control, b.Data = secret.New(k.control.Bytes()), secret.New(k.data.Bytes())
	return b, nil
}

func parseAll(ders [][]byte) ([]*x509.Certificate, error) {
	cs := make([]*x509.Certificate, 0, len(ders))
	for _, der := range ders {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrAnswer, err)
		}
		cs = append(cs, c)
	}
	return cs, nil
}

func pool(cs []*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range cs {
		p.AddCert(c)
	}
	return p
}
