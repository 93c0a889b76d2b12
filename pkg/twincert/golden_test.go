package twincert_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"flag"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"twinkey/pkg/twincert"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden makes the same certificate each time: fixed keys, and an ECDSA signature without
// randomness (RFC 6979).
func golden(t *testing.T, p twincert.Profile, role twincert.Role) []byte {
	t.Helper()
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), bytes.Repeat([]byte{0x11}, 32))
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Example Corp Intermediate CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: now.AddDate(-1, 0, 0), NotAfter: now.AddDate(9, 0, 0), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	x := router(t, p)
	x.Keys = twincert.Keys{ // those of RFC 7748 6.1
		Control: [32]byte(unhex(t, "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")),
		Data:    [32]byte(unhex(t, "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")),
	}
	if x.Role = role; role == twincert.User {
		x.Name, x.Group, x.Scope, x.Prefixes = "alice", "staff", nil, nil
	}
	if der, err = twincert.Create(nil, x, issuer, key); err != nil {
		t.Fatal(err)
	}
	return der
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The encoding does not change unnoticed, and openssl, an independent reader, sees in each
// file what its .txt shows: two BIT STRINGs in the SubjectPublicKeyInfo of profile paper.
func TestGolden(t *testing.T) {
	for name, der := range map[string][]byte{
		"router-paper":  golden(t, twincert.Paper, twincert.Router),
		"router-compat": golden(t, twincert.Compat, twincert.Router),
		"user-paper":    golden(t, twincert.Paper, twincert.User),
		"user-compat":   golden(t, twincert.Compat, twincert.User),
	} {
		t.Run(name, func(t *testing.T) {
			c, err := twincert.Parse(der)
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", name+".pem")
			compare(t, file, c.PEM(), func(b []byte) []byte { return b })
			openssl, err := exec.LookPath("openssl")
			if err != nil {
				skip(t, "needs openssl (apt install openssl)")
			}
			text, err := exec.Command(openssl, "asn1parse", "-i", "-in", file).Output()
			if err != nil {
				t.Fatal(err)
			}
			compare(t, filepath.Join("testdata", name+".txt"), text, func(b []byte) []byte { return objectName.ReplaceAll(b, []byte("$1")) })
		})
	}
}

// objectName is what openssl calls an object identifier: other versions, other names.
var objectName = regexp.MustCompile(`(?m)(OBJECT) +:.*$`)

// compare holds got, as far as key sees it, against a golden file.
func compare(t *testing.T, file string, got []byte, key func([]byte) []byte) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, got, 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(key(got), key(want)) {
		t.Errorf("%s has changed; if that is meant, run the test with -update\n%s", file, got)
	}
}
