package cmd

import (
	"bufio"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"twinkey/pkg/cli"
	"twinkey/pkg/keybundle"
	"twinkey/router/internal/admin"
)

// maxPassword bounds what is read of a file that is said to hold a password, or two.
const maxPassword = 4096

// passwords reads them: from the first line of a file, from the next line of standard input, or from a terminal.
type passwords struct {
	c     *cobra.Command
	stdin *bufio.Reader
}

func newPasswords(c *cobra.Command) *passwords {
	return &passwords{c, bufio.NewReader(io.LimitReader(c.InOrStdin(), maxPassword))}
}

// readPassword reads one.
func readPassword(c *cobra.Command, file string) (string, error) {
	return newPasswords(c).read("Password: ", file)
}

func (p *passwords) read(prompt, file string) (string, error) {
	in := p.stdin
	switch file {
	case "":
		return p.ask(prompt)
	case "-":
	default:
		f, err := os.Open(file) //nolint:gosec // the user names it
		if err != nil {
			return "", err
		}
		defer f.Close()
		in = bufio.NewReader(io.LimitReader(f, maxPassword))
	}
	line, err := in.ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	if line = strings.TrimRight(line, "\r\n"); line == "" {
		return "", errors.New("it is empty")
	}
	return line, nil
}

func (p *passwords) ask(prompt string) (string, error) {
	fd := int(os.Stdin.Fd()) //nolint:gosec // a file descriptor fits
	if !term.IsTerminal(fd) {
		return "", errors.New("there is no terminal to ask for a password: use --password-file")
	}
	if _, err := fmt.Fprint(p.c.ErrOrStderr(), prompt); err != nil {
		return "", err
	}
	b, err := term.ReadPassword(fd)
	_, _ = fmt.Fprintln(p.c.ErrOrStderr())
	defer clear(b)
	return string(b), err
}

// choose reads a new password of uid, twice where it is typed, and refuses a weak one.
func (p *passwords) choose(uid, file string) (string, error) {
	first, err := p.read("New password: ", file)
	if err != nil {
		return "", err
	}
	if err := keybundle.CheckPassword(uid, []byte(first)); err != nil {
		return "", err
	}
	if file != "" {
		return first, nil
	}
	second, err := p.ask("New password again: ")
	if err != nil {
		return "", err
	}
	if subtle.ConstantTimeCompare([]byte(first), []byte(second)) != 1 {
		return "", errors.New("the two are not the same")
	}
	return first, nil
}

func passwd() *cobra.Command {
	var oldFile, newFile string
	c := &cobra.Command{
		Use:   "passwd UID",
		Short: "change a user's password",
		Long: `passwd proves a user's password as login does, opens the user's sealed keys and has
the directory keep them sealed under the new password. Keys and certificate stay
the same, and so do calls that are up. The old password is good for nothing from
then on, at any router; a wrong one counts and locks as at a login.

A password that is forgotten cannot be changed: have the operator give the user
new keys (twinkey-ca user renew).`,
		Example: `  twinkey-router passwd alice
  printf '%s\n%s\n' "$OLD" "$NEW" | twinkey-router passwd alice --password-file - --new-password-file -`,
		Args: cobra.ExactArgs(1),
	}
	state := stateFlag(c)
	f := c.Flags()
	f.StringVar(&oldFile, "password-file", "", "file that holds the old password in its first line; - is standard input")
	f.StringVar(&newFile, "new-password-file", "", "likewise for the new one; if both are -, the old one comes first")
	c.RunE = func(c *cobra.Command, args []string) error {
		uid := args[0]
		p := newPasswords(c)
		old, err := p.read("Password: ", oldFile)
		if err != nil {
			return cli.Fail(cli.ExitUsage, "reading the old password", err, "")
		}
		chosen, err := p.choose(uid, newFile)
		if err != nil {
			return cli.Fail(cli.ExitUsage, "reading the new password", err, "nothing was changed")
		}
		if err := admin.NewClient(socket(*state)).Passwd(c.Context(), admin.Passwd{User: uid, Password: old, New: chosen}); err != nil {
			return asked("changing the password of "+uid, err)
		}
		_, err = fmt.Fprintf(c.OutOrStdout(), "the password of %s is changed; calls that are up stay up\n", uid)
		return err
	}
	return c
}
