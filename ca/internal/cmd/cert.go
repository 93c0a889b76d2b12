package cmd

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"twinkey/ca/internal/api"
	"twinkey/pkg/cli"
	"twinkey/pkg/twincert"
)

func certCommand() *cobra.Command {
	c := &cobra.Command{Use: "show FILE|SERIAL", Short: "Print a certificate, twin or ordinary, for people", Args: cobra.ExactArgs(1),
		Long: `show prints a certificate from a file (PEM or DER, - for standard input), or one
that this CA issued, by its serial number (decimal, or hexadecimal with 0x).`,
		Example: "  twinkey-ca cert show /var/lib/twinkey-router/identity/current/twin.pem\n  twinkey-ca cert show 271828182845904523536"}
	dir := addDir(c)
	asPEM := c.Flags().Bool("pem", false, "print it as PEM")
	c.RunE = func(c *cobra.Command, args []string) error {
		what := "showing certificate " + args[0]
		der, note, err := findCert(c, *dir, args[0])
		if err != nil {
			return fail(what, err)
		}
		if *asPEM {
			return pem.Encode(c.OutOrStdout(), &pem.Block{Type: "CERTIFICATE", Bytes: der})
		}
		text, err := certText(der, time.Now())
		if err != nil {
			return fail(what, err)
		}
		_, err = fmt.Fprint(c.OutOrStdout(), text, note)
		return err
	}
	return group("cert", "Certificates", c)
}

// findCert reads a file if there is one of that name, or asks the CA.
func findCert(c *cobra.Command, dir, name string) (der []byte, note string, err error) {
	var b []byte
	if name == "-" {
		b, err = io.ReadAll(io.LimitReader(c.InOrStdin(), 1<<20))
	} else {
		b, err = os.ReadFile(name) //nolint:gosec // the operator names it
	}
	switch {
	case err == nil:
		if block, _ := pem.Decode(b); block != nil {
			b = block.Bytes
		}
		return b, "", nil
	case !errors.Is(err, os.ErrNotExist) || strings.ContainsAny(name, "/."):
		return nil, "", err
	}
	a := api.NewAdmin(dir)
	defer a.Close()
	var cert api.Cert
	if err := a.Get(c.Context(), &cert, "certs", name); err != nil {
		return nil, "", err
	}
	if !cert.Revoked.IsZero() {
		note = fmt.Sprintf("REVOKED at %s: %s\n", cert.Revoked.UTC().Format(time.RFC3339), cert.Reason)
	}
	return cert.DER, note, nil
}

// certText is a certificate in words. One that is not a twin certificate is printed as an
// ordinary one.
func certText(der []byte, now time.Time) (string, error) {
	twin, twinErr := twincert.Parse(der)
	if twinErr == nil {
		return twin.Text(now), nil
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return "", errors.Join(twinErr, err)
	}
	if _, ok := c.PublicKey.(*ecdsa.PublicKey); !ok && len(c.UnknownExtKeyUsage) > 0 {
		return "", twinErr // it means to be one
	}
	var b strings.Builder
	row := func(key, format string, args ...any) {
		fmt.Fprintf(&b, "%-12s "+format+"\n", append([]any{key + ":"}, args...)...)
	}
	sum := sha256.Sum256(c.Raw)
	b.WriteString("Certificate\n")
	row("subject", "%s", c.Subject)
	row("issuer", "%s", c.Issuer)
	row("serial", "%s (0x%x)", c.SerialNumber, c.SerialNumber)
	row("not before", "%s", c.NotBefore.UTC().Format(time.RFC3339))
	row("not after", "%s (%s)", c.NotAfter.UTC().Format(time.RFC3339), cli.Until(now, c.NotAfter))
	for _, u := range c.URIs {
		row("bearer", "%s", u)
	}
	for _, n := range c.DNSNames {
		row("dns", "%s", n)
	}
	for _, a := range c.IPAddresses {
		row("address", "%s", a)
	}
	if c.IsCA {
		row("authority", "may sign certificates")
	}
	if k, ok := c.PublicKey.(*ecdsa.PublicKey); ok && k.Curve == elliptic.P256() {
		row("key", "ECDSA P-256")
	} else {
		row("key", "%s", c.PublicKeyAlgorithm)
	}
	for _, u := range c.CRLDistributionPoints {
		row("crl", "%s", u)
	}
	row("fingerprint", "%s", hex.EncodeToString(sum[:]))
	return b.String(), nil
}

func crlCommand() *cobra.Command {
	c := &cobra.Command{Use: "crl", Short: "Print the certificate revocation list as PEM", Args: cobra.NoArgs,
		Example: "  twinkey-ca crl | openssl crl -noout -text\n  twinkey-ca crl --new"}
	dir := addDir(c)
	fresh := c.Flags().Bool("new", false, "sign a new one first, and hand it to the directory")
	cli.AddJSON(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		return asking(c, *dir, "asking for the CRL", func(a *api.Admin) error {
			var l api.CRLFile
			var err error
			if *fresh {
				err = a.Post(c.Context(), struct{}{}, &l, "crl")
			} else {
				err = a.Get(c.Context(), &l, "crl")
			}
			if err != nil {
				return err
			}
			if json, err := c.Flags().GetBool("json"); err == nil && json {
				return cli.Print(c, l, nil)
			}
			return pem.Encode(c.OutOrStdout(), &pem.Block{Type: "X509 CRL", Bytes: l.DER})
		})
	}
	return c
}

func tlsCommand() *cobra.Command {
	c := &cobra.Command{Use: "token NAME", Short: "Make a one-time token with which the step command gets a plain TLS certificate", Args: cobra.ExactArgs(1),
		Long: `token makes a token for smallstep's API: a TLS certificate for a server of
yours that the company's root vouches for. It opens nothing in twinkey.`,
		Example: `  step ca certificate wiki.example wiki.crt wiki.key --token "$(twinkey-ca tls token wiki.example)" --ca-url https://ca.example:8700 --root root.crt`}
	dir := addDir(c)
	sans := c.Flags().StringSlice("san", nil, "names and addresses in the certificate (default: NAME)")
	ttl := c.Flags().Duration("ttl", 5*time.Minute, "how long the token is good, at most 1h")
	cli.AddJSON(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		return asking(c, *dir, "making a token for "+args[0], func(a *api.Admin) error {
			names := *sans
			if len(names) == 0 {
				names = []string{args[0]}
			}
			var t api.SignToken
			if err := a.Post(c.Context(), api.NewSignToken{Name: args[0], SANs: names, TTL: ttl.String()}, &t, "sign-tokens"); err != nil {
				return err
			}
			return cli.Print(c, t, func(tb *cli.Table) { tb.Row(t.Token) })
		})
	}
	return group("tls", "Plain TLS certificates for servers of yours", c)
}
