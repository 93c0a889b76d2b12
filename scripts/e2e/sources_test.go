//go:build linux

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"twinkey/pkg/netlab"
	"twinkey/scripts/lab"
)

const (
	ldapAdmin  = "cn=admin,dc=example"
	ldapSecret = "the secret of the administrator"
)

// slapd is OpenLDAP's server on hq, with users below ou=people.
type slapd struct {
	t   *testing.T
	c   *lab.Company
	dir string
	up  *server
}

// server is a program that somebody else made, on hq.
type server struct {
	end  context.CancelFunc
	done chan struct{}
}

// serve runs a program on hq until the test ends, or stop is called. Its output goes with the logs of a failure.
func serve(t *testing.T, c *lab.Company, name string, argv ...string) *server {
	t.Helper()
	log, err := os.OpenFile(filepath.Join(c.Dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	check(t, err)
	ctx, end := context.WithCancel(context.WithoutCancel(t.Context()))
	cmd := c.HQ.Command(ctx, argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	check(t, cmd.Start())
	s := &server{end: end, done: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // it is told to stop
		_ = log.Close()
		close(s.done)
	}()
	t.Cleanup(s.stop)
	return s
}

func (s *server) stop() {
	s.end()
	<-s.done
}

// program finds one that Debian keeps where only root looks.
func program(t *testing.T, name, pkg string) string {
	t.Helper()
	needs(t, name, pkg)
	path, err := exec.LookPath(name)
	check(t, err)
	return path
}

func startSlapd(t *testing.T, c *lab.Company, users ...string) *slapd {
	t.Helper()
	s := &slapd{t: t, c: c, dir: filepath.Join(c.Dir, "slapd")}
	program(t, "slapd", "slapd")
	needs(t, "ldapmodify", "ldap-utils")
	check(t, os.MkdirAll(filepath.Join(s.dir, "db"), 0o700))
	check(t, os.WriteFile(filepath.Join(s.dir, "slapd.conf"), fmt.Appendf(nil, `
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile %[1]s/pid
argsfile %[1]s/args
database mdb
suffix "dc=example"
rootdn "%[2]s"
rootpw "%[3]s"
directory %[1]s/db
access to attrs=userPassword by anonymous auth by * none
access to * by users read by * none
`, s.dir, ldapAdmin, ldapSecret), 0o600))
	check(t, os.WriteFile(filepath.Join(s.dir, "secret"), []byte(ldapSecret), 0o600))
	s.start()
	ldif := "dn: dc=example\nobjectClass: dcObject\nobjectClass: organization\ndc: example\no: Example\n\ndn: ou=people,dc=example\nobjectClass: organizationalUnit\nou: people\n\n"
	for _, u := range users {
		ldif += fmt.Sprintf("dn: uid=%[1]s,ou=people,dc=example\nobjectClass: inetOrgPerson\nuid: %[1]s\ncn: %[1]s\nsn: %[1]s\ndepartmentNumber: %[2]s\nuserPassword: spring of %[1]s\n\n", u, lab.UserGroup)
	}
	s.modify("-a", ldif)
	return s
}

func (s *slapd) url() string { return "ldapi://" + url.PathEscape(filepath.Join(s.dir, "socket")) }

func (s *slapd) start() {
	s.t.Helper()
	s.up = serve(s.t, s.c, "slapd", program(s.t, "slapd", "slapd"), "-d", "stats", "-f", filepath.Join(s.dir, "slapd.conf"), "-h", s.url())
	check(s.t, lab.Until(s.t.Context(), "slapd", 30*time.Second, func(ctx context.Context) error {
		_, err := lab.Run(ctx, s.c.HQ, "ldapwhoami", "-x", "-H", s.url(), "-D", ldapAdmin, "-w", ldapSecret)
		return err
	}))
}

// modify changes what it holds, as ldapmodify(1) reads it.
func (s *slapd) modify(flag, ldif string) {
	s.t.Helper()
	file := filepath.Join(s.dir, "change.ldif")
	check(s.t, os.WriteFile(file, []byte(ldif), 0o600))
	argv := []string{"ldapmodify", "-x", "-H", s.url(), "-D", ldapAdmin, "-w", ldapSecret, "-f", file}
	if flag != "" {
		argv = append(argv, flag)
	}
	_, err := lab.Run(s.t.Context(), s.c.HQ, argv...)
	check(s.t, err)
}

// withSources starts a company whose CA has the sources.
func withSources(t *testing.T, c *lab.Company, yaml string) {
	t.Helper()
	withSourcesAt(t, c, yaml, "", "", "")
}

// withSourcesAt is withSources with routers of this scope, and what is added to the configuration of each.
func withSourcesAt(t *testing.T, c *lab.Company, yaml, scope, extraA, extraB string) {
	t.Helper()
	ctx := t.Context()
	check(t, c.StartCA(ctx))
	check(t, c.StartDirectory(ctx))
	f, err := os.OpenFile(filepath.Join(c.Dir, "ca", "ca.yaml"), os.O_APPEND|os.O_WRONLY, 0o600)
	check(t, err)
	_, err = f.WriteString("\nsources:\n" + yaml)
	check(t, errors.Join(err, f.Close()))
	check(t, c.CA.Stop())
	check(t, c.ServeCA(ctx))
	a, b := lab.SiteA, lab.SiteB
	a.Scope, b.Scope = scope, scope
	check(t, c.StartRouter(ctx, a, extraA))
	check(t, c.StartRouter(ctx, b, extraB))
	check(t, c.WaitLink(ctx))
	// The CA tells the directory of its sources with its first CRL.
	check(t, lab.Until(ctx, "a directory that knows of sources", 30*time.Second, func(ctx context.Context) error {
		out, err := c.DirectoryCommand(ctx, "audit", "--kind", "vouch")
		if err == nil && !strings.Contains(out, "the CA has sources") {
			err = errors.New("it has not been told")
		}
		return err
	}))
}

// password is what the user types from now on.
func password(t *testing.T, c *lab.Company, uid, pass string) {
	t.Helper()
	check(t, os.WriteFile(filepath.Join(c.Dir, uid+".password"), []byte(pass), 0o600))
}

func address(t *testing.T, c *lab.Company, a string) netip.Addr {
	t.Helper()
	addr := netip.MustParseAddr(a)
	check(t, c.HostA.AddAddress("eth0", netip.PrefixFrom(addr, lab.SiteA.Users.Bits())))
	return addr
}

// refused tries a login and demands that it fails with these words.
func refused(t *testing.T, c *lab.Company, uid string, a netip.Addr, words string) {
	t.Helper()
	if err := c.Login(t.Context(), lab.SiteA, uid, a, lab.SiteB.Name); err == nil || !strings.Contains(err.Error(), words) {
		t.Errorf("login of %s: %v, want %q", uid, err, words)
	}
}

type caUser struct {
	UID, Source, Group, State, Serial, Reason string
}

func userAtCA(t *testing.T, c *lab.Company, uid string) (u caUser) {
	t.Helper()
	out, err := c.CACommand(t.Context(), "user", "show", uid, "--json")
	check(t, err)
	check(t, json.Unmarshal([]byte(out), &u))
	return u
}

// endsEverywhere waits until a user's call has ended at both routers.
func endsEverywhere(t *testing.T, c *lab.Company, uid string) {
	t.Helper()
	check(t, lab.Until(t.Context(), "the end of the call of "+uid, 30*time.Second, func(ctx context.Context) error {
		for _, s := range []lab.Site{lab.SiteA, lab.SiteB} {
			st, err := c.Status(ctx, s)
			if err != nil {
				return err
			}
			if _, up := st.UserCall(uid); up {
				return fmt.Errorf("it is up at %s", s.Name)
			}
		}
		return nil
	}))
}

// Users of a real LDAP directory: the first login brings the certificate, another password new keys, an account that is
// removed the end of the call; and whoever has to be asked and is away is named.
func TestUsersOfLDAP(t *testing.T) {
	t.Parallel()
	c := network(t)
	ctx := t.Context()
	s := startSlapd(t, c, "alice", "bob")
	withSources(t, c, fmt.Sprintf("  - name: office\n    ldap: {servers: [%q], plain: true, bind_dn: %q, secret_file: %q, base: \"ou=people,dc=example\", group_attribute: departmentNumber, interval: 1s}\n",
		"ldapi://"+filepath.Join(s.dir, "socket"), ldapAdmin, filepath.Join(s.dir, "secret")))
	alice := address(t, c, "10.1.1.3")

	password(t, c, "alice", "spring of alice")
	check(t, c.Login(ctx, lab.SiteA, "alice", alice, lab.SiteB.Name))
	mustPing(t, c, alice)
	first := userAtCA(t, c, "alice")
	if first.Source != "office" || first.Group != lab.UserGroup || first.State != "active" {
		t.Errorf("at the CA: %+v", first)
	}

	// Another password: the old one opens nothing any more, the new one brings new keys, and what stood on the old
	// certificate ends.
	s.modify("", "dn: uid=alice,ou=people,dc=example\nchangetype: modify\nreplace: userPassword\nuserPassword: summer of alice\n")
	refused(t, c, "alice", alice, "login of alice refused")
	mustPing(t, c, alice) // a wrong password ends nothing
	if out, err := c.DirectoryCommand(ctx, "audit", "--kind", "denied", "--subject", "alice"); err != nil || !strings.Contains(out, "asked by router ra: no source accepts user and password") {
		t.Errorf("noted: %v: %s", err, out)
	}
	_, err := c.Router(ctx, lab.SiteA, "logout", "alice")
	check(t, err)
	password(t, c, "alice", "summer of alice")
	check(t, c.Login(ctx, lab.SiteA, "alice", alice, lab.SiteB.Name))
	mustPing(t, c, alice)
	if u := userAtCA(t, c, "alice"); u.Serial == first.Serial || u.State != "active" {
		t.Errorf("after the change: %+v", u)
	}

	// Revoked here is revoked, whatever LDAP says, until the operator says otherwise.
	_, err = c.CACommand(ctx, "user", "revoke", "alice", "--reason", "a test")
	check(t, err)
	endsEverywhere(t, c, "alice")
	mustNotPing(t, c, alice)
	refused(t, c, "alice", alice, "login of alice refused")
	out, err := c.CACommand(ctx, "user", "list")
	if err != nil || !strings.Contains(out, "office") || !strings.Contains(out, "revoked, barred") {
		t.Errorf("%v: %s", err, out)
	}
	_, err = c.CACommand(ctx, "user", "allow", "alice")
	check(t, err)
	check(t, c.Login(ctx, lab.SiteA, "alice", alice, lab.SiteB.Name))
	mustPing(t, c, alice)

	// An account that is removed.
	s.modify("", "dn: uid=alice,ou=people,dc=example\nchangetype: delete\n")
	endsEverywhere(t, c, "alice")
	mustNotPing(t, c, alice)
	if u := userAtCA(t, c, "alice"); u.State != "revoked" || !strings.HasPrefix(u.Reason, "source office: ") {
		t.Errorf("after the end of the account: %+v", u)
	}
	refused(t, c, "alice", alice, "login of alice refused")

	// LDAP is away, then the CA: users of sources cannot log in and are told which of both, local ones can.
	bob, carol := address(t, c, "10.1.1.4"), address(t, c, "10.1.1.5")
	password(t, c, "bob", "spring of bob")
	s.up.stop()
	refused(t, c, "bob", bob, "does not answer: office")
	check(t, c.AddUser(ctx, "carol", "correct horse"))
	check(t, c.Login(ctx, lab.SiteA, "carol", carol, lab.SiteB.Name))
	mustPing(t, c, carol)
	s.start()
	check(t, c.CA.Stop())
	refused(t, c, "bob", bob, "is the CA running")
	_, err = c.Router(ctx, lab.SiteA, "logout", "carol")
	check(t, err)
	check(t, c.Login(ctx, lab.SiteA, "carol", carol, lab.SiteB.Name))
	check(t, c.ServeCA(ctx))
	check(t, c.Login(ctx, lab.SiteA, "bob", bob, lab.SiteB.Name))
	mustPing(t, c, bob)
}

const radiusSecret = "a secret of thirty-two characters"

// startFreeRADIUS runs FreeRADIUS on hq with a file of users as users(5) describes it. What it is told of calls
// stands in the file that it returns.
func startFreeRADIUS(t *testing.T, c *lab.Company, users string) (detail string) {
	t.Helper()
	dir := filepath.Join(c.Dir, "radius")
	check(t, os.MkdirAll(dir, 0o700))
	check(t, os.WriteFile(filepath.Join(dir, "users"), []byte(users), 0o600))
	check(t, os.WriteFile(filepath.Join(dir, "secret"), []byte(radiusSecret), 0o600))
	detail = filepath.Join(dir, "detail")
	reply := "update reply {\nMessage-Authenticator := 0x00\n}\n"
	check(t, os.WriteFile(filepath.Join(dir, "radiusd.conf"), fmt.Appendf(nil, `
prefix = /usr
libdir = /usr/lib/freeradius
confdir = %[1]s
raddbdir = %[1]s
logdir = %[1]s
run_dir = %[1]s
pidfile = %[1]s/pid
hostname_lookups = no
security {
	allow_core_dumps = no
	reject_delay = 1
	status_server = no
	allow_vulnerable_openssl = yes
}
proxy_requests = no
thread pool {
	start_servers = 1
	max_servers = 2
	min_spare_servers = 1
	max_spare_servers = 2
}
modules {
	pap {
	}
	files {
		filename = %[1]s/users
	}
	detail {
		filename = %[2]s
		permissions = 0600
	}
}
client loopback {
	ipaddr = 127.0.0.1
	secret = "%[3]s"
	require_message_authenticator = yes
}
server all {
	listen {
		type = auth
		ipaddr = 127.0.0.1
		port = 1812
	}
	listen {
		type = acct
		ipaddr = 127.0.0.1
		port = 1813
	}
	authorize {
		files
		pap
	}
	authenticate {
		Auth-Type PAP {
			pap
		}
	}
	accounting {
		detail
	}
	post-auth {
		%[4]s
		Post-Auth-Type REJECT {
			%[4]s
		}
	}
}
`, dir, detail, radiusSecret, reply), 0o600))
	serve(t, c, "radius", program(t, "freeradius", "freeradius"), "-f", "-d", dir, "-n", "radiusd", "-l", "stdout", "-xx")
	check(t, lab.Until(t.Context(), "FreeRADIUS", 30*time.Second, func(context.Context) error {
		b, err := os.ReadFile(filepath.Join(c.Dir, "radius.log"))
		if err == nil && !strings.Contains(string(b), "Ready to process requests") {
			err = errors.New("it is not ready")
		}
		return err
	}))
	return detail
}

// tells waits until FreeRADIUS has noted a record with all of these lines.
func tells(t *testing.T, detail string, lines ...string) {
	t.Helper()
	check(t, lab.Until(t.Context(), "an accounting record with "+strings.Join(lines, ", "), 30*time.Second, func(context.Context) error {
		b, err := os.ReadFile(detail)
		if err != nil {
			return err
		}
	next:
		for _, record := range strings.Split(string(b), "\n\n") {
			for _, l := range lines {
				if !strings.Contains(record, l) {
					continue next
				}
			}
			return nil
		}
		return fmt.Errorf("there is\n%s", b)
	}))
}

// orders sends the CA what a RADIUS server wants, and demands this in the answer.
func orders(t *testing.T, c *lab.Company, kind, attributes, want string) {
	t.Helper()
	ordersAt(t, c, time.Now(), kind, attributes, want)
}

// ordersAt is orders with what was made at that time, and has been on its way since.
func ordersAt(t *testing.T, c *lab.Company, made time.Time, kind, attributes, want string) {
	t.Helper()
	request := filepath.Join(c.Dir, "radius", "request")
	check(t, os.WriteFile(request, fmt.Appendf(nil, "%s\nEvent-Timestamp = %d\nMessage-Authenticator = 0x00\n", attributes, made.Unix()), 0o600))
	out, err := lab.Run(t.Context(), c.HQ, "radclient", "-x", "-f", request, "127.0.0.1:3799", kind, radiusSecret)
	// A NAK is a failure for radclient.
	if !strings.Contains(out, want) || (err == nil) != strings.HasSuffix(want, "-ACK") {
		t.Fatalf("%s with %q: %v: want %s in %s", kind, attributes, err, want, out)
	}
}

// radiusSource is the source of FreeRADIUS on hq, which may order.
func radiusSource(c *lab.Company) string {
	secret := filepath.Join(c.Dir, "radius", "secret")
	return fmt.Sprintf("  - name: wifi\n    radius: {servers: [\"127.0.0.1:1812\"], transport: udp, secret_file: %[1]q, accounting: [\"127.0.0.1:1813\"], disconnect: {listen: \"127.0.0.1:3799\", clients: {\"127.0.0.1\": %[1]q}}}\n", secret)
}

// Users of a real RADIUS server: let in with the group and the time that it names, accounted for with the class that it
// gave, and thrown out when it says so.
func TestUsersOfRADIUS(t *testing.T) {
	t.Parallel()
	c := network(t)
	ctx := t.Context()
	needs(t, "radclient", "freeradius-utils")
	detail := startFreeRADIUS(t, c, fmt.Sprintf("alice Cleartext-Password := \"spring of alice\"\n\tFilter-Id = %[1]q,\n\tClass = 0x0102aabb\n\nbob Cleartext-Password := \"spring of bob\"\n\tFilter-Id = %[1]q,\n\tSession-Timeout = 10\n\n", lab.UserGroup))
	withSources(t, c, radiusSource(c))
	alice, bob := address(t, c, "10.1.1.3"), address(t, c, "10.1.1.4")
	password(t, c, "alice", "spring of alice")
	password(t, c, "bob", "spring of bob")
	password(t, c, "mallory", "spring of alice")
	refused(t, c, "mallory", alice, "login of mallory refused")
	check(t, c.Login(ctx, lab.SiteA, "alice", alice, lab.SiteB.Name))
	mustPing(t, c, alice)
	if u := userAtCA(t, c, "alice"); u.Source != "wifi" || u.Group != lab.UserGroup {
		t.Errorf("at the CA: %+v", u)
	}
	tells(t, detail, "Acct-Status-Type = Start", `User-Name = "alice"`, "Class = 0x0102aabb")

	// Bob's session is as long as the server said.
	check(t, c.Login(ctx, lab.SiteA, "bob", bob, lab.SiteB.Name))
	mustPing(t, c, bob)
	endsEverywhere(t, c, "bob")
	tells(t, detail, "Acct-Status-Type = Stop", `User-Name = "bob"`, "Acct-Terminate-Cause = Session-Timeout")
	mustPing(t, c, alice)

	// A Disconnect-Request ends her call and withdraws the certificate; the next login brings another.
	orders(t, c, "disconnect", `User-Name = "alice"`, "Disconnect-ACK")
	endsEverywhere(t, c, "alice")
	mustNotPing(t, c, alice)
	tells(t, detail, "Acct-Status-Type = Stop", `User-Name = "alice"`, "Class = 0x0102aabb", "Acct-Output-Octets = ")
	if u := userAtCA(t, c, "alice"); u.State != "revoked" || !strings.HasPrefix(u.Reason, "source wifi: ") {
		t.Errorf("after the Disconnect-Request: %+v", u)
	}
	check(t, c.Login(ctx, lab.SiteA, "alice", alice, lab.SiteB.Name))
	mustPing(t, c, alice)
}

// Users whom RADIUS alone knows, on machines of their own: let in by what they type there, which the router in front never has; for as long as the
// server says, and until it says otherwise. Whoever is refused hears what everybody hears, local users too.
func TestUsersOfRADIUSOnTheirOwnMachines(t *testing.T) {
	t.Parallel()
	c := network(t)
	ctx := t.Context()
	needs(t, "nft", "nftables")
	needs(t, "radclient", "freeradius-utils")
	const typed = "spring of alice, which nobody else types"
	startFreeRADIUS(t, c, fmt.Sprintf("alice Cleartext-Password := %[2]q\n\tFilter-Id = %[1]q\n\nbob Cleartext-Password := \"spring of bob\"\n\tFilter-Id = %[1]q,\n\tSession-Timeout = 12\n\n", lab.UserGroup, typed))
	withSourcesAt(t, c, radiusSource(c), "group:"+lab.UserGroup+",group:guests", lab.SiteA.Clients(), "")
	_, err := c.CACommand(ctx, "group", "add", "guests")
	check(t, err)
	check(t, lab.Masquerade(ctx, c.RA, "wan0"))
	check(t, c.AddUser(ctx, "carol", "correct horse"))
	alice, bob := address(t, c, "10.1.1.3"), address(t, c, "10.1.1.4")
	capture, err := c.HostA.Capture("eth0", filepath.Join(c.Dir, "hosta.pcap"))
	check(t, err)

	var said []string
	for _, uid := range []string{"alice", "carol", "nobody"} {
		password(t, c, "guess", "a guess")
		began := time.Now()
		argv := append(c.ClientLogin(lab.SiteA, uid, uid, "--address", alice.String()), "--password-file", filepath.Join(c.Dir, "guess.password"))
		out, err := lab.Run(ctx, c.HostA, argv...)
		if err == nil || time.Since(began) < 4*time.Second {
			t.Fatalf("a wrong password of %s, after %s: %v\n%s", uid, time.Since(began), err, out)
		}
		said = append(said, strings.ReplaceAll(err.Error(), uid, "X"))
	}
	if said[0] != said[1] || said[0] != said[2] || !strings.Contains(said[0], "no such user, or a wrong password") {
		t.Errorf("answers tell who is known, and to whom:\n%s", strings.Join(said, "\n"))
	}

	password(t, c, "alice", typed)
	p, err := c.StartClient(ctx, c.HostA, lab.SiteA, "alice", "alice", "--address", alice.String())
	check(t, err)
	reaches(t, c.HostA, alice, 20*time.Second, p)
	mustPing(t, c, alice)
	if u := userAtCA(t, c, "alice"); u.Source != "wifi" || u.Group != lab.UserGroup || u.State != "active" {
		t.Errorf("at the CA: %+v", u)
	}
	if _, up := status(t, c, lab.SiteA).UserCall("alice"); up {
		t.Error("the router in front carries her call")
	}
	if call, up := status(t, c, lab.SiteB).UserCall("alice"); !up || call.Peer != lab.SiteA.Name {
		t.Errorf("at the far end: %+v, %v", call, up)
	}
	if out, err := c.DirectoryCommand(ctx, "audit", "--kind", "vouch", "--subject", "alice"); err != nil || !strings.Contains(out, "wifi") {
		t.Errorf("noted: %v: %s", err, out)
	}
	if n := inMemory(t, c.Routers[lab.SiteA.Name], typed); n != 0 {
		t.Errorf("the router in front has her password in memory, %d times", n)
	}
	// What finds nothing there finds what is there.
	if n := inMemory(t, c.Routers[lab.SiteA.Name], "no such user, or a wrong password"); n == 0 {
		t.Error("nothing is found in memory")
	}

	// The server puts her into another group: her machine goes on with another certificate, and the rules of that group.
	before, _ := status(t, c, lab.SiteB).UserCall("alice")
	orders(t, c, "coa", "User-Name = alice\nFilter-Id = guests", "CoA-ACK")
	check(t, lab.Until(ctx, "her call on another certificate", 20*time.Second, func(ctx context.Context) error {
		_, err := c.HostA.Ping(ctx, netlab.Ping{To: lab.SiteB.Host, From: alice, Count: 1, Wait: 300 * time.Millisecond}) // it is placed when a packet asks
		if err != nil {
			return err
		}
		st, err := c.Status(ctx, lab.SiteB)
		if call, up := st.UserCall("alice"); err == nil && (!up || call.Cert == before.Cert) {
			err = fmt.Errorf("call %+v, %v", call, up)
		}
		return err
	}, p))
	mustPing(t, c, alice)

	// A router that was restarted has forgotten her. What her machine has kept of the password does not do for a source.
	check(t, c.Routers[lab.SiteA.Name].Stop())
	check(t, c.RouterUp(ctx, lab.SiteA))
	if end := exits(t, p, 40*time.Second); !strings.Contains(end, "the company asks for the password at each login") || !strings.Contains(end, "log in again") {
		t.Errorf("the client says:\n%s", end)
	}
	delete(c.Clients, "alice")
	gone(t, c, c.HostA, "alice")
	if p, err = c.StartClient(ctx, c.HostA, lab.SiteA, "alice", "alice", "--address", alice.String()); err != nil {
		t.Fatal(err)
	}
	reaches(t, c.HostA, alice, 20*time.Second, p)

	// A Disconnect-Request ends it.
	request := filepath.Join(c.Dir, "radius", "disconnect")
	check(t, os.WriteFile(request, fmt.Appendf(nil, "User-Name = \"alice\"\nEvent-Timestamp = %d\nMessage-Authenticator = 0x00\n", time.Now().Unix()), 0o600))
	out, err := lab.Run(ctx, c.HQ, "radclient", "-x", "-f", request, "127.0.0.1:3799", "disconnect", radiusSecret)
	if err != nil || !strings.Contains(out, "Disconnect-ACK") {
		t.Fatalf("%v: %s", err, out)
	}
	if end := exits(t, p, 10*time.Second); !strings.Contains(end, "certificate revoked") {
		t.Errorf("the client says:\n%s", end)
	}
	delete(c.Clients, "alice")
	gone(t, c, c.HostA, "alice")
	// Her next login brings other keys, under another salt. That it is so her machine has from the CA.
	first := userAtCA(t, c, "alice").Serial
	p, err = c.StartClient(ctx, c.HostA, lab.SiteA, "alice", "alice", "--address", alice.String())
	check(t, err)
	reaches(t, c.HostA, alice, 20*time.Second, p)
	if u := userAtCA(t, c, "alice"); u.Serial == first || u.State != "active" {
		t.Errorf("at the CA: %+v", u)
	}
	check(t, p.Stop())
	delete(c.Clients, "alice")
	gone(t, c, c.HostA, "alice")

	// Bob's session is as long as the server says; a local user's is not asked about.
	password(t, c, "bob", "spring of bob")
	p, err = c.StartClient(ctx, c.HostA, lab.SiteA, "bob", "bob", "--address", bob.String())
	check(t, err)
	reaches(t, c.HostA, bob, 10*time.Second, p)
	if end := exits(t, p, 20*time.Second); !strings.Contains(end, "its time is over") {
		t.Errorf("the client says:\n%s", end)
	}
	delete(c.Clients, "bob")
	gone(t, c, c.HostA, "bob")
	check(t, c.CA.Stop())
	if out, err := lab.Run(ctx, c.HostA, c.ClientLogin(lab.SiteA, "bob", "bob", "--address", bob.String())...); err == nil || !strings.Contains(err.Error(), "is the CA running") {
		t.Errorf("without the CA: %v\n%s", err, out)
	}
	p, err = c.StartClient(ctx, c.HostA, lab.SiteA, "carol", "carol", "--address", alice.String())
	check(t, err)
	reaches(t, c.HostA, alice, 20*time.Second, p)
	check(t, p.Stop())
	check(t, c.ServeCA(ctx))

	check(t, capture.Close())
	for _, file := range []string{"hosta.pcap", lab.SiteA.Name + ".log", lab.SiteB.Name + ".log", "ca.log", "directory.log", "client-alice.log", "client-bob.log"} {
		b, err := os.ReadFile(filepath.Join(c.Dir, file))
		check(t, err)
		for _, secret := range []string{typed, "spring of bob", "correct horse"} {
			if len(b) == 0 || bytes.Contains(b, []byte(secret)) {
				t.Errorf("%s, of %d bytes, has %q", file, len(b), secret)
			}
		}
	}
}

// inMemory counts how often a text stands in a process's memory that it can write to, or came with.
func inMemory(t *testing.T, p *lab.Process, text string) (n int) {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", p.PID()))
	check(t, err)
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", p.PID()))
	check(t, err)
	defer func() { check(t, mem.Close()) }()
	for line := range strings.Lines(string(maps)) {
		var from, to int64
		var mode string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &mode); err != nil || mode[0] != 'r' || to-from > 1<<30 {
			continue
		}
		b := make([]byte, to-from)
		read, _ := mem.ReadAt(b, from) // some of it cannot be read
		n += bytes.Count(b[:read], []byte(text))
	}
	return n
}
