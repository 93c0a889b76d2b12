package sourcetest

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What a Slapd knows from the start.
const (
	LDAPBase    = "dc=example"
	LDAPAdmin   = "cn=admin,dc=example"
	LDAPSecret  = "the secret of the administrator"
	LDAPService = "cn=twinkey,dc=example"
	LDAPBlind   = "cn=blind,dc=example" // may search, and sees nothing
)

// Slapd is an OpenLDAP server that runs.
type Slapd struct {
	*Process
	Plain, TLS netip.AddrPort // ldap:// and ldaps://
	Socket     string         // of ldapi://
	dir        string
	args       []string
	program    string
}

// StartSlapd runs one with an LDIF below dc=example and the certificate "ldap" of a PKI. Users are searched for by
// cn=twinkey,dc=example, whose password is LDAPSecret, and by nobody else but cn=admin,dc=example.
func StartSlapd(tb testing.TB, ldif string, pki *PKI) *Slapd {
	tb.Helper()
	s := &Slapd{Plain: FreePort(tb), TLS: FreePort(tb), dir: tb.TempDir(), program: Program(tb, "slapd", "slapd ldap-utils")}
	s.Socket = filepath.Join(s.dir, "s")
	db := filepath.Join(s.dir, "db")
	if err := os.Mkdir(db, 0o700); err != nil {
		tb.Fatal(err)
	}
	conf := WriteFile(tb, s.dir, "slapd.conf", fmt.Sprintf(`
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile %[1]s/pid
argsfile %[1]s/args
TLSCACertificateFile %[2]s
TLSCertificateFile %[3]s
TLSCertificateKeyFile %[4]s
sizelimit 500
database mdb
suffix "dc=example"
rootdn "cn=admin,dc=example"
rootpw "%[5]s"
directory %[1]s/db
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact="cn=twinkey,dc=example" read by dn.exact="cn=blind,dc=example" search by * none
`, s.dir, pki.Root(), pki.Cert("ldap"), pki.Key("ldap"), LDAPSecret))
	WriteFile(tb, s.dir, "start.ldif", fmt.Sprintf(`dn: dc=example
objectClass: dcObject
objectClass: organization
dc: example
o: Example

dn: cn=twinkey,dc=example
objectClass: organizationalRole
objectClass: simpleSecurityObject
cn: twinkey
userPassword: %[1]s

dn: cn=blind,dc=example
objectClass: organizationalRole
objectClass: simpleSecurityObject
cn: blind
userPassword: %[1]s

%[2]s`, LDAPSecret, ldif))
	s.run(tb, "", "slapadd", "-f", conf, "-l", filepath.Join(s.dir, "start.ldif"))
	s.args = []string{"-d", "stats", "-f", conf, "-h", fmt.Sprintf("ldap://%s ldaps://%s ldapi://%s", s.Plain, s.TLS, url.PathEscape(s.Socket))}
	s.start(tb)
	return s
}

func (s *Slapd) start(tb testing.TB) {
	tb.Helper()
	s.Process = start(tb, func(*Process) bool {
		for _, a := range []netip.AddrPort{s.Plain, s.TLS} {
			c, err := net.Dial("tcp", a.String())
			if err != nil {
				return false
			}
			_ = c.Close()
		}
		return true
	}, s.program, s.args...)
}

// Restart runs it again, after Stop.
func (s *Slapd) Restart(tb testing.TB) { tb.Helper(); s.start(tb) }

// Modify changes what it holds, as ldapmodify(1) reads it.
func (s *Slapd) Modify(tb testing.TB, ldif string) {
	tb.Helper()
	s.run(tb, ldif, "ldapmodify", "-x", "-H", "ldap://"+s.Plain.String(), "-D", LDAPAdmin, "-w", LDAPSecret)
}

func (s *Slapd) run(tb testing.TB, in, name string, args ...string) {
	tb.Helper()
	c := exec.Command(Program(tb, name, "slapd ldap-utils"), args...) //nolint:gosec // a test
	c.Stdin = strings.NewReader(in)
	if out, err := c.CombinedOutput(); err != nil {
		tb.Fatalf("%s: %v\n%s", name, err, out)
	}
}
