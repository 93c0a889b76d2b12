package twincert

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Template says what a certificate is to hold.
type Template struct {
	Profile               Profile
	Role                  Role
	Name, Group           string
	Keys                  Keys
	Serial                *big.Int
	NotBefore, NotAfter   time.Time
	Scope                 []string       // routers only
	Prefixes              []netip.Prefix // routers only
	CRLDistributionPoints []string
}

// ErrTemplate says that a template asks for a certificate that Parse would refuse, or
// that outlives its issuer.
var ErrTemplate = errors.New("impossible certificate")

// Create builds the TBSCertificate and signs it once: nothing else is ever signed under
// this serial number, and nothing that Parse would refuse. parent is the issuer, signer
// its P-256 key.
func Create(rand io.Reader, t *Template, parent *x509.Certificate, signer crypto.Signer) ([]byte, error) {
	der, err := t.create(rand, parent, signer)
	if err != nil {
		return nil, fmt.Errorf("creating the certificate of %q: %w", t.Name, err)
	}
	return der, nil
}

func (t *Template) create(rand io.Reader, parent *x509.Certificate, signer crypto.Signer) ([]byte, error) {
	if err := t.check(parent); err != nil {
		return nil, err
	}
	if pub, ok := signer.Public().(*ecdsa.PublicKey); !ok || !pub.Equal(parent.PublicKey) {
		return nil, fmt.Errorf("%w: signer and issuer do not belong together", ErrTemplate)
	}
	tbs, err := t.tbs(parent)
	if err != nil {
		return nil, fmt.Errorf("encoding: %w", err)
	}
	// Parse does not verify: with any signature of the right form it says whether it would
	// take the rest.
	draft, err := assemble(tbs, []byte{0x30, 6, 2, 1, 1, 2, 1, 1})
	if err == nil {
		_, err = Parse(draft)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTemplate, err)
	}
	digest := sha256.Sum256(tbs)
	sig, err := SignLowS(rand, signer, digest[:])
	if err != nil {
		return nil, err
	}
	if err := parent.CheckSignature(x509.ECDSAWithSHA256, tbs, sig); err != nil {
		return nil, fmt.Errorf("checking what the signer returned: %w", err)
	}
	return assemble(tbs, sig)
}

func assemble(tbs, sig []byte) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(tbs)
		addSigAlg(b)
		b.AddASN1BitString(sig)
	})
	return b.Bytes()
}

func (t *Template) check(parent *x509.Certificate) error {
	switch {
	case t.Profile != Paper && t.Profile != Compat:
		return fmt.Errorf("%w: no profile", ErrTemplate)
	case t.Role != Router && t.Role != User:
		return fmt.Errorf("%w: no role", ErrTemplate)
	case t.Serial == nil || t.Serial.Sign() <= 0 || t.Serial.BitLen() > 159: // RFC 5280 4.1.2.2: at most 20 octets
		return fmt.Errorf("%w: serial number", ErrTemplate)
	case t.Role == User && (len(t.Scope) > 0 || len(t.Prefixes) > 0):
		return fmt.Errorf("%w: a user has neither scope nor prefixes", ErrTemplate)
	case !t.NotAfter.After(t.NotBefore):
		return fmt.Errorf("%w: it ends before it begins", ErrTemplate)
	case !parent.IsCA || parent.KeyUsage != 0 && parent.KeyUsage&x509.KeyUsageCertSign == 0:
		return fmt.Errorf("%w: %s is no issuer", ErrTemplate, parent.Subject)
	case t.NotAfter.After(parent.NotAfter):
		return fmt.Errorf("%w: it would outlive its issuer, which ends at %s", ErrTemplate, parent.NotAfter.Format(time.RFC3339))
	}
	for _, p := range t.Prefixes {
		if !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() {
			return fmt.Errorf("%w: %s is no prefix, or has host bits set", ErrTemplate, p)
		}
	}
	for _, u := range t.CRLDistributionPoints {
		foreign := func(r rune) bool { return r <= ' ' || r > '~' } // IA5String, without what a URL has not
		if strings.ContainsFunc(u, foreign) || !strings.HasPrefix(u, "http") {
			return fmt.Errorf("%w: %q is no place to get a CRL from", ErrTemplate, u)
		}
	}
	return nil
}

func (t *Template) tbs(parent *x509.Certificate) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.Tag(0).Constructed().ContextSpecific(), func(b *cryptobyte.Builder) { b.AddASN1Int64(2) }) // v3
		b.AddASN1BigInt(t.Serial)
		addSigAlg(b)
		b.AddBytes(parent.RawSubject)
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { addTime(b, t.NotBefore); addTime(b, t.NotAfter) })
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			if t.Group != "" {
				addName(b, asn1.ObjectIdentifier{2, 5, 4, 11}, t.Group)
			}
			addName(b, asn1.ObjectIdentifier{2, 5, 4, 3}, t.Name)
		})
		if t.Profile == Paper {
			addSPKI(b, t.Keys.Control[:], t.Keys.Data[:])
		} else {
			addSPKI(b, t.Keys.Control[:])
		}
		b.AddASN1(cbasn1.Tag(3).Constructed().ContextSpecific(), func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { t.extensions(b, parent) })
		})
	})
	return b.Bytes()
}

func (t *Template) extensions(b *cryptobyte.Builder, parent *x509.Certificate) {
	addExtension(b, oidKeyUsage, true, func(b *cryptobyte.Builder) { // keyUsage: keyAgreement
		b.AddASN1(cbasn1.BIT_STRING, func(b *cryptobyte.Builder) { b.AddBytes([]byte{3, 0x08}) })
	})
	eku := oidEKUUser
	if t.Role == Router {
		eku = oidEKURouter
	}
	addExtension(b, oidExtKeyUsage, true, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(eku) })
	})
	if len(parent.SubjectKeyId) > 0 {
		addExtension(b, asn1.ObjectIdentifier{2, 5, 29, 35}, false, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1(cbasn1.Tag(0).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes(parent.SubjectKeyId) })
			})
		})
	}
	if len(t.CRLDistributionPoints) > 0 {
		addExtension(b, asn1.ObjectIdentifier{2, 5, 29, 31}, false, t.distributionPoints)
	}
	if t.Profile == Compat {
		addExtension(b, oidAltKey, false, func(b *cryptobyte.Builder) { addSPKI(b, t.Keys.Data[:]) })
	}
	if len(t.Scope) > 0 {
		addExtension(b, oidSDA, false, t.scope)
	}
	if len(t.Prefixes) > 0 {
		addExtension(b, oidIPAddrBlock, true, func(b *cryptobyte.Builder) { addBlocks(b, t.Prefixes) })
	}
}

func (t *Template) distributionPoints(b *cryptobyte.Builder) {
	context := func(n uint8) cbasn1.Tag { return cbasn1.Tag(n).ContextSpecific() }
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, url := range t.CRLDistributionPoints {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1(context(0).Constructed(), func(b *cryptobyte.Builder) {
					b.AddASN1(context(0).Constructed(), func(b *cryptobyte.Builder) {
						b.AddASN1(context(6), func(b *cryptobyte.Builder) { b.AddBytes([]byte(url)) })
					})
				})
			})
		}
	})
}

func (t *Template) scope(b *cryptobyte.Builder) {
	scope := slices.Compact(slices.SortedFunc(slices.Values(t.Scope), inSetOrder))
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(oidScope)
			b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) {
				for _, s := range scope {
					b.AddASN1(cbasn1.UTF8String, func(b *cryptobyte.Builder) { b.AddBytes([]byte(s)) })
				}
			})
		})
	})
}

// inSetOrder compares strings as DER orders them in a SET OF, by their encodings (X.690
// 11.6): the length stands first. It holds for strings shorter than 128 bytes.
func inSetOrder(a, b string) int {
	return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
}

func addSigAlg(b *cryptobyte.Builder) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { // ecdsa-with-SHA256, RFC 5758 3.2
		b.AddASN1ObjectIdentifier(asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2})
	})
}

// addTime chooses UTCTime through 2049 (RFC 5280 4.1.2.5).
func addTime(b *cryptobyte.Builder, t time.Time) {
	t = t.UTC().Truncate(time.Second)
	if t.Year() < 2050 {
		b.AddASN1UTCTime(t)
		return
	}
	b.AddASN1GeneralizedTime(t)
}

func addName(b *cryptobyte.Builder, oid asn1.ObjectIdentifier, s string) {
	b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(oid)
			b.AddASN1(cbasn1.UTF8String, func(b *cryptobyte.Builder) { b.AddBytes([]byte(s)) })
		})
	})
}

func addExtension(b *cryptobyte.Builder, oid asn1.ObjectIdentifier, critical bool, value func(*cryptobyte.Builder)) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oid)
		if critical {
			b.AddASN1Boolean(true)
		}
		b.AddASN1(cbasn1.OCTET_STRING, value)
	})
}
