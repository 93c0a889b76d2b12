package cmd

import (
	"bytes"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"twinkey/pkg/cli"
	"twinkey/pkg/keybundle"
	"twinkey/router/internal/admin"
)

// maxLine bounds what is read of a file that is said to hold a password in a line of it.
const maxLine = keybundle.MaxPassword + len("\r\n")

// howToType is what helps where no password could be read.
const howToType = "type it in a terminal, or name a file that holds it in its first line: --password-file FILE, - being standard input"

// passwords reads them: from the first line of a file, from the next line of standard input, or from a terminal.
type passwords struct{ c *cobra.Command }

func newPasswords(c *cobra.Command) *passwords { return &passwords{c} }

// readPassword reads one, which is the caller's to wipe.
func readPassword(c *cobra.Command, file string) ([]byte, error) {
	return newPasswords(c).read("Password: ", file)
}

func (p *passwords) read(prompt, file string) ([]byte, error) {
	switch file {
	case "":
		return p.ask(prompt)
	case "-":
		return readLine(p.c.InOrStdin())
	}
	f, err := os.Open(file) //nolint:gosec // the user names it
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readLine(f)
}

// readLine reads up to the end of a line and nothing behind it, into memory that does not move: no buffer keeps a copy of a password, and what
// comes after the line is left for the next.
func readLine(r io.Reader) ([]byte, error) {
	line := make([]byte, 0, maxLine)
	for {
		n, err := r.Read(line[len(line) : len(line)+1])
		line = line[:len(line)+n]
		switch {
		case n > 0 && line[len(line)-1] == '\n', errors.Is(err, io.EOF):
			password := bytes.TrimRight(line, "\r\n")
			if err = fits(password); err == nil && len(password) == 0 {
				err = errors.New("it is empty")
			}
			if err == nil {
				return password, nil
			}
		case err == nil && len(line) == maxLine:
			err = fits(line)
		}
		if err != nil {
			clear(line)
			return nil, err
		}
	}
}

// fits says whether a password may be so long: a longer one is nobody's, and the file is another one than was meant.
func fits(password []byte) error {
	if len(password) > keybundle.MaxPassword {
		return fmt.Errorf("%w: no password has more than %d bytes", keybundle.ErrLong, keybundle.MaxPassword)
	}
	return nil
}

func (p *passwords) ask(prompt string) ([]byte, error) {
	fd := int(os.Stdin.Fd()) //nolint:gosec // a file descriptor fits
	if !term.IsTerminal(fd) {
		return nil, errors.New("there is no terminal to ask for a password: use --password-file")
	}
	if _, err := fmt.Fprint(p.c.ErrOrStderr(), prompt); err != nil {
		return nil, err
	}
	b, err := term.ReadPassword(fd)
	_, _ = fmt.Fprintln(p.c.ErrOrStderr())
	if err == nil {
		err = fits(b)
	}
	if err != nil {
		clear(b)
		return nil, err
	}
	return b, nil
}

// choose reads a new password of uid, twice where it is typed, and refuses a weak one.
func (p *passwords) choose(uid, file string) (chosen []byte, err error) {
	first, err := p.read("New password: ", file)
	if err != nil {
		return nil, err
	}
	defer func() {
		if chosen == nil {
			clear(first)
		}
	}()
	if err := keybundle.CheckPassword(uid, first); err != nil {
		return nil, err
	}
	if file != "" {
		return first, nil
	}
	second, err := p.ask("New password again: ")
	defer clear(second)
	if err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare(first, second) != 1 {
		return nil, errors.New("the two are not the same")
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
then on, at any router; a wrong one counts and locks as at a login. Who is logged in
at the router's portal can do the same there, on the page of the session.

A password that is forgotten cannot be changed: have the operator give the user
new keys (twinkey-ca user renew).`,
		Example: `  twinkey-router passwd alice
  printf '%s\n%s\n' "$OLD" "$NEW" | twinkey-router passwd alice --password-file - --new-password-file -`,
		Args: cobra.ExactArgs(1),
	}
	state := stateFlag(c)
	cli.AddJSON(c)
	f := c.Flags()
	f.StringVar(&oldFile, "password-file", "", "file that holds the old password in its first line; - is standard input")
	f.StringVar(&newFile, "new-password-file", "", "likewise for the new one; if both are -, the old one comes first")
	c.RunE = func(c *cobra.Command, args []string) error {
		uid := args[0]
		p := newPasswords(c)
		old, err := p.read("Password: ", oldFile)
		if err != nil {
			return cli.Fail(cli.ExitUsage, "reading the old password", err, howToType)
		}
		defer clear(old)
		chosen, err := p.choose(uid, newFile)
		if err != nil {
			return cli.Fail(cli.ExitUsage, "reading the new password", err, "nothing was changed")
		}
		defer clear(chosen)
		if err := admin.NewClient(socket(*state)).Passwd(c.Context(), admin.Passwd{User: uid, Password: old, New: chosen}); err != nil {
			return asked("changing the password of "+uid, err)
		}
		return cli.Tell(c, struct {
			User string `json:"user"`
		}{uid}, "the password of %s is changed; calls that are up stay up\n", uid)
	}
	return c
}
