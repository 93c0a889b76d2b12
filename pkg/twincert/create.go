package twincert

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/netip"
	"slices"
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
// this serial number. What it returns has passed Parse.
func Create(rand io.Reader, t *Template, parent *x509.Certificate, signer crypto.Signer) ([]byte, error) {
	if err := t.check(parent); err != nil {
		return nil, fmt.Errorf("creating the certificate of %q: %w", t.Name, err)
	}
	tbs, err := t.tbs(parent)
	if err != nil {
		return nil, fmt.Errorf("encoding the certificate of %s: %w", t.Name, err)
	}
	digest := sha256.Sum256(tbs)
	sig, err := SignLowS(rand, signer, digest[:])
	if err != nil {
		return nil, fmt.Errorf("signing the certificate of %s: %w", t.Name, err)
	}
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(tbs)
		addSigAlg(b)
		b.AddASN1BitString(sig)
	})
	der, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("encoding the certificate of %s: %w", t.Name, err)
	}
	c, err := Parse(der)
	if err != nil {
		return nil, fmt.Errorf("creating the certificate of %s: %w", t.Name, err)
	}
	if err := parent.CheckSignature(x509.ECDSAWithSHA256, tbs, sig); err != nil {
		return nil, fmt.Errorf("creating the certificate of %s: signer and issuer do not belong together: %w", t.Name, err)
	}
	return c.Raw, nil
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
	case t.NotAfter.After(parent.NotAfter):
		return fmt.Errorf("%w: it would outlive its issuer, which ends at %s", ErrTemplate, parent.NotAfter.Format(time.RFC3339))
	}
	for _, p := range t.Prefixes {
		if p != p.Masked() || p.Addr().Is4In6() {
			return fmt.Errorf("%w: prefix %s has host bits set", ErrTemplate, p)
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
	addExtension(b, asn1.ObjectIdentifier{2, 5, 29, 15}, true, func(b *cryptobyte.Builder) { // keyUsage: keyAgreement
		b.AddASN1(cbasn1.BIT_STRING, func(b *cryptobyte.Builder) { b.AddBytes([]byte{3, 0x08}) })
	})
	eku := oidEKUUser
	if t.Role == Router {
		eku = oidEKURouter
	}
	addExtension(b, asn1.ObjectIdentifier{2, 5, 29, 37}, true, func(b *cryptobyte.Builder) {
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
		addExtension(b, oidIPAddrBlock, true, t.blocks)
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
	scope := slices.Sorted(slices.Values(t.Scope))
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(oidScope)
			b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) {
				for _, s := range slices.Compact(scope) {
					b.AddASN1(cbasn1.UTF8String, func(b *cryptobyte.Builder) { b.AddBytes([]byte(s)) })
				}
			})
		})
	})
}

func (t *Template) blocks(b *cryptobyte.Builder) {
	ps := canonical(t.Prefixes)
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, v4 := range []bool{true, false} {
			family := slices.DeleteFunc(slices.Clone(ps), func(p netip.Prefix) bool { return p.Addr().Is4() != v4 })
			if len(family) == 0 {
				continue
			}
			afi := byte(2)
			if v4 {
				afi = 1
			}
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1OctetString([]byte{0, afi})
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
					for _, p := range family {
						n := (p.Bits() + 7) / 8
						b.AddASN1(cbasn1.BIT_STRING, func(b *cryptobyte.Builder) {
							b.AddUint8(uint8(8*n - p.Bits()))
							b.AddBytes(p.Addr().AsSlice()[:n])
						})
					}
				})
			})
		}
	})
}

// canonical sorts prefixes and leaves out those that lie within another.
func canonical(ps []netip.Prefix) []netip.Prefix {
	ps = slices.Clone(ps)
	slices.SortFunc(ps, netip.Prefix.Compare)
	out := ps[:0]
	for _, p := range ps {
		if len(out) == 0 || !out[len(out)-1].Overlaps(p) {
			out = append(out, p)
		}
	}
	return out
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
