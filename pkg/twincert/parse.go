package twincert

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
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
	ErrKeyWeak   = errors.New("key of low order or not reduced, or both keys the same")
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
	e, err := open(der)
	if err != nil {
		return nil, err
	}
	keys, profile, err := parseSPKI(e.spki, e.at["SubjectPublicKeyInfo"])
	if err != nil {
		return nil, err
	}
	plain := der
	if profile == Paper {
		if plain, err = e.splice(keys[0]); err != nil {
			return nil, e.fail("SubjectPublicKeyInfo", err)
		}
	}
	std, err := x509.ParseCertificate(plain)
	if err != nil {
		return nil, e.fail("Certificate", fmt.Errorf("%w: %w", ErrEncoding, err))
	}
	c := &Certificate{
		Raw: der, Profile: profile, Issuer: std.Issuer, Serial: std.SerialNumber,
		NotBefore: std.NotBefore, NotAfter: std.NotAfter, std: std, id: IDOf(std),
	}
	// What crypto/x509 verifies is what was signed, not what it parsed.
	std.Raw, std.RawTBSCertificate = der, e.tbs
	if err := c.takeKeys(e, keys); err != nil {
		return nil, err
	}
	for _, check := range []func(*envelope) error{c.takeSubject, c.takeRole, c.takeExtensions, c.checkSignature, c.checkRest} {
		if err := check(e); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// envelope is a certificate taken apart at its SubjectPublicKeyInfo.
type envelope struct {
	tbs          []byte // the whole TBSCertificate element
	before, rest []byte // contents of TBSCertificate on both sides of the SubjectPublicKeyInfo
	spki         []byte // that element
	tail         []byte // signatureAlgorithm and signatureValue
	at           map[string]int
	critical     map[string]bool // by object identifier
}

// extensionNames are those of the extensions whose errors have a place.
var extensionNames = map[string]string{
	oidKeyUsage.String(): "keyUsage", oidExtKeyUsage.String(): "extKeyUsage", oidAltKey.String(): "subjectAltPublicKeyInfo",
	oidSDA.String(): "subjectDirectoryAttributes", oidIPAddrBlock.String(): "IPAddrBlocks",
}

// fail says what is wrong with a field, and where it begins if it was met.
func (e *envelope) fail(field string, cause error) error {
	at, ok := e.at[field]
	if !ok {
		at = -1
	}
	return &Error{Field: field, Offset: at, Err: cause}
}

func offset(der, part []byte) int { return cap(der) - cap(part) }

// open takes a certificate apart (RFC 5280 4.1), as far as crypto/x509 does not, or not
// strictly: it overlooks what stands behind a key and behind the extensions.
func open(der []byte) (*envelope, error) {
	e := &envelope{at: map[string]int{"Certificate": 0}, critical: make(map[string]bool)}
	in := cryptobyte.String(der)
	var cert, tbs cryptobyte.String
	if !in.ReadASN1(&cert, cbasn1.SEQUENCE) {
		return nil, e.fail("Certificate", ErrEncoding)
	}
	e.at["end of Certificate"] = offset(der, in)
	if !in.Empty() {
		return nil, e.fail("end of Certificate", ErrEncoding)
	}
	e.at["TBSCertificate"] = offset(der, cert)
	inner := cert
	if !cert.ReadASN1Element((*cryptobyte.String)(&e.tbs), cbasn1.SEQUENCE) || !inner.ReadASN1(&tbs, cbasn1.SEQUENCE) {
		return nil, e.fail("TBSCertificate", ErrEncoding)
	}
	e.tail = cert
	e.at["signatureAlgorithm"] = offset(der, cert)
	if !cert.SkipASN1(cbasn1.SEQUENCE) {
		return nil, e.fail("signatureAlgorithm", ErrEncoding)
	}
	e.at["signatureValue"] = offset(der, cert)
	if !cert.SkipASN1(cbasn1.BIT_STRING) || !cert.Empty() {
		return nil, e.fail("signatureValue", ErrEncoding)
	}
	return e, e.openTBS(der, tbs)
}

func (e *envelope) openTBS(der []byte, tbs cryptobyte.String) error {
	cur := tbs
	e.at["version"] = offset(der, cur)
	var version cryptobyte.String
	v := 0
	if !cur.ReadASN1(&version, cbasn1.Tag(0).Constructed().ContextSpecific()) || !version.ReadASN1Integer(&v) || !version.Empty() || v != 2 { // v3
		return e.fail("version", ErrEncoding)
	}
	for _, f := range []struct {
		name string
		tag  cbasn1.Tag
	}{
		{"serialNumber", cbasn1.INTEGER},
		{"signature", cbasn1.SEQUENCE},
		{"issuer", cbasn1.SEQUENCE},
		{"validity", cbasn1.SEQUENCE},
		{"subject", cbasn1.SEQUENCE},
	} {
		e.at[f.name] = offset(der, cur)
		if !cur.SkipASN1(f.tag) {
			return e.fail(f.name, ErrEncoding)
		}
	}
	e.at["SubjectPublicKeyInfo"] = offset(der, cur)
	e.before = tbs[:len(tbs)-len(cur)]
	if !cur.ReadASN1Element((*cryptobyte.String)(&e.spki), cbasn1.SEQUENCE) {
		return e.fail("SubjectPublicKeyInfo", ErrEncoding)
	}
	e.rest = cur
	// No unique identifiers, which RFC 5280 4.1.2.8 wants nobody to write, and nothing
	// behind the extensions.
	e.at["extensions"] = offset(der, cur)
	var wrapped, list cryptobyte.String
	if !cur.ReadASN1(&wrapped, cbasn1.Tag(3).Constructed().ContextSpecific()) || !cur.Empty() || !wrapped.ReadASN1(&list, cbasn1.SEQUENCE) || !wrapped.Empty() {
		return e.fail("extensions", ErrEncoding)
	}
	for !list.Empty() {
		where := offset(der, list)
		var ext cryptobyte.String
		var oid asn1.ObjectIdentifier
		critical := false
		if !list.ReadASN1(&ext, cbasn1.SEQUENCE) || !ext.ReadASN1ObjectIdentifier(&oid) || ext.PeekASN1Tag(cbasn1.BOOLEAN) && !ext.ReadASN1Boolean(&critical) {
			return &Error{Field: "extensions", Offset: where, Err: ErrEncoding}
		}
		id := oid.String()
		e.critical[id] = critical
		if name, ok := extensionNames[id]; ok {
			id = name
		}
		e.at[id] = where
	}
	return nil
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
func (e *envelope) splice(control []byte) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddBytes(e.before)
			addSPKI(b, control)
			b.AddBytes(e.rest)
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
func (c *Certificate) takeKeys(e *envelope, keys [][]byte) error {
	var alt [][]byte
	for _, x := range c.std.Extensions { // crypto/x509 refuses one that stands twice
		if !x.Id.Equal(oidAltKey) {
			continue
		}
		if c.Profile == Paper || x.Critical {
			return e.fail("subjectAltPublicKeyInfo", ErrExtension)
		}
		in := cryptobyte.String(x.Value)
		k, p, err := parseSPKI(x.Value, e.at["subjectAltPublicKeyInfo"])
		if err != nil {
			return e.fail("subjectAltPublicKeyInfo", err)
		}
		if p != Compat || !in.SkipASN1(cbasn1.SEQUENCE) || !in.Empty() {
			return e.fail("subjectAltPublicKeyInfo", ErrKeyCount)
		}
		alt = k
	}
	keys = append(keys, alt...)
	if len(keys) != 2 {
		return e.fail("SubjectPublicKeyInfo", ErrKeyCount)
	}
	c.Keys = Keys{Control: [32]byte(keys[0]), Data: [32]byte(keys[1])}
	if !c.Keys.strong() {
		return e.fail("SubjectPublicKeyInfo", ErrKeyWeak)
	}
	return nil
}

// strong says whether the keys differ and are such as RFC 7748's functions yield.
func (k Keys) strong() bool {
	return k.Control != k.Data && reduced(k.Control) && reduced(k.Data) && !lowOrder(k.Control) && !lowOrder(k.Data)
}

// takeSubject reads CN and OU and nothing else.
func (c *Certificate) takeSubject(e *envelope) error {
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
		return e.fail("subject", ErrSubject)
	}
	return nil
}

// takeRole reads the extended key usage: ours, alone, so that nothing else takes the
// certificate for one of its own.
func (c *Certificate) takeRole(e *envelope) error {
	u := c.std.UnknownExtKeyUsage
	if len(c.std.ExtKeyUsage) != 0 || len(u) != 1 || !e.critical[oidExtKeyUsage.String()] {
		return e.fail("extKeyUsage", ErrEKU)
	}
	switch {
	case u[0].Equal(oidEKURouter):
		c.Role = Router
	case u[0].Equal(oidEKUUser):
		c.Role = User
	default:
		return e.fail("extKeyUsage", ErrEKU)
	}
	return nil
}

// takeExtensions reads the two that are a router's.
func (c *Certificate) takeExtensions(e *envelope) error {
	var err error
	for _, x := range c.std.Extensions {
		switch {
		case x.Id.Equal(oidSDA):
			c.Scope, err = parseScope(x.Value)
			if err != nil || c.Role != Router || x.Critical { // RFC 5280 4.2.1.8: non-critical
				return e.fail("subjectDirectoryAttributes", errors.Join(ErrExtension, err))
			}
		case x.Id.Equal(oidIPAddrBlock):
			c.Prefixes, err = parseBlocks(x.Value)
			if err != nil || c.Role != Router || !x.Critical { // RFC 3779 2.2.1: critical
				return e.fail("IPAddrBlocks", errors.Join(ErrExtension, err))
			}
		}
	}
	c.std.UnhandledCriticalExtensions = slices.DeleteFunc(c.std.UnhandledCriticalExtensions, func(o asn1.ObjectIdentifier) bool { return o.Equal(oidIPAddrBlock) })
	return nil
}

// checkSignature refuses what has a second valid form: (r, n-s) beside (r, s).
func (c *Certificate) checkSignature(e *envelope) error {
	if c.std.SignatureAlgorithm != x509.ECDSAWithSHA256 {
		return e.fail("signatureAlgorithm", ErrAlgorithm)
	}
	if !isLowS(c.std.Signature) {
		return e.fail("signatureValue", ErrHighS)
	}
	return nil
}

// checkRest refuses what a twin certificate never is.
func (c *Certificate) checkRest(e *envelope) error {
	switch s := c.std; {
	case s.IsCA:
		return e.fail("basicConstraints", ErrExtension)
	case len(s.UnhandledCriticalExtensions) > 0:
		return e.fail(s.UnhandledCriticalExtensions[0].String(), ErrExtension)
	case s.SerialNumber.Sign() <= 0:
		return e.fail("serialNumber", ErrEncoding)
	case s.KeyUsage != x509.KeyUsageKeyAgreement || !e.critical[oidKeyUsage.String()]:
		return e.fail("keyUsage", ErrExtension)
	case s.NotAfter.Before(s.NotBefore):
		return e.fail("validity", ErrEncoding)
	}
	return nil
}

// reduced says whether u is below p = 2^255 - 19. Every other encoding is a second name
// of a key (RFC 7748 5), and keys are compared by their names here.
func reduced(u [32]byte) bool {
	if u[31] != 0x7f {
		return u[31] < 0x7f
	}
	for _, b := range u[1:31] {
		if b != 0xff {
			return true
		}
	}
	return u[0] < 0xed
}

// lowOrder says whether u, which is reduced, is one of the points that X25519 maps to zero
// (RFC 7748 6.1).
func lowOrder(u [32]byte) bool {
	for _, p := range lowOrderPoints {
		if u == p {
			return true
		}
	}
	return false
}

// lowOrderPoints in little-endian u-coordinates: 0, 1, the two of order 8, p-1.
var lowOrderPoints = [...][32]byte{
	{},
	{1},
	{0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00},
	{0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57},
	{0xec, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
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
		if n := len(scope); n > 0 && inSetOrder(scope[n-1], string(s)) >= 0 {
			return nil, ErrEncoding
		}
		scope = append(scope, string(s))
	}
	if len(scope) == 0 {
		return nil, ErrEncoding
	}
	slices.Sort(scope)
	return scope, nil
}
