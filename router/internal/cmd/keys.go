package cmd

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"twinkey/ca/client"
	"twinkey/pkg/cli"
	"twinkey/pkg/identity"
	"twinkey/pkg/keybundle"
	"twinkey/pkg/keyfile"
	"twinkey/pkg/twincert"
)

func clientEnroll() *cobra.Command {
	var ca, fingerprint, token, tokenFile, file string
	c := &cobra.Command{
		Use:   "enroll UID --ca URL --fingerprint F --token T",
		Short: "make a user's keys on this machine and have the CA certify them",
		Long: `enroll makes the two key pairs of a user on this machine, proves to the CA that it
holds them, and keeps what the CA certifies in one file, with the private keys
sealed under a password. The private keys never leave this machine: the CA and the
directory do not have them, no router can be given them, and a password that is
forgotten cannot be reset. Then ask the operator to revoke the user, and enrol anew.

The token works once; the fingerprint is that of the company's root certificate.`,
		Example: `  twinkey-router client enroll alice --ca https://hq.example:8700 --fingerprint 5f3a... --token-file token`,
		Args:    cobra.ExactArgs(1),
	}
	f := c.Flags()
	f.StringVar(&ca, "ca", "", "URL of the CA")
	f.StringVar(&fingerprint, "fingerprint", "", "SHA-256 of the root certificate, in hex")
	f.StringVar(&token, "token", "", "one-time token")
	f.StringVar(&tokenFile, "token-file", "", "file that holds the token, so that it stands in no process list")
	f.StringVar(&file, "password-file", "", "file that holds the password to be in its first line; - is standard input (default: ask)")
	home := homeFlag(c)
	cli.AddJSON(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		what := "enrolling user " + args[0]
		if tokenFile != "" {
			b, err := os.ReadFile(tokenFile) //nolint:gosec // the user names it
			if err != nil {
				return cli.Fail(cli.ExitUsage, "reading the token", err, "name a file that holds it (--token-file), or the token itself (--token)")
			}
			token = strings.TrimSpace(string(b))
		}
		if ca == "" || fingerprint == "" || token == "" {
			return cli.Fail(cli.ExitUsage, what, errors.New("--ca, --fingerprint and --token are all needed"), "the CA's operator gets them by: twinkey-ca user token "+args[0]+" --group G")
		}
		path, err := keysOf(*home, args[0])
		if err != nil {
			return cli.Fail(cli.ExitUsage, what, err, "such as: twinkey-router client "+c.Name()+" alice --home ~/.config/twinkey")
		}
		if err := keyfile.Prepare(path); err != nil { // before the token is spent
			return keysFailed(what, err)
		}
		password, err := newPasswords(c).choose(args[0], file)
		if err != nil {
			return cli.Fail(cli.ExitUsage, "reading the password", err, "the token is still good")
		}
		defer clear(password)
		keys, ends, err := client.EnrollUser(c.Context(), ca, fingerprint, token, args[0], client.Options{})
		if err != nil {
			return refusedToCertify(what, err, "a token works once and for a short time, for one user: ask the CA's operator for another one")
		}
		defer keys.Wipe()
		k, err := sealed(keys, ca, ends, password)
		if err == nil {
			err = keyfile.Create(path, k)
		}
		if err != nil {
			return cli.Fail(cli.ExitFailure, "storing what the CA has certified", err, "the token is used up: mend the cause, have the operator revoke "+args[0]+", and ask for another token")
		}
		return cli.Tell(c, kept(k, path), "enrolled user %s of group %s; the certificate lives until %s\nkeys are in %s and nowhere else\n",
			k.UID, k.Certificate.Group, k.Certificate.NotAfter.Format("2006-01-02"), path)
	}
	return c
}

func clientRenew() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use: "renew UID", Short: "make new keys for a user and have the CA certify them under the old ones", Args: cobra.ExactArgs(1),
		Long: `renew makes new key pairs on this machine, proves to the CA that it holds these and
the old ones, and replaces the file of keys, under the same password. The old
certificate may have expired within the CA's grace; a revoked one renews nothing,
nor does a copy of keys that were renewed more than a day ago.`,
		Example: `  twinkey-router client renew alice`,
	}
	c.Flags().StringVar(&file, "password-file", "", "file that holds the password in its first line; - is standard input (default: ask)")
	home := homeFlag(c)
	cli.AddJSON(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		what := "renewing the keys of user " + args[0]
		path, err := keysOf(*home, args[0])
		if err != nil {
			return cli.Fail(cli.ExitUsage, what, err, "such as: twinkey-router client "+c.Name()+" alice --home ~/.config/twinkey")
		}
		k, err := keyfile.Load(path)
		if err != nil {
			return keysFailed(what, err)
		}
		password, err := newPasswords(c).read("Password: ", file)
		if err != nil {
			return cli.Fail(cli.ExitUsage, "reading the password", err, howToType)
		}
		defer clear(password)
		old, err := opened(k, password)
		if err != nil {
			return keysFailed(what, err)
		}
		defer old.Wipe()
		keys, ends, err := client.RenewUser(c.Context(), k.CA, old, client.Options{})
		if err != nil {
			return refusedToCertify(what, err, "a certificate that was revoked, expired long ago, or was renewed more than a day ago, is not renewed: ask the CA's operator for a token")
		}
		defer keys.Wipe()
		next, err := sealed(keys, k.CA, ends, password)
		if err == nil {
			err = keyfile.Replace(path, next)
		}
		if err != nil {
			return cli.Fail(cli.ExitFailure, "storing what the CA has certified", err, "the old keys are still good: mend the cause and renew once more, within a day")
		}
		return cli.Tell(c, kept(next, path), "renewed the keys of user %s; the certificate lives until %s\n", next.UID, next.Certificate.NotAfter.Format("2006-01-02"))
	}
	return c
}

// keptKeys say what lies in a file of keys.
type keptKeys struct {
	User     string    `json:"user"`
	Group    string    `json:"group"`
	Serial   string    `json:"serial"`
	NotAfter time.Time `json:"not_after"`
	File     string    `json:"file"`
}

func kept(k *keyfile.File, path string) keptKeys {
	return keptKeys{k.UID, k.Certificate.Group, k.Certificate.Serial.String(), k.Certificate.NotAfter, path}
}

// keysOf is where the keys of uid lie.
func keysOf(home, uid string) (string, error) {
	if err := twincert.CheckName(uid); err != nil {
		return "", fmt.Errorf("%q is no UserID: %w", uid, err)
	}
	if home == "" {
		return "", errors.New("there is no home directory: name one with --home")
	}
	return keyfile.Path(home, uid), nil
}

// sealed is what is kept of keys that the CA has certified.
func sealed(u client.UserKeys, ca string, ends client.Endpoints, password []byte) (*keyfile.File, error) {
	params, err := keybundle.DefaultParams(rand.Reader)
	if err != nil {
		return nil, err
	}
	proof, err := keybundle.Derive(password, params)
	if err != nil {
		return nil, err
	}
	defer proof.Wipe()
	f := &keyfile.File{UID: u.Certificate.Name, CA: ca, Directory: ends.DirectoryURL, Certificate: u.Certificate, Roots: u.Roots, Intermediates: u.Intermediates, Params: params}
	f.Sealed, err = keybundle.Seal(rand.Reader, keybundle.Private{Control: u.Control, Data: u.Data}, proof.Seal, u.Certificate.Raw)
	return f, err
}

// opened is the inverse of sealed.
func opened(f *keyfile.File, password []byte) (client.UserKeys, error) {
	proof, err := keybundle.Derive(password, f.Params)
	if err != nil {
		return client.UserKeys{}, err
	}
	defer proof.Wipe()
	k, err := f.Open(proof.Seal)
	return client.UserKeys{Certificate: f.Certificate, Roots: f.Roots, Intermediates: f.Intermediates, Control: k.Control, Data: k.Data}, err
}

// keysFailed says what can be done about a file of keys.
func keysFailed(what string, err error) error {
	if e, ok := errors.AsType[*identity.PermissionsError](err); ok {
		return cli.Fail(cli.ExitDenied, what, err, e.Hint())
	}
	switch {
	case errors.Is(err, keyfile.ErrExists):
		return cli.Fail(cli.ExitConflict, what, err, "twinkey-router client renew makes new ones; to enrol anew move that file away first; the token is still good")
	case errors.Is(err, keyfile.ErrNone):
		return cli.Fail(cli.ExitNotFound, what, err, "enrol first: twinkey-router client enroll, or name another directory with --home")
	case errors.Is(err, keybundle.ErrOpen):
		return cli.Fail(cli.ExitDenied, what, err, "check the password; nobody can reset it")
	}
	return cli.Fail(cli.ExitFailure, what, err, "is it damaged? Put a copy of it back; without one have the operator revoke the user, move it away and enrol anew")
}

// refusedToCertify is refusedToEnrol for a user; denied is what helps against a denial.
func refusedToCertify(what string, err error, denied string) error {
	switch {
	case errors.Is(err, client.ErrFingerprint):
		return cli.Fail(cli.ExitDenied, what, err, "compare the fingerprint with what `twinkey-ca status` prints; if it is right, something stands between this machine and the CA")
	case errors.Is(err, client.ErrInvalid):
		return cli.Fail(cli.ExitUsage, what, err, "copy UserID, URL, fingerprint and token as they are from what `twinkey-ca user token` printed; the token is still good")
	case errors.Is(err, client.ErrConflict):
		return cli.Fail(cli.ExitConflict, what, err, "the operator has given this user keys by other means; have that revoked first")
	case errors.Is(err, client.ErrDenied):
		return cli.Fail(cli.ExitDenied, what, err, denied)
	case errors.Is(err, client.ErrUnavailable):
		return cli.Fail(cli.ExitUnavailable, what, err, "is the CA running, and may this machine reach its port? nothing is spent")
	}
	return cli.Fail(cli.ExitFailure, what, err, "the CA's log says whether it was asked; tell the operator what stands here")
}
