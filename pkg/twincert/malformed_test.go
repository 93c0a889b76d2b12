package twincert_test

import (
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"twinkey/pkg/twincert"
)

// node is a DER element that a test edits.
type node struct {
	tag  cbasn1.Tag
	data []byte  // of a primitive one
	kids []*node // of a constructed one
}

func decode(t testing.TB, der []byte) *node {
	t.Helper()
	in := cryptobyte.String(der)
	n := new(node)
	var body cryptobyte.String
	if !in.ReadAnyASN1(&body, &n.tag) || !in.Empty() {
		t.Fatalf("no DER: %x", der)
	}
	if n.tag&0x20 == 0 {
		n.data = body
		return n
	}
	for !body.Empty() {
		var el cryptobyte.String
		var tag cbasn1.Tag
		if !body.ReadAnyASN1Element(&el, &tag) {
			t.Fatalf("no DER: %x", body)
		}
		n.kids = append(n.kids, decode(t, el))
	}
	return n
}

func (n *node) der() []byte {
	var b cryptobyte.Builder
	b.AddASN1(n.tag, func(b *cryptobyte.Builder) {
		b.AddBytes(n.data)
		for _, k := range n.kids {
			b.AddBytes(k.der())
		}
	})
	return b.BytesOrPanic()
}

func (n *node) tbs(field int) *node { return n.kids[0].kids[field] }

// Fields of TBSCertificate.
const (
	version, subject, spki, extensions = 0, 5, 6, 7
)

func primitive(tag cbasn1.Tag, data ...byte) *node { return &node{tag: tag, data: data} }
func sequence(kids ...*node) *node                 { return &node{tag: cbasn1.SEQUENCE, kids: kids} }
func bitString(data ...byte) *node                 { return primitive(cbasn1.BIT_STRING, data...) }

func object(oid ...int) *node {
	der, err := asn1.Marshal(asn1.ObjectIdentifier(oid))
	if err != nil {
		panic(err)
	}
	return primitive(cbasn1.OBJECT_IDENTIFIER, der[2:]...)
}

// extension finds one by its object identifier: kids are OID, perhaps critical, value.
func (n *node) extension(oid ...int) *node {
	for _, x := range n.tbs(extensions).kids[0].kids {
		if string(x.kids[0].data) == string(object(oid...).data) {
			return x
		}
	}
	panic(fmt.Sprint("no extension ", oid))
}

func (n *node) uncritical() { n.kids = []*node{n.kids[0], n.kids[len(n.kids)-1]} }

func (n *node) value(v *node) { n.kids[len(n.kids)-1].data = v.der() }

var (
	oidUse   = []int{2, 5, 29, 37}
	oidSDA   = []int{2, 5, 29, 9}
	oidAlt   = []int{2, 5, 29, 72}
	oidBlock = []int{1, 3, 6, 1, 5, 5, 7, 1, 7}
)

// blocks is IPAddrBlocks with one family.
func blocks(afi []byte, list ...*node) *node {
	return sequence(sequence(primitive(cbasn1.OCTET_STRING, afi...), sequence(list...)))
}

func scope(attribute *node, values ...string) *node {
	set := &node{tag: cbasn1.SET}
	for _, v := range values {
		set.kids = append(set.kids, primitive(cbasn1.UTF8String, []byte(v)...))
	}
	return sequence(sequence(attribute, set))
}

// malformed is what an issuer might sign, or a stranger send, and what Parse says of it.
var malformed = []struct {
	name   string
	compat bool
	edit   func(c *node)
	field  string
	cause  error
}{
	{"a third key", false, func(c *node) { c.tbs(spki).kids = append(c.tbs(spki).kids, c.tbs(spki).kids[2]) }, "behind the second key", twincert.ErrKeyCount},
	{"a number behind the keys", false, func(c *node) { c.tbs(spki).kids = append(c.tbs(spki).kids, primitive(cbasn1.INTEGER, 1)) }, "behind the second key", twincert.ErrKeyCount},
	{"one key", false, func(c *node) { c.tbs(spki).kids = c.tbs(spki).kids[:2] }, "SubjectPublicKeyInfo", twincert.ErrKeyCount},
	{"no key", false, func(c *node) { c.tbs(spki).kids = c.tbs(spki).kids[:1] }, "SubjectPublicKeyInfo", twincert.ErrKeyCount},
	{"key of 31 bytes", false, func(c *node) { k := c.tbs(spki).kids[2]; k.data = k.data[:32] }, "subject public key", twincert.ErrKeyLength},
	{"key of 33 bytes", false, func(c *node) { k := c.tbs(spki).kids[2]; k.data = append(k.data, 1) }, "subject public key", twincert.ErrKeyLength},
	{"key of 255 bits", false, func(c *node) { c.tbs(spki).kids[2].data[0] = 1 }, "subject public key", twincert.ErrEncoding},
	{"second key of low order", false, func(c *node) { c.tbs(spki).kids[2] = bitString(make([]byte, 33)...) }, "SubjectPublicKeyInfo", twincert.ErrKeyWeak},
	{"both keys the same", false, func(c *node) { c.tbs(spki).kids[2] = c.tbs(spki).kids[1] }, "SubjectPublicKeyInfo", twincert.ErrKeyWeak},
	{"both keys the same, one by another name", false, func(c *node) {
		k := append([]byte(nil), c.tbs(spki).kids[1].data...)
		k[32] |= 0x80
		c.tbs(spki).kids[2] = bitString(k...)
	}, "SubjectPublicKeyInfo", twincert.ErrKeyWeak},
	{"Ed25519", false, func(c *node) { c.tbs(spki).kids[0] = sequence(object(1, 3, 101, 112)) }, "SubjectPublicKeyInfo.algorithm", twincert.ErrAlgorithm},
	{"parameters of the algorithm", false, func(c *node) { a := c.tbs(spki).kids[0]; a.kids = append(a.kids, primitive(cbasn1.NULL)) }, "SubjectPublicKeyInfo.algorithm", twincert.ErrAlgorithm},

	{"second key twice over", true, func(c *node) {
		c.tbs(spki).kids = append(c.tbs(spki).kids, c.tbs(spki).kids[1])
	}, "subjectAltPublicKeyInfo", twincert.ErrExtension},
	{"no second key", true, func(c *node) { c.extension(oidAlt...).kids[0] = object(2, 5, 29, 99) }, "SubjectPublicKeyInfo", twincert.ErrKeyCount},
	{"two second keys", true, func(c *node) {
		c.extension(oidAlt...).value(sequence(c.tbs(spki).kids[0], c.tbs(spki).kids[1], c.tbs(spki).kids[1]))
	}, "subjectAltPublicKeyInfo", twincert.ErrKeyCount},
	{"something behind the second key", true, func(c *node) { v := c.extension(oidAlt...).kids[1]; v.data = append(v.data, 5, 0) }, "subjectAltPublicKeyInfo", twincert.ErrKeyCount},
	{"second key critical", true, func(c *node) {
		x := c.extension(oidAlt...)
		x.kids = []*node{x.kids[0], primitive(cbasn1.BOOLEAN, 0xff), x.kids[1]}
	}, "subjectAltPublicKeyInfo", twincert.ErrExtension},

	{"version 1", false, func(c *node) { c.tbs(version).kids[0].data[0] = 0 }, "version", twincert.ErrEncoding},
	{"unique identifier", false, func(c *node) {
		tbs := c.kids[0]
		tbs.kids = append(tbs.kids[:extensions:extensions], primitive(cbasn1.Tag(1).ContextSpecific(), 0, 1), tbs.kids[extensions])
	}, "extensions", twincert.ErrEncoding},
	{"something behind the extensions", false, func(c *node) { c.kids[0].kids = append(c.kids[0].kids, primitive(cbasn1.NULL)) }, "extensions", twincert.ErrEncoding},
	{"something behind the signature", false, func(c *node) { c.kids = append(c.kids, primitive(cbasn1.NULL)) }, "signatureValue", twincert.ErrEncoding},
	{"signature with a high s", false, func(c *node) {
		sig := decode(t0{}, c.kids[2].data[1:])
		s := new(big.Int).SetBytes(sig.kids[1].data)
		var b cryptobyte.Builder
		b.AddASN1BigInt(s.Sub(elliptic.P256().Params().N, s))
		sig.kids[1] = decode(t0{}, b.BytesOrPanic())
		c.kids[2].data = append([]byte{0}, sig.der()...)
	}, "signatureValue", twincert.ErrHighS},
	{"no signature", false, func(c *node) { c.kids[2].data = []byte{0} }, "signatureValue", twincert.ErrHighS},
	{"subject with a country", false, func(c *node) {
		c.tbs(subject).kids = append(c.tbs(subject).kids, &node{tag: cbasn1.SET, kids: []*node{sequence(object(2, 5, 4, 6), primitive(cbasn1.PrintableString, 'D', 'E'))}})
	}, "subject", twincert.ErrSubject},
	{"name with a terminal's escape", false, func(c *node) { c.tbs(subject).kids[0].kids[0].kids[1].data = []byte("r\x1b[2Ja") }, "subject", twincert.ErrSubject},

	{"TLS client beside", false, func(c *node) {
		x := c.extension(oidUse...)
		x.value(sequence(object(1, 3, 6, 1, 5, 5, 7, 3, 2), decode(t0{}, x.kids[2].data).kids[0]))
	}, "extKeyUsage", twincert.ErrEKU},
	{"any use", false, func(c *node) { c.extension(oidUse...).value(sequence(object(2, 5, 29, 37, 0))) }, "extKeyUsage", twincert.ErrEKU},
	{"use not critical", false, func(c *node) { c.extension(oidUse...).uncritical() }, "extKeyUsage", twincert.ErrEKU},
	{"key usage not critical", false, func(c *node) { c.extension(2, 5, 29, 15).uncritical() }, "keyUsage", twincert.ErrExtension},
	{"key usage of a CA", false, func(c *node) { c.extension(2, 5, 29, 15).value(bitString(2, 0x0c)) }, "keyUsage", twincert.ErrExtension},
	{"a critical extension that nobody knows", false, func(c *node) {
		x := c.tbs(extensions).kids[0]
		x.kids = append(x.kids, sequence(object(2, 5, 29, 99), primitive(cbasn1.BOOLEAN, 0xff), primitive(cbasn1.OCTET_STRING)))
	}, "2.5.29.99", twincert.ErrExtension},

	{"scope of another attribute", false, func(c *node) { c.extension(oidSDA...).value(scope(object(2, 5, 4, 3), "*")) }, "subjectDirectoryAttributes", twincert.ErrExtension},
	{"scope with nobody in it", false, func(c *node) { c.extension(oidSDA...).value(scope(ourAttribute(c))) }, "subjectDirectoryAttributes", twincert.ErrExtension},
	{"scope out of order", false, func(c *node) { c.extension(oidSDA...).value(scope(ourAttribute(c), "user:eve", "user:bob")) }, "subjectDirectoryAttributes", twincert.ErrExtension},
	{"scope that says one twice", false, func(c *node) { c.extension(oidSDA...).value(scope(ourAttribute(c), "user:bob", "user:bob")) }, "subjectDirectoryAttributes", twincert.ErrExtension},
	{"scope of everybody, misspelt", false, func(c *node) { c.extension(oidSDA...).value(scope(ourAttribute(c), "**")) }, "subjectDirectoryAttributes", twincert.ErrExtension},

	{"prefixes not critical", false, func(c *node) { c.extension(oidBlock...).uncritical() }, "IPAddrBlocks", twincert.ErrExtension},
	{"prefixes inherited", false, func(c *node) {
		c.extension(oidBlock...).value(sequence(sequence(primitive(cbasn1.OCTET_STRING, 0, 1), primitive(cbasn1.NULL))))
	}, "IPAddrBlocks", twincert.ErrExtension},
	{"no prefixes", false, func(c *node) { c.extension(oidBlock...).value(sequence()) }, "IPAddrBlocks", twincert.ErrExtension},
	{"family without prefixes", false, func(c *node) { c.extension(oidBlock...).value(blocks([]byte{0, 1})) }, "IPAddrBlocks", twincert.ErrExtension},
	{"multicast only", false, func(c *node) { c.extension(oidBlock...).value(blocks([]byte{0, 1, 2}, bitString(0, 10))) }, "IPAddrBlocks", twincert.ErrExtension},
	{"a family that nobody knows", false, func(c *node) { c.extension(oidBlock...).value(blocks([]byte{0, 3}, bitString(0, 10))) }, "IPAddrBlocks", twincert.ErrExtension},
	{"40 bits of IPv4", false, func(c *node) {
		c.extension(oidBlock...).value(blocks([]byte{0, 1}, bitString(0, 10, 1, 0, 0, 0)))
	}, "IPAddrBlocks", twincert.ErrExtension},
	{"bits behind the prefix", false, func(c *node) { c.extension(oidBlock...).value(blocks([]byte{0, 1}, bitString(4, 10, 1, 0xff))) }, "IPAddrBlocks", twincert.ErrExtension},
	{"prefixes out of order", false, func(c *node) {
		c.extension(oidBlock...).value(blocks([]byte{0, 1}, bitString(0, 10, 3), bitString(0, 10, 1)))
	}, "IPAddrBlocks", twincert.ErrExtension},
	{"prefix within a prefix", false, func(c *node) {
		c.extension(oidBlock...).value(blocks([]byte{0, 1}, bitString(0, 10), bitString(0, 10, 1)))
	}, "IPAddrBlocks", twincert.ErrExtension},
	{"two halves not made one", false, func(c *node) {
		c.extension(oidBlock...).value(blocks([]byte{0, 1}, bitString(0, 10, 2), bitString(0, 10, 3)))
	}, "IPAddrBlocks", twincert.ErrExtension},
	{"range that is a prefix", false, func(c *node) {
		c.extension(oidBlock...).value(blocks([]byte{0, 1}, sequence(bitString(1, 10, 2), bitString(0, 10, 3))))
	}, "IPAddrBlocks", twincert.ErrExtension},
	{"range that ends before it begins", false, func(c *node) {
		c.extension(oidBlock...).value(blocks([]byte{0, 1}, sequence(bitString(0, 10, 4), bitString(0, 10, 2))))
	}, "IPAddrBlocks", twincert.ErrExtension},
	{"ranges that need too many prefixes", false, func(c *node) {
		// ::1 to the last but one of all: 254 prefixes; and IPv4 likewise, 62 more
		lo, hi := make([]byte, 17), []byte{0}
		lo[16] = 1
		for range 16 {
			hi = append(hi, 0xff)
		}
		hi[16], hi[0] = 0xfe, 0
		v4 := sequence(primitive(cbasn1.OCTET_STRING, 0, 1), sequence(sequence(bitString(0, 0, 0, 0, 1), bitString(0, 0xff, 0xff, 0xff, 0xfe))))
		v6 := sequence(primitive(cbasn1.OCTET_STRING, 0, 2), sequence(sequence(bitString(lo...), bitString(hi...))))
		c.extension(oidBlock...).value(sequence(v4, v6))
	}, "IPAddrBlocks", twincert.ErrSize},
}

// ourAttribute is the attribute type that the certificate's scope has.
func ourAttribute(c *node) *node {
	return decode(t0{}, c.extension(oidSDA...).kids[1].data).kids[0].kids[0]
}

// t0 lets a table decode what cannot fail to be DER.
type t0 struct{ testing.TB }

func (t0) Helper()                   {}
func (t0) Fatalf(f string, a ...any) { panic(fmt.Sprintf(f, a...)) }

func TestMalformedSaysWhere(t *testing.T) {
	for _, tt := range malformed {
		t.Run(tt.name, func(t *testing.T) {
			p := twincert.Paper
			if tt.compat {
				p = twincert.Compat
			}
			c := decode(t, golden(t, p, twincert.Router))
			tt.edit(c)
			der := c.der()
			_, err := twincert.Parse(der)
			e, ok := errors.AsType[*twincert.Error](err)
			if !ok || e.Field != tt.field || !errors.Is(err, tt.cause) || e.Offset < 0 || e.Offset >= len(der) {
				t.Errorf("err = %v, want %s somewhere, %v", err, tt.field, tt.cause)
			}
		})
	}
}

// The offset is that of the element: the tag that is met there says so.
func TestOffsets(t *testing.T) {
	c := decode(t, golden(t, twincert.Paper, twincert.Router))
	c.extension(oidSDA...).value(scope(ourAttribute(c), "**"))
	der := c.der()
	_, err := twincert.Parse(der)
	e, _ := errors.AsType[*twincert.Error](err)
	want := decode(t, der).extension(oidSDA...).der()
	if e == nil || string(der[e.Offset:e.Offset+len(want)]) != string(want) {
		t.Errorf("%v: no extension begins there", err)
	}
}

// Ranges are what canonical form makes of prefixes that touch; they come back as the
// fewest prefixes.
func TestPrefixesInCanonicalForm(t *testing.T) {
	a := newAuthority(t)
	for in, want := range map[string]string{
		"10.1.0.0/24 10.0.0.0/24 10.0.0.128/25":        "[10.0.0.0/24 10.1.0.0/24]",
		"10.2.0.0/16 10.3.0.0/16":                      "[10.2.0.0/15]",
		"10.1.0.0/24 10.1.1.0/25":                      "[10.1.0.0/24 10.1.1.0/25]",
		"10.1.0.128/25 10.1.1.0/24 10.1.2.0/32":        "[10.1.0.128/25 10.1.1.0/24 10.1.2.0/32]",
		"0.0.0.0/0 ::/0 192.168.0.0/16":                "[0.0.0.0/0 ::/0]",
		"255.255.255.255/32 255.255.255.254/32 ::/0":   "[255.255.255.254/31 ::/0]",
		"fd00::/16 fd01::/16 fd02::/17 10.0.0.0/8":     "[10.0.0.0/8 fd00::/15 fd02::/17]",
		"ffff:ffff::/32 ffff:fffe::/32 ::/128 ::1/128": "[::/127 ffff:fffe::/31]",
	} {
		x := router(t, twincert.Compat)
		x.Prefixes = prefixes(in)
		c := create(t, a, x)
		if got := fmt.Sprint(c.Prefixes); got != want {
			t.Errorf("%s: read back %s, want %s", in, got, want)
		}
		for _, p := range x.Prefixes {
			if !c.Covers(p) {
				t.Errorf("%s: %s is lost", in, p)
			}
		}
		x.Prefixes = c.Prefixes
		if again := create(t, a, x); fmt.Sprint(again.Prefixes) != want {
			t.Errorf("%s: not stable: %v", in, again.Prefixes)
		}
	}
}

// What is wrong with a template is said before anything is signed.
func TestNothingImpossibleIsSigned(t *testing.T) {
	a := newAuthority(t)
	for name, change := range map[string]func(*twincert.Template){
		"key":      func(x *twincert.Template) { x.Keys.Data = x.Keys.Control },
		"name":     func(x *twincert.Template) { x.Name = "r a" },
		"scope":    func(x *twincert.Template) { x.Scope = make([]string, 1) },
		"CRL":      func(x *twincert.Template) { x.CRLDistributionPoints = []string{"http://\x1b[2J"} },
		"prefixes": func(x *twincert.Template) { x.Prefixes = many(300) },
		"no prefix": func(x *twincert.Template) {
			x.Prefixes = []netip.Prefix{{}}
		},
	} {
		x := router(t, twincert.Paper)
		change(x)
		if _, err := twincert.Create(rand.Reader, x, a.issuer, unasked{a.key, t}); !errors.Is(err, twincert.ErrTemplate) {
			t.Errorf("%s: %v", name, err)
		}
	}
	other := newAuthority(t)
	if _, err := twincert.Create(rand.Reader, router(t, twincert.Paper), other.issuer, unasked{a.key, t}); !errors.Is(err, twincert.ErrTemplate) {
		t.Errorf("another issuer's name: %v", err)
	}
}

// The same, and the golden ones, are what FuzzParse starts from.
func TestGoldenSeeds(t *testing.T) {
	same := func(b []byte) []byte { return b }
	seed := func(name string, der []byte) {
		compare(t, filepath.Join("testdata", "fuzz", "FuzzParse", name), fmt.Appendf(nil, "go test fuzz v1\n[]byte(%q)\n", der), same)
	}
	for i, tt := range malformed {
		p := twincert.Paper
		if tt.compat {
			p = twincert.Compat
		}
		c := decode(t, golden(t, p, twincert.Router))
		tt.edit(c)
		seed(fmt.Sprintf("malformed-%02d", i), c.der())
	}
	for _, p := range []twincert.Profile{twincert.Paper, twincert.Compat} {
		seed("router-"+p.String(), golden(t, p, twincert.Router))
		seed("user-"+p.String(), golden(t, p, twincert.User))
	}
}

// unasked is a signer that must not be asked.
type unasked struct {
	crypto.Signer
	t *testing.T
}

func (u unasked) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	u.t.Error("it was signed")
	return nil, errors.ErrUnsupported
}

// prefixes reads a list.
func prefixes(s string) (ps []netip.Prefix) {
	for f := range strings.FieldsSeq(s) {
		ps = append(ps, netip.MustParsePrefix(f))
	}
	return ps
}

// many is n prefixes that do not touch.
func many(n int) (ps []netip.Prefix) {
	for i := range n {
		ps = append(ps, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 25))
	}
	return ps
}
