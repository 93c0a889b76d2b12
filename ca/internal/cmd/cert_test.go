package cmd

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"twinkey/pkg/cli"
)

// What is named wrongly is wrong usage, what is not there is not found, what is broken is a failure; each says
// what to do, and nothing but a certificate is printed as one.
func TestCertShow(t *testing.T) {
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "seven"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, b []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}) }
	for name, b := range map[string][]byte{
		"c.pem": block(pemCertificate, der), "c.der": der, "both.pem": append(block("PRIVATE KEY", []byte("k")), block(pemCertificate, der)...),
		"key.pem": block("PRIVATE KEY", []byte("k")), "text": []byte("hello"), "empty": nil,
		"cut.pem": block(pemCertificate, der[:100]), "cut.der": der[:100],
	} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	for _, tt := range []struct {
		args []string
		code int
		out  string // words of standard output, or of the failure
	}{
		{[]string{"c.pem"}, cli.ExitOK, "CN=seven"},
		{[]string{"c.der"}, cli.ExitOK, "CN=seven"},
		{[]string{"both.pem"}, cli.ExitOK, "CN=seven"},
		{[]string{"c.der", "--pem"}, cli.ExitOK, "BEGIN CERTIFICATE"},
		{nil, cli.ExitUsage, "hint: "},
		{[]string{"c.pem", "c.der"}, cli.ExitUsage, "hint: "},
		{[]string{"."}, cli.ExitUsage, "hint: name a file in it"},
		{[]string{"key.pem"}, cli.ExitUsage, "it holds PRIVATE KEY"},
		{[]string{"key.pem", "--pem"}, cli.ExitUsage, "hint: name a file with a certificate"},
		{[]string{"text"}, cli.ExitUsage, "neither PEM nor DER"},
		{[]string{"text", "--pem"}, cli.ExitUsage, "neither PEM nor DER"},
		{[]string{"empty"}, cli.ExitUsage, "it is empty"},
		{[]string{"cut.pem"}, cli.ExitFailure, "hint: it is cut off"},
		{[]string{"cut.der", "--pem"}, cli.ExitFailure, "hint: it is cut off"},
		{[]string{"gone.pem"}, cli.ExitNotFound, "hint: name a file, or a serial number"},
		{[]string{"gone"}, cli.ExitNotFound, "hint: name a file, or a serial number"},
		{[]string{"12345"}, cli.ExitUnavailable, "hint: start it with"},
		{[]string{"0xAB"}, cli.ExitUnavailable, "hint: start it with"},
	} {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			var out, errs bytes.Buffer
			root := Root()
			root.SetArgs(append([]string{"cert", "show", "--dir", filepath.Join(dir, "ca")}, tt.args...))
			root.SetOut(&out)
			root.SetErr(&errs)
			code := cli.Run(t.Context(), root)
			said := &out
			if tt.code != cli.ExitOK {
				said = &errs
				if out.Len() > 0 {
					t.Errorf("it printed all the same: %s", &out)
				}
			}
			if code != tt.code || !strings.Contains(said.String(), tt.out) {
				t.Errorf("exit code %d, want %d with %q:\n%s", code, tt.code, tt.out, said)
			}
		})
	}
}
