package cmd

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"twinkey/ca/internal/home"
	"twinkey/ca/internal/source/sourcetest"
	"twinkey/pkg/cli"
)

// The command asks what a login would ask, of real servers, and its exit code says what came of it.
func TestSourceTest(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	if _, err := home.Init(t.Context(), dir, home.InitOptions{Name: "Example Corp", Hosts: []string{"127.0.0.1"}, Port: "8700", Profile: "paper"}); err != nil {
		t.Fatal(err)
	}
	pki := sourcetest.NewPKI(t, dir, "servers")
	for _, name := range []string{"radius", "ldap"} {
		pki.Issue(t, name)
	}
	// The RADIUS server knows the CA by the CA's own certificate, as docs/operations.md has it.
	own, err := os.ReadFile(filepath.Join(dir, "root.crt"))
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := os.ReadFile(pki.Root())
	if err != nil {
		t.Fatal(err)
	}
	sourcetest.WriteFile(t, dir, "servers.crt", string(theirs)+string(own))
	radius := sourcetest.StartFreeRADIUS(t, `
alice	Cleartext-Password := "correct horse"
	Filter-Id = "staff",
	Session-Timeout = 3600
bob	Cleartext-Password := "correct horse"
`, pki, "1.3")
	slapd := sourcetest.StartSlapd(t, `dn: ou=people,dc=example
objectClass: organizationalUnit
ou: people

dn: uid=carol,ou=people,dc=example
objectClass: inetOrgPerson
uid: carol
cn: Carol
sn: C
departmentNumber: guests
userPassword: correct horse
`, pki)
	sourcetest.WriteFile(t, dir, "ldap.secret", sourcetest.LDAPSecret)
	f, err := os.OpenFile(filepath.Join(dir, "ca.yaml"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = fmt.Fprintf(f, `
sources:
  - name: office
    radius: {servers: ["%s"], root: servers.crt, certificate: identity/current/tls.pem, key: identity/current/tls.key}
  - name: people
    ldap: {servers: ["ldap://%s"], root: servers.crt, base: "ou=people,dc=example", bind_dn: "%s", secret_file: ldap.secret, group_attribute: departmentNumber}
  - name: nobody
    ldap: {servers: ["ldaps://%s"], base: "ou=people,dc=example"}
`, radius.TLS, slapd.Plain, sourcetest.LDAPService, slapd.TLS)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	run := func(in string, args ...string) (int, string, string) {
		var out, errs bytes.Buffer
		root := Root()
		root.SetArgs(append([]string{"source", "test", "--dir", dir, "--password-file", "-"}, args...))
		root.SetIn(strings.NewReader(in))
		root.SetOut(&out)
		root.SetErr(&errs)
		code := cli.Run(t.Context(), root)
		if strings.Contains(out.String()+errs.String(), "correct horse") {
			t.Errorf("%v: the password is shown", args)
		}
		return code, out.String(), errs.String()
	}
	for _, tt := range []struct {
		args []string
		in   string
		code int
		said string
	}{
		{[]string{"office", "alice"}, "correct horse\n", cli.ExitOK, "staff"},
		{[]string{"office", "alice"}, "correct horse", cli.ExitOK, "1h 0m"},
		{[]string{"office", "bob"}, "correct horse", cli.ExitOK, "none: the source names no tunnel group"},
		{[]string{"people", "carol"}, "correct horse", cli.ExitOK, "guests"},
		{[]string{"office", "alice"}, "wrong", cli.ExitDenied, "does not accept this user with this password"},
		{[]string{"office", "carol"}, "correct horse", cli.ExitDenied, "does not accept this user with this password"},
		{[]string{"people", "carol"}, "wrong", cli.ExitDenied, "does not accept this user with this password"},
		{[]string{"people", "carol"}, "", cli.ExitDenied, "does not accept this user with this password"},
		{[]string{"nobody", "carol"}, "correct horse", cli.ExitUnavailable, "certificate signed by unknown authority"},
		{[]string{"other", "carol"}, "correct horse", cli.ExitNotFound, "no such source"},
	} {
		if code, out, errs := run(tt.in, tt.args...); code != tt.code || !strings.Contains(out+errs, tt.said) {
			t.Errorf("%v: exit code %d, want %d with %q:\n%s%s", tt.args, code, tt.code, tt.said, out, errs)
		}
	}
	var answer struct {
		Source, UID, Group string
		Seconds            int `json:"session_seconds"`
	}
	code, out, errs := run("correct horse", "office", "alice", "--json")
	if err := json.Unmarshal([]byte(out), &answer); err != nil || code != cli.ExitOK || answer.Source != "office" || answer.UID != "alice" || answer.Group != "staff" || answer.Seconds != 3600 {
		t.Errorf("%d: %s%s", code, out, errs)
	}
}
