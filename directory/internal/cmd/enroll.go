package cmd

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	caclient "twinkey/ca/client"
	"twinkey/pkg/cli"
	"twinkey/pkg/identity"
)

func enrollCommand(in func() home) *cobra.Command {
	var ca, fingerprint, token string
	var hosts []string
	c := &cobra.Command{
		Use:   "enroll --ca URL --fingerprint F --token T",
		Short: "Get this directory its certificate from the CA",
		Long: `Makes a key, which never leaves this machine, and has the CA certify it. The fingerprint
is that of the CA's root, as "twinkey-ca init" printed it; it alone says whom to trust. The
token comes from "twinkey-ca directory token" and works once.`,
		Example: "  twinkey-directory enroll --ca https://ca.example:8700 --fingerprint 3f9a... --token twinkey-directory.k7w...",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			const what = "enrolling this directory"
			h := in()
			if err := os.MkdirAll(string(h), 0o700); err != nil {
				return fail(what, err)
			}
			// Before the token is spent.
			if _, err := os.Lstat(h.identity()); err == nil {
				return fail(what, fmt.Errorf("%s: %w", h.identity(), identity.ErrExists))
			}
			b, _, err := caclient.Enroll(c.Context(), ca, fingerprint, token, caclient.Options{Hosts: hosts, Role: roleDirectory})
			if err != nil {
				return fail(what, err)
			}
			if _, err := identity.Create(h.identity(), b); err != nil {
				return fail(what, err)
			}
			if err := writeSettings(h.settings(), ca); err != nil {
				return fail(what, err)
			}
			made := struct {
				Bearer   string    `json:"bearer"`
				NotAfter time.Time `json:"not_after"`
				Dir      string    `json:"dir"`
			}{b.TLS.Leaf.URIs[0].String(), b.TLS.Leaf.NotAfter, string(h)}
			return cli.Tell(c, made, "enrolled: certificate %s, valid for %s\nnext: twinkey-directory serve --dir %s\n", made.Bearer, cli.Duration(time.Until(made.NotAfter)), h)
		},
	}
	cli.AddJSON(c)
	c.Flags().StringVar(&ca, "ca", "", "URL of the CA")
	c.Flags().StringVar(&fingerprint, "fingerprint", "", "SHA-256 of the CA's root certificate, hex")
	c.Flags().StringVar(&token, "token", "", "one-time token")
	c.Flags().StringSliceVar(&hosts, "host", nil, "DNS name or address wanted in the certificate (repeat)")
	for _, f := range []string{"ca", "fingerprint", "token"} {
		_ = c.MarkFlagRequired(f) // fails only for a flag that is not there
	}
	return c
}
