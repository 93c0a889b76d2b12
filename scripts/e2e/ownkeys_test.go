//go:build linux

package e2e

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"twinkey/pkg/keybundle"
	"twinkey/pkg/keyfile"
	"twinkey/pkg/twincert"
	"twinkey/scripts/lab"
)

// A user makes the keys on a machine of their own. The certificate is the company's; the private keys are in that one file, sealed, and
// nowhere at headquarters; no router can be given them, and what it says of that is what it says of a wrong password.
func TestClientEnroll(t *testing.T) {
	t.Parallel()
	c := network(t)
	ctx := t.Context()
	check(t, c.StartCA(ctx))
	check(t, c.StartDirectory(ctx))
	check(t, c.StartRouter(ctx, lab.SiteA, ""))
	const password = "only erin knows it"
	home := filepath.Join(c.Dir, "home")
	file := filepath.Join(c.Dir, "erin.password")
	check(t, os.WriteFile(file, []byte(password+"\n"), 0o600))
	out, err := c.CACommand(ctx, "user", "token", "erin", "--group", lab.UserGroup, "--json")
	check(t, err)
	var token struct{ Token, CA, Fingerprint string }
	check(t, json.Unmarshal([]byte(out), &token))
	client := func(args ...string) (string, error) { // on a machine that reaches headquarters
		argv := append([]string{os.Getenv(lab.BinEnv) + "/twinkey-router", "client"}, args...)
		return lab.Run(ctx, c.RB, append(argv, "--home", home, "--password-file", file)...)
	}
	enroll := []string{"enroll", "erin", "--ca", token.CA, "--fingerprint", token.Fingerprint, "--token", token.Token}
	out, err = client(enroll...)
	check(t, err)
	if !strings.Contains(out, "nowhere else") {
		t.Errorf("enrolled: %s", out)
	}
	if out, err := client(enroll...); err == nil || !strings.Contains(err.Error(), "there are keys already") {
		t.Errorf("twice: %s, %v", out, err)
	}

	path := keyfile.Path(home, "erin")
	st, err := os.Stat(path)
	check(t, err)
	if st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", st.Mode())
	}
	opened := func() (*keyfile.File, keybundle.Private) {
		t.Helper()
		f, err := keyfile.Load(path)
		check(t, err)
		proof, err := keybundle.Derive([]byte(password), f.Params)
		check(t, err)
		k, err := f.Open(proof.Seal)
		check(t, err)
		return f, k
	}
	first, private := opened()
	roots, inter := x509.NewCertPool(), x509.NewCertPool()
	for _, r := range first.Roots {
		roots.AddCert(r)
	}
	for _, i := range first.Intermediates {
		inter.AddCert(i)
	}
	if err := first.Certificate.Verify(twincert.VerifyOptions{Roots: roots, Intermediates: inter, Now: time.Now(), Role: twincert.User, AllowUnknownRevocation: true}); err != nil {
		t.Errorf("the certificate: %v", err)
	}
	if first.Certificate.Name != "erin" || first.Certificate.Group != lab.UserGroup || first.Directory == "" {
		t.Errorf("the file says %+v", first)
	}

	// The same words as for a wrong password and for nobody.
	check(t, c.AddUser(ctx, "dave", "the password of dave"))
	login := func(uid, address string) string {
		_, err := c.Router(ctx, lab.SiteA, "login", uid, "--address", address, "--peer", lab.SiteB.Name, "--password-file", file)
		if err == nil {
			t.Fatalf("%s is logged in", uid)
		}
		words := err.Error()[strings.Index(err.Error(), "\n"):]
		return strings.ReplaceAll(words, uid, "X")
	}
	if own, wrong, nobody := login("erin", "10.1.1.3"), login("dave", "10.1.1.3"), login("nobody", "10.1.1.3"); own != wrong || own != nobody || !strings.Contains(own, "login of X refused") {
		t.Errorf("a router tells keys elsewhere from a wrong password:\n%s\n%s\n%s", own, wrong, nobody)
	}

	// Renewed by possession of the old keys, and not by a wrong password.
	check(t, os.WriteFile(file, []byte("a guess at it\n"), 0o600))
	if out, err := client("renew", "erin"); err == nil || !strings.Contains(err.Error(), "does not open") {
		t.Errorf("renewed with a wrong password: %s, %v", out, err)
	}
	check(t, os.WriteFile(file, []byte(password+"\n"), 0o600))
	_, err = client("renew", "erin")
	check(t, err)
	second, renewed := opened()
	if second.Certificate.ID() == first.Certificate.ID() || renewed.Data.Equal(private.Data) || renewed.Control.Equal(private.Control) {
		t.Error("a renewal means new keys and a new certificate")
	}
	out, err = c.CACommand(ctx, "user", "list")
	check(t, err)
	if !strings.Contains(out, " own ") || !strings.Contains(out, " sealed ") {
		t.Errorf("the operator sees\n%s", out)
	}

	// All that there is but the file: databases, logs, the router's state.
	check(t, c.Routers[lab.SiteA.Name].Stop())
	check(t, c.Directory.Stop())
	check(t, c.CA.Stop())
	for _, k := range [][]byte{private.Control.Bytes(), private.Data.Bytes(), renewed.Control.Bytes(), renewed.Data.Bytes()} {
		for _, at := range holding(t, c.Dir, k) {
			t.Errorf("a private key lies in %s", at)
		}
	}
	for _, word := range []string{password, token.Token} {
		if at := holding(t, filepath.Join(c.Dir, "directory"), []byte(word)); len(at) > 0 {
			t.Errorf("%q lies in %q", word, at)
		}
	}
	public := second.Certificate.Keys.Data
	if at := holding(t, c.Dir, public[:]); len(at) < 2 {
		t.Errorf("the public key is found in %q only: the search is no good", at)
	}
}

// Erin's machine encrypts with the keys that were made there: it proves them to the router in front, which is never handed any. Whoever has her
// file and not her password gets nowhere; the router may restart; a revocation is the end.
func TestClientLoginByOwnKeys(t *testing.T) {
	t.Parallel()
	c, erin := front(t, "")
	ctx := t.Context()
	const password = "only erin knows it"
	file := filepath.Join(c.Dir, "erin.password") // where StartClient looks
	check(t, os.WriteFile(file, []byte(password+"\n"), 0o600))
	out, err := c.CACommand(ctx, "user", "token", "erin", "--group", lab.UserGroup, "--json")
	check(t, err)
	var token struct{ Token, CA, Fingerprint string }
	check(t, json.Unmarshal([]byte(out), &token))
	_, err = c.Client(ctx, c.RB, "erin", "enroll", "erin", "--ca", token.CA, "--fingerprint", token.Fingerprint, "--token", token.Token, "--password-file", file)
	check(t, err)

	// The fingerprint was told at the enrolment, and is not needed again. The password is tried on the file alone.
	guess := filepath.Join(c.Dir, "guess.password")
	check(t, os.WriteFile(guess, []byte("a guess at it\n"), 0o600))
	login := func(password string, more ...string) string {
		t.Helper()
		out, err := c.Client(ctx, c.HostA, "erin", append([]string{"login", "erin", "--router", lab.SiteA.Front().String(), "--password-file", password}, more...)...)
		if err == nil {
			t.Fatalf("logged in:\n%s", out)
		}
		return err.Error()
	}
	if said := login(guess); !strings.Contains(said, "nobody can reset it") {
		t.Errorf("with a wrong password: %s", said)
	}
	if said := login(file, "--released-keys"); !strings.Contains(said, "no such user, or a wrong password") {
		t.Errorf("by password: %s", said)
	}

	p, err := c.StartClient(ctx, c.HostA, lab.SiteA, "erin", "erin")
	check(t, err)
	reaches(t, c.HostA, erin, 20*time.Second, p)
	sends(t, c.HostA, c.HostB, lab.SiteB.Host, 5<<20)
	sends(t, c.HostB, c.HostA, erin, 5<<20)
	if call, up := status(t, c, lab.SiteB).UserCall("erin"); !up || call.Peer != lab.SiteA.Name {
		t.Errorf("at the far end: %+v, %v", call, up)
	}
	st := status(t, c, lab.SiteA)
	if _, up := st.UserCall("erin"); up || len(st.Clients) != 1 || st.Clients[0].User != "erin" {
		t.Errorf("the router in front: call %v, clients %+v", up, st.Clients)
	}
	out, err = c.DirectoryCommand(ctx, "audit", "--kind", "login", "--subject", "erin")
	check(t, err)
	if !strings.Contains(out, "at router "+lab.SiteA.Name) {
		t.Errorf("the audit says\n%s", out)
	}

	// A router that was restarted knows nothing of her; she is there again without having typed anything.
	check(t, c.Routers[lab.SiteA.Name].Stop())
	check(t, c.RouterUp(ctx, lab.SiteA))
	check(t, lab.Until(ctx, "a login anew", 60*time.Second, func(ctx context.Context) error {
		st, err := c.Status(ctx, lab.SiteA)
		if err == nil && len(st.Clients) != 1 {
			err = errors.New("she is not there")
		}
		return err
	}, p))
	reaches(t, c.HostA, erin, 60*time.Second, p)

	// Nobody else has her keys, now that they were used.
	f, err := keyfile.Load(keyfile.Path(filepath.Join(c.Dir, "client-erin"), "erin"))
	check(t, err)
	proof, err := keybundle.Derive([]byte(password), f.Params)
	check(t, err)
	private, err := f.Open(proof.Seal)
	check(t, err)
	for _, k := range [][]byte{private.Control.Bytes(), private.Data.Bytes(), proof.Seal.Bytes()} {
		for _, at := range holding(t, c.Dir, k) {
			t.Errorf("a key of hers lies in %s", at)
		}
	}
	for _, dir := range []string{"ca", "directory", lab.SiteA.Name} {
		for _, at := range holding(t, filepath.Join(c.Dir, dir), f.Sealed) {
			t.Errorf("her sealed keys lie in %s", at)
		}
	}

	// The policy comes to have certificates revoked at the end: the machine that is there proves it, and then hers ends with her session. Such keys
	// renew nothing any more; others do.
	policy(t, c, lab.SiteA, "policy:\n  - groups: [staff]\n    revoke-on-close: true\n")
	check(t, lab.Until(ctx, "the proof of the session's end", 20*time.Second, func(ctx context.Context) error {
		out, err := c.Router(ctx, lab.SiteA, "status", "--json")
		if err == nil && !strings.Contains(out, `"revoke_on_close": true`) {
			err = errors.New(out)
		}
		return err
	}, p))
	check(t, p.Stop())
	check(t, lab.Until(ctx, "the revocation at the end of the session", 30*time.Second, func(context.Context) error {
		if got := revocations(t, c, "erin"); len(got) != 1 || !strings.Contains(got[0], "the session at router ra has ended (revoke-on-close)") {
			return fmt.Errorf("noted: %q", got)
		}
		return nil
	}))
	if said := login(file); !strings.Contains(said, "no certificate that lets them in here") {
		t.Errorf("logging in again: %s", said)
	}
	if out, err := c.Client(ctx, c.RB, "erin", "renew", "erin", "--password-file", file); err == nil || !strings.Contains(err.Error(), "revoked") {
		t.Errorf("renewed: %s, %v", out, err)
	}
	policy(t, c, lab.SiteA, "policy:\n  - groups: [staff]\n")
	_, err = c.CACommand(ctx, "user", "revoke", "erin") // she has no certificate, but is there still
	check(t, err)
	keys := keyfile.Path(filepath.Join(c.Dir, "client-erin"), "erin")
	check(t, os.Rename(keys, keys+".old"))
	out, err = c.CACommand(ctx, "user", "token", "erin", "--group", lab.UserGroup, "--json")
	check(t, err)
	check(t, json.Unmarshal([]byte(out), &token))
	_, err = c.Client(ctx, c.RB, "erin", "enroll", "erin", "--ca", token.CA, "--fingerprint", token.Fingerprint, "--token", token.Token, "--password-file", file)
	check(t, err)
	p, err = c.StartClient(ctx, c.HostA, lab.SiteA, "erin", "erin")
	check(t, err)
	reaches(t, c.HostA, erin, 20*time.Second, p)

	_, err = c.CACommand(ctx, "user", "revoke", "erin")
	check(t, err)
	if said := exits(t, p, 10*time.Second); !strings.Contains(said, "certificate revoked") {
		t.Errorf("the client says:\n%s", said)
	}
	delete(c.Clients, "erin")
	gone(t, c, c.HostA, "erin")
	mustNotPing(t, c, erin)
	if said := login(file); !strings.Contains(said, "no certificate that lets them in here") {
		t.Errorf("logging in again: %s", said)
	}
}

// holding are the files below dir in which b lies: as it is, in hex, or in base64 wherever it begins in what was encoded; also within
// base64, as certificates lie in databases of JSON.
func holding(t *testing.T, dir string, b []byte) (files []string) {
	t.Helper()
	forms := [][]byte{b, []byte(hex.EncodeToString(b)), []byte(base64.StdEncoding.EncodeToString(b))}
	check(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		contents := [][]byte{content}
		for _, word := range bytes.FieldsFunc(content, func(r rune) bool {
			return !strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=", r)
		}) {
			if inner, err := base64.StdEncoding.DecodeString(string(word)); err == nil && len(inner) >= len(b) {
				contents = append(contents, inner)
			}
		}
		for _, c := range contents {
			for _, f := range forms {
				if bytes.Contains(c, f) {
					files = append(files, path)
					return nil
				}
			}
		}
		return nil
	}))
	return files
}
