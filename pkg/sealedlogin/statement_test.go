package sealedlogin_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"errors"
	"math/big"
	"net/url"
	"testing"
	"time"

	"twinkey/pkg/sealedlogin"
	"twinkey/pkg/twincert"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// company is a root, an intermediate below it, and who is certified by that.
type company struct {
	root, inter *x509.Certificate
	key         *ecdsa.PrivateKey // of the intermediate
}

var born = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func newCompany() company {
	rootKey, key := newKey(), newKey()
	ca := func(serial int64, cn string) *x509.Certificate {
		return &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: cn}, IsCA: true, BasicConstraintsValid: true,
			NotBefore: born, NotAfter: born.AddDate(10, 0, 0), KeyUsage: x509.KeyUsageCertSign}
	}
	root := must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, ca(1, "root"), ca(1, "root"), rootKey.Public(), rootKey))))
	inter := must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, ca(2, "intermediate"), root, key.Public(), rootKey))))
	return company{root, inter, key}
}

func newKey() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) }

// bearer certifies a TLS key as that of uri, for a month.
func (c company) bearer(uri string, usage ...x509.ExtKeyUsage) tls.Certificate {
	key := newKey()
	der := must(x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(3), URIs: []*url.URL{must(url.Parse(uri))}, NotBefore: born, NotAfter: born.AddDate(0, 1, 0), ExtKeyUsage: usage,
	}, c.inter, key.Public(), c.key))
	return tls.Certificate{Certificate: [][]byte{der, c.inter.Raw}, PrivateKey: key}
}

func (c company) roots() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(c.root)
	return p
}

const server = x509.ExtKeyUsageServerAuth

// A statement is believed of the CA, under the root that is known, for as long as it says.
func TestWhoseWordALoginKeyIs(t *testing.T) {
	c, stranger := newCompany(), newCompany()
	_, key := loginKey(t, 5)
	_, another := loginKey(t, 6)
	by := c.bearer("twinkey://ca", server)
	now := born.Add(time.Hour)
	signed := func(by tls.Certificate) sealedlogin.Statement {
		return must(sealedlogin.Sign(key, now.Add(20*time.Minute), by))
	}
	for name, tt := range map[string]struct {
		statement func() sealedlogin.Statement
		roots     *x509.CertPool
		ahead     time.Duration // of our clock
		want      error
	}{
		"the CA's":                         {func() sealedlogin.Statement { return signed(by) }, c.roots(), 0, nil},
		"a clock that is late":             {func() sealedlogin.Statement { return signed(by) }, c.roots(), -50 * time.Minute, nil},
		"just in time":                     {func() sealedlogin.Statement { return signed(by) }, c.roots(), 25 * time.Minute, nil},
		"expired":                          {func() sealedlogin.Statement { return signed(by) }, c.roots(), 25*time.Minute + time.Second, sealedlogin.ErrExpired},
		"before there was the CA":          {func() sealedlogin.Statement { return signed(by) }, c.roots(), -2 * time.Hour, sealedlogin.ErrStatement},
		"a certificate that has expired":   {func() sealedlogin.Statement { return signed(by) }, c.roots(), 32 * 24 * time.Hour, sealedlogin.ErrStatement},
		"another root":                     {func() sealedlogin.Statement { return signed(by) }, stranger.roots(), 0, sealedlogin.ErrStatement},
		"another company's CA":             {func() sealedlogin.Statement { return signed(stranger.bearer("twinkey://ca", server)) }, c.roots(), 0, sealedlogin.ErrStatement},
		"no root":                          {func() sealedlogin.Statement { return signed(by) }, x509.NewCertPool(), 0, sealedlogin.ErrStatement},
		"a router's":                       {func() sealedlogin.Statement { return signed(c.bearer("twinkey://router/ra", server)) }, c.roots(), 0, sealedlogin.ErrStatement},
		"the directory's":                  {func() sealedlogin.Statement { return signed(c.bearer("twinkey://directory", server)) }, c.roots(), 0, sealedlogin.ErrStatement},
		"nobody's: a portal's certificate": {func() sealedlogin.Statement { return signed(c.bearer("https://ca", server)) }, c.roots(), 0, sealedlogin.ErrStatement},
		"one that is for no server":        {func() sealedlogin.Statement { return signed(c.bearer("twinkey://ca", x509.ExtKeyUsageClientAuth)) }, c.roots(), 0, sealedlogin.ErrStatement},
		"the intermediate left out":        {func() sealedlogin.Statement { s := signed(by); s.Chain = s.Chain[:1]; return s }, c.roots(), 0, sealedlogin.ErrStatement},
		"the CA's certificate, a router's signature": {func() sealedlogin.Statement {
			s := signed(c.bearer("twinkey://router/ra", server))
			s.Chain = by.Certificate
			return s
		}, c.roots(), 0, sealedlogin.ErrStatement},
		"a router's certificate before the CA's": {func() sealedlogin.Statement {
			router := c.bearer("twinkey://router/ra", server)
			s := signed(router)
			s.Chain = [][]byte{router.Certificate[0], by.Certificate[0], c.inter.Raw}
			return s
		}, c.roots(), 0, sealedlogin.ErrStatement},
		"another key": {func() sealedlogin.Statement { s := signed(by); s.Key = another; return s }, c.roots(), 0, sealedlogin.ErrStatement},
		"a later end": {func() sealedlogin.Statement { s := signed(by); s.NotAfter = s.NotAfter.Add(time.Second); return s }, c.roots(), 0, sealedlogin.ErrStatement},
		"no chain":    {func() sealedlogin.Statement { s := signed(by); s.Chain = nil; return s }, c.roots(), 0, sealedlogin.ErrStatement},
		"no certificate": {func() sealedlogin.Statement {
			s := signed(by)
			s.Chain = [][]byte{[]byte("certificate")}
			return s
		}, c.roots(), 0, sealedlogin.ErrStatement},
		"a signature over the bare key": {func() sealedlogin.Statement {
			s := signed(by)
			digest := sha256.Sum256(s.Key[:])
			s.Signature = must(twincert.SignLowS(rand.Reader, by.PrivateKey.(*ecdsa.PrivateKey), digest[:]))
			return s
		}, c.roots(), 0, sealedlogin.ErrStatement},
		"the other signature that fits": {func() sealedlogin.Statement { s := signed(by); s.Signature = highS(s.Signature); return s }, c.roots(), 0, sealedlogin.ErrStatement},
	} {
		if err := tt.statement().Verify(tt.roots, now.Add(tt.ahead)); !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
}

// highS is the second of the two signatures that ECDSA has for the same.
func highS(sig []byte) []byte {
	// SEQUENCE { INTEGER r, INTEGER s }
	r := sig[4 : 4+int(sig[3])]
	s := new(big.Int).SetBytes(sig[4+len(r)+2:])
	high := new(big.Int).Sub(elliptic.P256().Params().N, s).Bytes()
	if high[0]&0x80 != 0 {
		high = append([]byte{0}, high...)
	}
	out := append([]byte{2, byte(len(r))}, r...)
	out = append(append(out, 2, byte(len(high))), high...)
	return append([]byte{0x30, byte(len(out))}, out...)
}

// No byte of a statement can be another one.
func TestNoByteOfAStatementCanBeChanged(t *testing.T) {
	c := newCompany()
	_, key := loginKey(t, 5)
	now := born.Add(time.Hour)
	good := must(must(sealedlogin.Sign(key, now.Add(20*time.Minute), c.bearer("twinkey://ca", server))).Bytes())
	believed := func(b []byte) bool {
		s, err := sealedlogin.ParseStatement(b)
		return err == nil && s.Verify(c.roots(), now) == nil
	}
	if !believed(good) {
		t.Fatal("not believed")
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		if believed(bad) {
			t.Errorf("byte %d of %d changed: believed", i, len(good))
		}
		if _, err := sealedlogin.ParseStatement(good[:i]); !errors.Is(err, sealedlogin.ErrStatement) {
			t.Errorf("cut to %d bytes: %v", i, err)
		}
	}
}

func TestWhatIsNoStatement(t *testing.T) {
	c := newCompany()
	_, key := loginKey(t, 5)
	by := c.bearer("twinkey://ca", server)
	good := must(sealedlogin.Sign(key, born, by))
	many := good
	many.Chain = make([][]byte, 9)
	long := good
	long.Chain = [][]byte{make([]byte, sealedlogin.MaxStatement)}
	none := good
	none.Chain = nil
	for name, s := range map[string]sealedlogin.Statement{"nine certificates": many, "too long": long, "none": none} {
		if b, err := s.Bytes(); !errors.Is(err, sealedlogin.ErrStatement) || b != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := sealedlogin.ParseStatement(append(must(good.Bytes()), 0)); !errors.Is(err, sealedlogin.ErrStatement) {
		t.Errorf("something behind it: %v", err)
	}
	if _, err := sealedlogin.Sign(key, born, tls.Certificate{Certificate: by.Certificate}); !errors.Is(err, twincert.ErrKey) {
		t.Errorf("signed without a key: %v", err)
	}
}

// A statement that an earlier build has written is believed as ever, and what is signed is what the documentation says.
func TestStatementOfAnEarlierBuild(t *testing.T) {
	const file = "testdata/statement.hex"
	var root, statement, key, end []byte
	fields := []field{{"root", &root}, {"key", &key}, {"end", &end}, {"statement", &statement}}
	if *update {
		c := newCompany()
		_, k := loginKey(t, 5)
		at := born.Add(time.Hour)
		root, key, end = c.root.Raw, k[:], binary.BigEndian.AppendUint64(nil, uint64(at.Unix()))
		statement = must(must(sealedlogin.Sign(k, at, c.bearer("twinkey://ca", server))).Bytes())
		writeHex(t, file, "The CA's word for a login key: the root certificate, the key, until when (seconds since 1970), and what is sent.", fields)
	}
	readHex(t, file, fields)
	pool := x509.NewCertPool()
	pool.AddCert(must(x509.ParseCertificate(root)))
	s := must(sealedlogin.ParseStatement(statement))
	at := time.Unix(int64(binary.BigEndian.Uint64(end)), 0)
	if err := s.Verify(pool, at); err != nil || !bytes.Equal(s.Key[:], key) || !s.NotAfter.Equal(at) || len(key) != 32 {
		t.Errorf("%+v: %v", s, err)
	}
	if again := must(s.Bytes()); !bytes.Equal(again, statement) {
		t.Errorf("%x came back as %x", statement, again)
	}
	text := append([]byte("twinkey login key 1\x00\x00\x00\x00\x20"), key...)
	text = append(append(text, 0, 0, 0, 8), end...)
	digest := sha256.Sum256(text)
	if !twincert.VerifyLowS(must(x509.ParseCertificate(s.Chain[0])).PublicKey.(*ecdsa.PublicKey), digest[:], s.Signature) {
		t.Error("something else is signed")
	}
}

func FuzzParseStatement(f *testing.F) {
	c := newCompany()
	_, key := loginKey(f, 5)
	by := c.bearer("twinkey://ca", server)
	good := must(must(sealedlogin.Sign(key, born.Add(time.Hour), by)).Bytes())
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add(append([]byte{1}, make([]byte, 45)...))
	f.Add([]byte{})
	roots := c.roots()
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := sealedlogin.ParseStatement(b)
		if err != nil {
			return
		}
		if again, err := s.Bytes(); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x came back as %x, %v", b, again, err)
		}
		if s.Verify(roots, born.Add(time.Hour)) == nil && s.Key != key {
			t.Fatalf("%x is believed", b)
		}
	})
}
