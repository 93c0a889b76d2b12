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
	"net/url"
	"os"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	caclient "twinkey/ca/client"
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
			return noCert(what, err)
		}
		text, err := certText(der, time.Now()) // also before it is printed as PEM: what is none must not come out as one
		if err != nil {
			return cli.Fail(cli.ExitFailure, what, err, "it is cut off, damaged, or of a form that twinkey does not know; its owner has a copy")
		}
		if *asPEM {
			return pem.Encode(c.OutOrStdout(), &pem.Block{Type: pemCertificate, Bytes: der})
		}
		_, err = fmt.Fprint(c.OutOrStdout(), text, note)
		return err
	}
	return group("cert", "Certificates", c, certListCommand())
}

func certListCommand() *cobra.Command {
	c := &cobra.Command{Use: "list", Short: "List what was issued, and which certificate of each bearer is the present one", Args: cobra.NoArgs,
		Example: "  twinkey-ca cert list --user alice\n  twinkey-ca cert list --json | jq '.[] | select(.current)'"}
	dir := addDir(c)
	user := c.Flags().String("user", "", "of this user alone")
	router := c.Flags().String("router", "", "of this router alone")
	c.MarkFlagsMutuallyExclusive("user", "router")
	cli.AddJSON(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		return asking(c, *dir, "listing certificates", func(a *api.Admin) error {
			role, name := "", ""
			switch {
			case *user != "":
				role, name = "user", *user
			case *router != "":
				role, name = "router", *router
			}
			var certs []api.CertState
			if err := a.Query(c.Context(), &certs, url.Values{"role": {role}, "name": {name}}, "certs"); err != nil {
				return err
			}
			return printCerts(c, certs)
		})
	}
	return c
}

func printCerts(c *cobra.Command, certs []api.CertState) error {
	now := time.Now()
	return cli.Print(c, certs, func(t *cli.Table) {
		for _, x := range certs {
			current := ""
			if x.Current {
				current = "current"
			}
			t.Row(x.Serial, x.Kind, x.Role, x.Name, current, x.State, cli.Until(now, x.NotAfter), x.Reason)
		}
	}, "SERIAL", "KIND", "ROLE", "NAME", "", "STATE", "EXPIRES", "REASON")
}

const pemCertificate = "CERTIFICATE"

// errNoCert says that what was named is something else than a certificate.
var errNoCert = errors.New("not a certificate")

// noCert says what to name instead.
func noCert(what string, err error) error {
	r, refused := errors.AsType[*api.Refusal](err)
	switch {
	case errors.Is(err, api.ErrNotRunning): // which is that a socket does not exist
	case errors.Is(err, errNoCert):
		return cli.Fail(cli.ExitUsage, what, err, "name a file with a certificate in PEM or DER, such as twin.pem or tls.pem of an identity")
	case errors.Is(err, syscall.EISDIR):
		return cli.Fail(cli.ExitUsage, what, err, "name a file in it, such as current/twin.pem")
	case errors.Is(err, os.ErrNotExist):
		return cli.Fail(cli.ExitNotFound, what, err, "name a file, or a serial number as twinkey-ca user list and router list show it")
	case errors.Is(err, os.ErrPermission):
		return cli.Fail(cli.ExitDenied, what, err, "run it as the user that the file belongs to")
	case refused && r.Code == caclient.CodeNotFound:
		return cli.Fail(cli.ExitNotFound, what, err, "twinkey-ca user list and router list show serial numbers")
	}
	return fail(what, err)
}

// serial is how a serial number is written.
var serial = regexp.MustCompile(`^([0-9]+|0[xX][0-9a-fA-F]+)$`)

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
		der, err := certIn(b)
		return der, "", err
	case !errors.Is(err, os.ErrNotExist) || !serial.MatchString(name):
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

// certIn is the first certificate in a file, PEM or DER. What else lies there, a key above all, is only named.
func certIn(b []byte) ([]byte, error) {
	var others []string
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == pemCertificate {
			return block.Bytes, nil
		}
		others = append(others, block.Type)
	}
	const sequence = 0x30 // the first byte of every certificate in DER
	switch {
	case len(others) > 0:
		return nil, fmt.Errorf("%w: it holds %s", errNoCert, strings.Join(others, ", "))
	case len(b) == 0:
		return nil, fmt.Errorf("%w: it is empty", errNoCert)
	case b[0] != sequence:
		return nil, fmt.Errorf("%w: neither PEM nor DER", errNoCert)
	}
	return b, nil
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
