package cmd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"twinkey/ca/client"
	"twinkey/pkg/cli"
	"twinkey/pkg/identity"
	"twinkey/router/internal/appliance"
)

func enroll() *cobra.Command {
	var ca, fingerprint, token, tokenFile, dir string
	c := &cobra.Command{
		Use:   "enroll --ca URL --fingerprint F --token T",
		Short: "make this box's keys and have the CA certify them",
		Long: `enroll makes three key pairs on this box (control, data, TLS), proves to the CA
that it holds them, and stores what the CA certifies. The private keys never
leave the box. The token works once; the fingerprint is that of the company's
root certificate, so that nobody can pose as the CA.`,
		Example: `  twinkey-router enroll --ca https://hq.example:8700 --fingerprint 5f3a... --token-file token
  twinkey-router enroll --ca https://hq.example:8700 --fingerprint 5f3a... --token-file token --json | jq -r .not_after`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if tokenFile != "" {
				b, err := os.ReadFile(tokenFile) //nolint:gosec // the operator names it
				if err != nil {
					return cli.Fail(cli.ExitUsage, "reading the token", err, "name a file that holds it (--token-file), or the token itself (--token)")
				}
				token = strings.TrimSpace(string(b))
			}
			if ca == "" || fingerprint == "" || token == "" {
				return cli.Fail(cli.ExitUsage, "enrolling this router", errors.New("--ca, --fingerprint and --token are all needed"), "the CA's operator gets them by: twinkey-ca router token NAME --prefix P")
			}
			switch _, err := identity.Load(filepath.Join(dir, "identity")); {
			case err == nil:
				return cli.Fail(cli.ExitConflict, "enrolling this router", fmt.Errorf("%w in %s", identity.ErrExists, dir), "to enrol anew move that directory away first")
			case errors.Is(err, identity.ErrPermissions): // else the token would be spent on keys that cannot be stored
				return startFailed("enrolling this router", err)
			}
			// Before the token is spent.
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return cli.Fail(cli.ExitFailure, "making the state directory", err, "name one that can be made with --dir; the token is still good")
			}
			return enrollInto(c, ca, fingerprint, token, dir)
		},
	}
	cli.AddJSON(c)
	f := c.Flags()
	f.StringVar(&ca, "ca", "", "URL of the CA")
	f.StringVar(&fingerprint, "fingerprint", "", "SHA-256 of the root certificate, in hex")
	f.StringVar(&token, "token", "", "one-time token")
	f.StringVar(&tokenFile, "token-file", "", "file that holds the token, so that it stands in no process list")
	f.StringVar(&dir, "dir", defaultState, "state directory")
	return c
}

// refusedToEnrol says what the person in front of this box can do about it.
func refusedToEnrol(ca string, err error) error {
	what := "enrolling at " + ca
	switch {
	case errors.Is(err, client.ErrFingerprint):
		return cli.Fail(cli.ExitDenied, what, err, "compare the fingerprint with what `twinkey-ca status` prints; if it is right, something stands between this box and the CA")
	case errors.Is(err, client.ErrInvalid):
		return cli.Fail(cli.ExitUsage, what, err, "copy URL, fingerprint and token as they are from what `twinkey-ca router token` printed; the token is still good")
	case errors.Is(err, client.ErrDenied):
		return cli.Fail(cli.ExitDenied, what, err, "a token works once and for a short time: ask the CA's operator for another one")
	case errors.Is(err, client.ErrUnavailable):
		return cli.Fail(cli.ExitUnavailable, what, err, "is the CA running, and may this box reach its port? the token is still good")
	default:
		return cli.Fail(cli.ExitFailure, what, err, "compare --ca with what `twinkey-ca router token` printed; the CA's log says whether it was asked, `twinkey-ca router tokens` whether the token is still good")
	}
}

func enrollInto(c *cobra.Command, ca, fingerprint, token, dir string) error {
	b, ends, err := client.Enroll(c.Context(), ca, fingerprint, token, client.Options{Role: "router"})
	if err != nil {
		return refusedToEnrol(ca, err)
	}
	id, err := identity.Create(filepath.Join(dir, "identity"), b)
	if err == nil {
		err = appliance.Endpoints{CA: ca, Directory: ends.DirectoryURL}.Save(dir)
	}
	if err != nil {
		return cli.Fail(cli.ExitFailure, "storing what the CA has certified", err, "the token is used up: mend the cause and ask for another one")
	}
	made := struct {
		Router   string    `json:"router"`
		NotAfter time.Time `json:"not_after"`
		Dir      string    `json:"dir"`
	}{id.Name(), b.Twin.NotAfter, dir}
	return cli.Tell(c, made, "enrolled router %s; its certificates live until %s\nkeys are in %s\nnext: twinkey-router up --config FILE   (see: twinkey-router config example)\n",
		id.Name(), b.Twin.NotAfter.Format("2006-01-02"), dir)
}
