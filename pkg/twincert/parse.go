package twincert

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// MaxSize is the longest certificate that Parse reads, in bytes.
const MaxSize = 8192

// Limits on lists in a certificate.
const (
	maxScope    = 64
	maxPrefixes = 256
)

// Causes of an Error.
var (
	ErrSize      = errors.New("certificate too large")
	ErrEncoding  = errors.New("not the DER that it has to be")
	ErrKeyCount  = errors.New("not exactly two keys")
	ErrKeyLength = errors.New("an X25519 key has 32 bytes")
	ErrKeyWeak   = errors.New("key of low order, or both keys the same")
	ErrAlgorithm = errors.New("not the algorithm that it has to be")
	ErrEKU       = errors.New("not exactly one extended key usage of a router or a user")
	ErrHighS     = errors.New("signature with a high s")
	ErrSubject   = errors.New("subject is not CN, or CN and OU, with proper names")
	ErrExtension = errors.New("extension missing, unknown or in a wrong place")
)

// Error says which field of a certificate is wrong and where it begins.
type Error struct {
	Field  string
	Offset int // bytes from the start of the certificate; -1: not known
	Err    error
}

func (e *Error) Error() string {
	if e.Offset < 0 {
		return fmt.Sprintf("twin certificate: %s: %v", e.Field, e.Err)
	}
	return fmt.Sprintf("twin certificate: %s at offset %d: %v", e.Field, e.Offset, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// Parse reads a twin certificate strictly. Its error is an *Error.
func Parse(der []byte) (*Certificate, error) {
	if len(der) > MaxSize {
		return nil, &Error{Field: "Certificate", Err: ErrSize}
	}
	der = bytes.Clone(der)
	outer, spki, rest, err := splitSPKI(der)
	if err != nil {
		return nil, err
	}
	at := offset(der, spki)
	keys, profile, err := parseSPKI(spki, at)
	if err != nil {
		return nil, err
	}
	plain := der
	if profile == Paper {
		if plain, err = outer.splice(keys[0], rest); err != nil {
			return nil, &Error{Field: "SubjectPublicKeyInfo", Offset: at, Err: err}
		}
	}
	std, err := x509.ParseCertificate(plain)
	if err != nil {
		return nil, &Error{Field: "Certificate", Offset: -1, Err: fmt.Errorf("%w: %w", ErrEncoding, err)}
	}
	c := &Certificate{
		Raw: der, Profile: profile, Issuer: std.Issuer, Serial: std.SerialNumber,
		NotBefore: std.NotBefore, NotAfter: std.NotAfter, std: std,
	}
	// What crypto/x509 verifies is what was signed, not what it parsed.
	std.Raw, std.RawTBSCertificate = der, outer.tbs
	for _, check := range []func() error{
		func() error { return c.takeKeys(keys, at) }, c.takeSubject, c.takeRole, c.takeExtensions, c.checkSignature, c.checkRest,
	} {
		if err := check(); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// envelope is a certificate taken apart at its SubjectPublicKeyInfo.
type envelope struct {
	tbs    []byte // the whole TBSCertificate element
	before []byte // contents of TBSCertificate before the SubjectPublicKeyInfo
	tail   []byte // signatureAlgorithm and signatureValue
}

func offset(der, part []byte) int { return cap(der) - cap(part) }

func splitSPKI(der []byte) (e envelope, spki, rest []byte, err error) {
	fail := func(field string, s cryptobyte.String, cause error) (envelope, []byte, []byte, error) {
		return envelope{}, nil, nil, &Error{Field: field, Offset: offset(der, s), Err: cause}
	}
	in := cryptobyte.String(der)
	var cert, tbsElem, tbs cryptobyte.String
	if !in.ReadASN1(&cert, cbasn1.SEQUENCE) {
		return fail("Certificate", in, ErrEncoding)
	}
	if !in.Empty() {
		return fail("end of Certificate", in, ErrEncoding)
	}
	tail := cert
	if !tail.ReadASN1Element(&tbsElem, cbasn1.SEQUENCE) {
		return fail("TBSCertificate", cert, ErrEncoding)
	}
	inner := tbsElem
	if !inner.ReadASN1(&tbs, cbasn1.SEQUENCE) {
		return fail("TBSCertificate", cert, ErrEncoding)
	}
	cur := tbs
	if !cur.SkipOptionalASN1(cbasn1.Tag(0).Constructed().ContextSpecific()) {
		return fail("version", cur, ErrEncoding)
	}
	for _, f := range []struct {
		name string
		tag  cbasn1.Tag
	}{{"serialNumber", cbasn1.INTEGER}, {"signature", cbasn1.SEQUENCE}, {"issuer", cbasn1.SEQUENCE}, {"validity", cbasn1.SEQUENCE}, {"subject", cbasn1.SEQUENCE}} {
		if !cur.SkipASN1(f.tag) {
			return fail(f.name, cur, ErrEncoding)
		}
	}
	before := tbs[:len(tbs)-len(cur)]
	var el cryptobyte.String
	if !cur.ReadASN1Element(&el, cbasn1.SEQUENCE) {
		return fail("SubjectPublicKeyInfo", cur, ErrEncoding)
	}
	return envelope{tbs: tbsElem, before: before, tail: tail}, el, cur, nil
}

// parseSPKI reads one or two keys; two are the paper profile.
func parseSPKI(spki []byte, at int) (keys [][]byte, p Profile, err error) {
	in := cryptobyte.String(spki)
	var body, alg cryptobyte.String
	var oid asn1.ObjectIdentifier
	if !in.ReadASN1(&body, cbasn1.SEQUENCE) || !body.ReadASN1(&alg, cbasn1.SEQUENCE) || !alg.ReadASN1ObjectIdentifier(&oid) {
		return nil, 0, &Error{Field: "SubjectPublicKeyInfo.algorithm", Offset: at, Err: ErrEncoding}
	}
	if !oid.Equal(oidX25519) || !alg.Empty() { // RFC 8410 3: parameters absent
		return nil, 0, &Error{Field: "SubjectPublicKeyInfo.algorithm", Offset: at, Err: ErrAlgorithm}
	}
	for !body.Empty() {
		where := at + offset(spki, body)
		var k []byte
		switch {
		case len(keys) == 2:
			return nil, 0, &Error{Field: "behind the second key", Offset: where, Err: ErrKeyCount}
		case !body.ReadASN1BitStringAsBytes(&k):
			return nil, 0, &Error{Field: "subject public key", Offset: where, Err: ErrEncoding}
		case len(k) != 32:
			return nil, 0, &Error{Field: "subject public key", Offset: where, Err: ErrKeyLength}
		}
		keys = append(keys, k)
	}
	switch len(keys) {
	case 1:
		return keys, Compat, nil
	case 2:
		return keys, Paper, nil
	}
	return nil, 0, &Error{Field: "SubjectPublicKeyInfo", Offset: at, Err: ErrKeyCount}
}

// splice rebuilds the certificate with the control key alone, for crypto/x509.
func (e envelope) splice(control, rest []byte) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddBytes(e.before)
			addSPKI(b, control)
			b.AddBytes(rest)
		})
		b.AddBytes(e.tail)
	})
	return b.Bytes()
}

func addSPKI(b *cryptobyte.Builder, keys ...[]byte) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oidX25519) })
		for _, k := range keys {
			b.AddASN1BitString(k)
		}
	})
}

// takeKeys reads the data key and refuses keys that no honest bearer has.
func (c *Certificate) takeKeys(keys [][]byte, at int) error {
	var alt [][]byte
	for _, x := range c.std.Extensions {
		if !x.Id.Equal(oidAltKey) {
			continue
		}
		if c.Profile == Paper || x.Critical || alt != nil {
			return &Error{Field: "subjectAltPublicKeyInfo", Offset: -1, Err: ErrExtension}
		}
		k, p, err := parseSPKI(x.Value, 0)
		if err != nil || p != Compat {
			return &Error{Field: "subjectAltPublicKeyInfo", Offset: -1, Err: errors.Join(ErrKeyCount, err)}
		}
		alt = k
	}
	keys = append(keys, alt...)
	if len(keys) != 2 {
		return &Error{Field: "SubjectPublicKeyInfo", Offset: at, Err: ErrKeyCount}
	}
	c.Keys = Keys{Control: [32]byte(keys[0]), Data: [32]byte(keys[1])}
	return checkKeys(c.Keys, at)
}

func checkKeys(k Keys, at int) error {
	if k.Control == k.Data || lowOrder(k.Control) || lowOrder(k.Data) {
		return &Error{Field: "SubjectPublicKeyInfo", Offset: at, Err: ErrKeyWeak}
	}
	return nil
}

// takeSubject reads CN and OU and nothing else.
func (c *Certificate) takeSubject() error {
	s := c.std.Subject
	c.Name = s.CommonName
	if len(s.OrganizationalUnit) == 1 {
		c.Group = s.OrganizationalUnit[0]
	}
	want := 1
	if c.Group != "" {
		want = 2
	}
	if len(s.Names) != want || CheckName(c.Name) != nil || c.Group != "" && CheckName(c.Group) != nil {
		return &Error{Field: "subject", Offset: -1, Err: ErrSubject}
	}
	return nil
}

// takeRole reads the extended key usage: ours, alone, so that nothing else takes the
// certificate for one of its own.
func (c *Certificate) takeRole() error {
	u := c.std.UnknownExtKeyUsage
	if len(c.std.ExtKeyUsage) != 0 || len(u) != 1 {
		return &Error{Field: "extKeyUsage", Offset: -1, Err: ErrEKU}
	}
	switch {
	case u[0].Equal(oidEKURouter):
		c.Role = Router
	case u[0].Equal(oidEKUUser):
		c.Role = User
	default:
		return &Error{Field: "extKeyUsage", Offset: -1, Err: ErrEKU}
	}
	return nil
}

// takeExtensions reads the two that are a router's.
func (c *Certificate) takeExtensions() error {
	var err error
	for _, x := range c.std.Extensions {
		switch {
		case x.Id.Equal(oidSDA):
			c.Scope, err = parseScope(x.Value)
			if err != nil || c.Role != Router || x.Critical { // RFC 5280 4.2.1.8: non-critical
				return &Error{Field: "subjectDirectoryAttributes", Offset: -1, Err: errors.Join(ErrExtension, err)}
			}
		case x.Id.Equal(oidIPAddrBlock):
			c.Prefixes, err = parseBlocks(x.Value)
			if err != nil || c.Role != Router || !x.Critical { // RFC 3779 2.2.1: critical
				return &Error{Field: "IPAddrBlocks", Offset: -1, Err: errors.Join(ErrExtension, err)}
			}
		}
	}
	c.std.UnhandledCriticalExtensions = slices.DeleteFunc(c.std.UnhandledCriticalExtensions, func(o asn1.ObjectIdentifier) bool { return o.Equal(oidIPAddrBlock) })
	return nil
}

// checkSignature refuses what has a second valid form: (r, n-s) beside (r, s).
func (c *Certificate) checkSignature() error {
	if c.std.SignatureAlgorithm != x509.ECDSAWithSHA256 {
		return &Error{Field: "signatureAlgorithm", Offset: -1, Err: ErrAlgorithm}
	}
	if !isLowS(c.std.Signature) {
		return &Error{Field: "signatureValue", Offset: -1, Err: ErrHighS}
	}
	return nil
}

// checkRest refuses what a twin certificate never is.
func (c *Certificate) checkRest() error {
	switch s := c.std; {
	case s.Version != 3:
		return &Error{Field: "version", Offset: -1, Err: ErrEncoding}
	case s.IsCA:
		return &Error{Field: "basicConstraints", Offset: -1, Err: ErrExtension}
	case len(s.UnhandledCriticalExtensions) > 0:
		return &Error{Field: "extension " + s.UnhandledCriticalExtensions[0].String(), Offset: -1, Err: ErrExtension}
	case s.SerialNumber.Sign() <= 0:
		return &Error{Field: "serialNumber", Offset: -1, Err: ErrEncoding}
	case s.KeyUsage != x509.KeyUsageKeyAgreement:
		return &Error{Field: "keyUsage", Offset: -1, Err: ErrExtension}
	case s.NotAfter.Before(s.NotBefore):
		return &Error{Field: "validity", Offset: -1, Err: ErrEncoding}
	}
	return nil
}

// lowOrder says whether u is one of the points that X25519 maps to zero (RFC 7748 6.1).
func lowOrder(u [32]byte) bool {
	u[31] &= 0x7f
	for _, p := range lowOrderPoints {
		if u == p {
			return true
		}
	}
	return false
}

// lowOrderPoints in little-endian u-coordinates: 0, 1, the two of order 8, p-1, p, p+1.
var lowOrderPoints = [...][32]byte{
	{},
	{1},
	{0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00},
	{0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57},
	nearP(0xec), nearP(0xed), nearP(0xee),
}

func nearP(first byte) (u [32]byte) {
	for i := range u {
		u[i] = 0xff
	}
	u[0], u[31] = first, 0x7f
	return u
}

// parseScope reads the one attribute that the extension holds:
//
//	SubjectDirectoryAttributes ::= SEQUENCE OF SEQUENCE { type OID, values SET OF UTF8String }
func parseScope(v []byte) ([]string, error) {
	in := cryptobyte.String(v)
	var attrs, attr, set cryptobyte.String
	var oid asn1.ObjectIdentifier
	if !in.ReadASN1(&attrs, cbasn1.SEQUENCE) || !in.Empty() || !attrs.ReadASN1(&attr, cbasn1.SEQUENCE) || !attrs.Empty() ||
		!attr.ReadASN1ObjectIdentifier(&oid) || !oid.Equal(oidScope) || !attr.ReadASN1(&set, cbasn1.SET) || !attr.Empty() {
		return nil, ErrEncoding
	}
	var scope []string
	for !set.Empty() {
		var s cryptobyte.String
		if !set.ReadASN1(&s, cbasn1.UTF8String) || len(scope) == maxScope {
			return nil, ErrEncoding
		}
		if err := CheckScope(string(s)); err != nil {
			return nil, err
		}
		scope = append(scope, string(s))
	}
	if len(scope) == 0 || !slices.IsSorted(scope) {
		return nil, ErrEncoding
	}
	return scope, nil
}

// parseBlocks reads RFC 3779 2.2.3:
//
//	IPAddrBlocks    ::= SEQUENCE OF IPAddressFamily
//	IPAddressFamily ::= SEQUENCE { addressFamily OCTET STRING, CHOICE { NULL, SEQUENCE OF IPAddressOrRange } }
//	IPAddressOrRange ::= CHOICE { addressPrefix BIT STRING, addressRange SEQUENCE }
//
// Ranges and inheritance are refused: what may be routed is said in prefixes.
func parseBlocks(v []byte) ([]netip.Prefix, error) {
	in := cryptobyte.String(v)
	var families cryptobyte.String
	if !in.ReadASN1(&families, cbasn1.SEQUENCE) || !in.Empty() || families.Empty() {
		return nil, ErrEncoding
	}
	var all []netip.Prefix
	last := 0
	for !families.Empty() {
		var family, afi, list cryptobyte.String
		if !families.ReadASN1(&family, cbasn1.SEQUENCE) || !family.ReadASN1(&afi, cbasn1.OCTET_STRING) || !family.ReadASN1(&list, cbasn1.SEQUENCE) || !family.Empty() || list.Empty() {
			return nil, ErrEncoding
		}
		n := 0
		if len(afi) == 2 && afi[0] == 0 {
			n = int(afi[1])
		}
		if n != 1 && n != 2 || n <= last {
			return nil, ErrEncoding
		}
		last = n
		ps, err := parsePrefixes(list, n == 1)
		if err != nil {
			return nil, err
		}
		if all = append(all, ps...); len(all) > maxPrefixes {
			return nil, ErrSize
		}
	}
	return all, nil
}

func parsePrefixes(list cryptobyte.String, v4 bool) ([]netip.Prefix, error) {
	var ps []netip.Prefix
	for !list.Empty() {
		var bits asn1.BitString
		if !list.ReadASN1BitString(&bits) {
			return nil, ErrEncoding
		}
		size := 16
		if v4 {
			size = 4
		}
		if bits.BitLength > 8*size {
			return nil, ErrEncoding
		}
		buf := make([]byte, size)
		copy(buf, bits.Bytes)
		a, _ := netip.AddrFromSlice(buf)
		p := netip.PrefixFrom(a, bits.BitLength)
		if len(ps) > 0 && (ps[len(ps)-1].Compare(p) >= 0 || ps[len(ps)-1].Overlaps(p)) {
			return nil, ErrEncoding // not in canonical order (RFC 3779 2.2.3.6)
		}
		ps = append(ps, p)
	}
	return ps, nil
}
