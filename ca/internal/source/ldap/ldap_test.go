package ldap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"twinkey/ca/internal/source"
	"twinkey/ca/internal/source/sourcetest"
	"twinkey/pkg/config"
	"twinkey/pkg/keybundle"
)

const password = "correct horse"

// people of the slapd of the tests.
const people = `dn: ou=people,dc=example
objectClass: organizationalUnit
ou: people

dn: ou=groups,dc=example
objectClass: organizationalUnit
ou: groups

dn: ou=nobody,dc=example
objectClass: organizationalUnit
ou: nobody

dn: uid=alice,ou=people,dc=example
objectClass: inetOrgPerson
uid: alice
cn: Alice
sn: A
departmentNumber: Sales
employeeType: active
userPassword: correct horse

dn: uid=bob,ou=people,dc=example
objectClass: inetOrgPerson
uid: bob
cn: Bob
sn: B
departmentNumber: staff
employeeType: active
userPassword: correct horse

dn: uid=carol,ou=people,dc=example
objectClass: inetOrgPerson
uid: carol
cn: Carol
sn: C
employeeType: disabled
userPassword: correct horse

dn: cn=twin one,ou=people,dc=example
objectClass: inetOrgPerson
uid: twin
cn: twin one
sn: T
employeeType: active
userPassword: correct horse

dn: cn=twin two,ou=people,dc=example
objectClass: inetOrgPerson
uid: twin
cn: twin two
sn: T
employeeType: active
userPassword: correct horse

dn: cn=three one,ou=people,dc=example
objectClass: inetOrgPerson
uid: three
cn: three one
sn: T
employeeType: active
userPassword: correct horse

dn: cn=three two,ou=people,dc=example
objectClass: inetOrgPerson
uid: three
cn: three two
sn: T
employeeType: active
userPassword: correct horse

dn: cn=three three,ou=people,dc=example
objectClass: inetOrgPerson
uid: three
cn: three three
sn: T
employeeType: active
userPassword: correct horse

dn: uid=nopassword,ou=people,dc=example
objectClass: inetOrgPerson
uid: nopassword
cn: No
sn: N
employeeType: active

dn: cn=all staff,ou=groups,dc=example
objectClass: groupOfNames
cn: all staff
member: uid=alice,ou=people,dc=example
member: uid=bob,ou=people,dc=example

dn: cn=bosses,ou=groups,dc=example
objectClass: groupOfNames
cn: bosses
member: uid=alice,ou=people,dc=example
`

func defaults(t testing.TB, change func(*Config)) Config {
	t.Helper()
	c, err := config.Parse[Config]("ldap", nil)
	if err != nil {
		t.Fatal(err)
	}
	c.Base, c.BindDN, c.SecretFile, c.Root = "ou=people,dc=example", sourcetest.LDAPService, "secret", "root.crt"
	c.Filter = "(&(objectClass=inetOrgPerson)(employeeType=active)(uid=%s))"
	change(&c)
	if err := c.Check("ldap"); err != nil {
		t.Fatal(err)
	}
	return c
}

// world is a slapd, and the files of whoever asks it.
type world struct {
	*sourcetest.Slapd
	pki *sourcetest.PKI
}

func newWorld(t *testing.T) *world {
	t.Helper()
	pki := sourcetest.NewPKI(t, t.TempDir(), "root")
	pki.Issue(t, "ldap")
	sourcetest.WriteFile(t, pki.Dir, "secret", sourcetest.LDAPSecret+"\n")
	return &world{sourcetest.StartSlapd(t, people, pki), pki}
}

// asking is a source of w, by ldaps unless change says otherwise.
func (w *world) asking(t *testing.T, change func(*Config)) *Source {
	t.Helper()
	c := defaults(t, func(c *Config) {
		c.Servers = []string{"ldaps://" + w.TLS.String()}
		if change != nil {
			change(c)
		}
	})
	s, err := New("people", "sources[0].ldap", w.pki.Dir, c, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		sourcetest.Ended(t, "ldap/v3.(*Conn)")
	})
	return s
}

func counted(s *Source, what string) uint64 {
	for _, c := range s.State().Counts {
		if c.What == what {
			return c.N
		}
	}
	return 0
}

func TestSlapd(t *testing.T) {
	w := newWorld(t)
	for name, change := range map[string]func(*Config){
		"ldaps":    nil,
		"StartTLS": func(c *Config) { c.Servers = []string{"ldap://" + w.Plain.String()} },
		"socket":   func(c *Config) { c.Servers, c.Plain = []string{"ldapi://" + w.Socket}, true },
		"loopback": func(c *Config) { c.Servers, c.Plain = []string{"ldap://" + w.Plain.String()}, true },
	} {
		t.Run(name, func(t *testing.T) {
			s := w.asking(t, change)
			if a, err := s.Check(t.Context(), "alice", []byte(password)); err != nil || a.Group != "" || a.Session != 0 || a.State != nil {
				t.Errorf("%+v, %v", a, err)
			}
			for what, c := range map[string][2]string{"a wrong password": {"alice", "wrong"}, "nobody": {"nobody", password}, "disabled": {"carol", password}, "two of that name": {"twin", password},
				"three of that name": {"three", password}, "no password in the directory": {"nopassword", password}, "one that matches all": {"*", password}, "a filter": {"alice)(uid=*", password}} {
				if a, err := s.Check(t.Context(), c[0], []byte(c[1])); !errors.Is(err, source.ErrRejected) {
					t.Errorf("%s: %+v, %v", what, a, err)
				}
			}
		})
	}
}

// An empty password is an anonymous bind, which succeeds: nothing may be sent.
func TestEmptyPasswordIsNotAsked(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	asked := make(chan struct{}, 10)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			asked <- struct{}{}
			_ = c.Close()
		}
	}()
	dir := t.TempDir()
	sourcetest.WriteFile(t, dir, "secret", "x")
	c := defaults(t, func(c *Config) { c.Servers, c.Plain, c.Root = []string{"ldap://" + l.Addr().String()}, true, "" })
	s, err := New("people", "ldap", dir, c, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string][2]string{"no password": {"alice", ""}, "a long one": {"alice", strings.Repeat("x", keybundle.MaxPassword+1)}, "no user": {"", password}, "no name": {"*", password}} {
		if _, err := s.Check(t.Context(), c[0], []byte(c[1])); !errors.Is(err, source.ErrRejected) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(asked) > 0 {
		t.Error("the server was asked")
	}
	if _, err := s.Check(t.Context(), "alice", []byte("x")); !errors.Is(err, source.ErrUnavailable) || len(asked) != 1 {
		t.Errorf("and with a password: %v", err)
	}
}

func TestGroups(t *testing.T) {
	w := newWorld(t)
	for name, tt := range map[string]struct {
		change func(*Config)
		alice  string
		bob    string
	}{
		"none":         {func(*Config) {}, "", ""},
		"the fallback": {func(c *Config) { c.Group = "guests" }, "guests", "guests"},
		"an attribute": {func(c *Config) { c.GroupAttribute = "departmentnumber" }, "", "staff"},
		"an attribute with meanings": {func(c *Config) {
			c.GroupAttribute, c.Groups = "departmentNumber", []source.Mapping{{Value: "sales", Group: "sellers"}}
		}, "sellers", ""},
		"groups": {func(c *Config) {
			c.GroupBase, c.Groups = "ou=groups,dc=example", []source.Mapping{{Value: "CN=Bosses, OU=groups, DC=example", Group: "admins"}, {Value: "cn=all staff,ou=groups,dc=example", Group: "staff"}}
		}, "admins", "staff"},
		"both": {func(c *Config) {
			c.GroupBase, c.GroupAttribute = "ou=groups,dc=example", "departmentNumber"
			c.Groups = []source.Mapping{{Value: "cn=bosses,ou=groups,dc=example", Group: "admins"}, {Value: "Staff", Group: "clerks"}}
		}, "admins", "clerks"},
	} {
		t.Run(name, func(t *testing.T) {
			s := w.asking(t, tt.change)
			for uid, want := range map[string]string{"alice": tt.alice, "bob": tt.bob} {
				if a, err := s.Check(t.Context(), uid, []byte(password)); err != nil || a.Group != want {
					t.Errorf("%s: %+v, %v; want %q", uid, a, err, want)
				}
			}
		})
	}
}

// What is not the server that is meant gets no password, and what fails is no refusal.
func TestUnavailable(t *testing.T) {
	w := newWorld(t)
	other := sourcetest.NewPKI(t, t.TempDir(), "root")
	sourcetest.WriteFile(t, w.pki.Dir, "wrong", "another secret")
	for name, change := range map[string]func(*Config){
		"another root":               func(c *Config) { c.Root = other.Root() },
		"another name":               func(c *Config) { c.ServerName = "other.example" },
		"another root, StartTLS":     func(c *Config) { c.Servers, c.Root = []string{"ldap://" + w.Plain.String()}, other.Root() },
		"TLS where there is none":    func(c *Config) { c.Servers = []string{"ldaps://" + w.Plain.String()} },
		"nobody there":               func(c *Config) { c.Servers = []string{"ldaps://" + sourcetest.FreePort(t).String()} },
		"our account is not known":   func(c *Config) { c.SecretFile = "wrong" },
		"anybody may search nothing": func(c *Config) { c.BindDN, c.SecretFile = "", "" },
		"the base is not there":      func(c *Config) { c.Base = "ou=gone,dc=example" },
	} {
		s := w.asking(t, change)
		if a, err := s.Check(t.Context(), "alice", []byte(password)); !errors.Is(err, source.ErrUnavailable) || errors.Is(err, source.ErrRejected) {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
	}
	// The next one is asked, and stays the first until the other is well again.
	s := w.asking(t, func(c *Config) {
		c.Servers = []string{"ldaps://" + sourcetest.FreePort(t).String(), "ldap://" + w.Plain.String()}
	})
	for range 2 {
		if _, err := s.Check(t.Context(), "alice", []byte(password)); err != nil {
			t.Error(err)
		}
	}
	if n := counted(s, "servers silent"); n != 1 {
		t.Errorf("the one that is not there was asked %d times", n)
	}
	// It hangs.
	w.Hang(t)
	s = w.asking(t, func(c *Config) { c.Timeout = 300 * time.Millisecond })
	began := time.Now()
	if _, err := s.Check(t.Context(), "alice", []byte(password)); !errors.Is(err, source.ErrUnavailable) || time.Since(began) > 5*time.Second {
		t.Errorf("%v after %s", err, time.Since(began))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	s = w.asking(t, func(c *Config) { c.Timeout = 20 * time.Second })
	began = time.Now()
	if _, err := s.Check(ctx, "alice", []byte(password)); !errors.Is(err, source.ErrUnavailable) || time.Since(began) > 5*time.Second {
		t.Errorf("%v after %s", err, time.Since(began))
	}
	done := make(chan error, 1)
	go func() {
		_, err := s.Check(t.Context(), "alice", []byte(password))
		done <- err
	}()
	time.Sleep(50 * time.Millisecond)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, errClosed) {
		t.Errorf("closed meanwhile: %v", err)
	}
	w.Resume(t)
	// It is back, and nothing has to be started anew.
	if _, err := w.asking(t, nil).Check(t.Context(), "alice", []byte(password)); err != nil {
		t.Error(err)
	}
}

// However long a server may be waited for: the next one is asked in time, and one that used up all the time is asked last from then on.
func TestSlowServersLeaveTimeForTheNext(t *testing.T) {
	w := newWorld(t)
	deaf, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = deaf.Close() }()
	patient := func(c *Config) {
		c.Servers, c.Timeout, c.ServerName = append([]string{"ldaps://" + deaf.Addr().String()}, c.Servers...), 25*time.Second, "127.0.0.1"
	}
	s := w.asking(t, patient)
	s.turn = 300 * time.Millisecond
	began := time.Now()
	if _, err := s.Check(t.Context(), "alice", []byte(password)); err != nil || time.Since(began) > 6*time.Second {
		t.Errorf("%v after %s", err, time.Since(began))
	}
	s = w.asking(t, patient)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := s.Check(ctx, "alice", []byte(password)); !errors.Is(err, source.ErrUnavailable) || counted(s, "servers silent") != 1 {
		t.Errorf("%v, %+v", err, s.State().Counts)
	}
	began = time.Now()
	if _, err := s.Check(t.Context(), "alice", []byte(password)); err != nil || time.Since(began) > 6*time.Second {
		t.Errorf("after it had used up the time: %v after %s", err, time.Since(began))
	}
}

// A server that refuses StartTLS, or somebody on the way who has it refused, gets no password in the clear.
func TestStartTLSStripped(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	heard := make(chan []byte, 1)
	wg.Go(func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		var buf [1024]byte
		n, _ := c.Read(buf[:])
		// ExtendedResponse to message 1: protocolError (RFC 4511 4.12, 4.14).
		_, _ = c.Write([]byte{0x30, 12, 2, 1, 1, 0x78, 7, 10, 1, 2, 4, 0, 4, 0})
		rest, _ := io.ReadAll(c)
		heard <- append(buf[:n:n], rest...)
	})
	pki := sourcetest.NewPKI(t, t.TempDir(), "root")
	sourcetest.WriteFile(t, pki.Dir, "secret", "the secret of the service")
	s, err := New("people", "ldap", pki.Dir, defaults(t, func(c *Config) { c.Servers = []string{"ldap://" + l.Addr().String()} }), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Check(t.Context(), "alice", []byte(password)); !errors.Is(err, source.ErrUnavailable) || !strings.Contains(err.Error(), "StartTLS") {
		t.Errorf("%v", err)
	}
	if b := <-heard; strings.Contains(string(b), password) || strings.Contains(string(b), "secret") || !strings.Contains(string(b), "1.3.6.1.4.1.1466.20037") {
		t.Errorf("it heard %q", b)
	}
	_ = l.Close()
	wg.Wait()
}

// A server that never stops sending is not listened to for ever.
func TestFlood(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	sent := make(chan int, 1)
	wg.Go(func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		// One message of 1 GiB: its number, and a string that never ends.
		n, _ := c.Write([]byte{0x30, 0x84, 0x40, 0, 0, 0, 2, 1, 1, 4, 0x84, 0x3f, 0xff, 0xff, 0xf7})
		block := make([]byte, 64<<10)
		for err == nil && n < 1<<30 {
			var m int
			m, err = c.Write(block)
			n += m
		}
		sent <- n
	})
	dir := t.TempDir()
	sourcetest.WriteFile(t, dir, "secret", "x")
	s, err := New("people", "ldap", dir, defaults(t, func(c *Config) { c.Servers, c.Plain, c.Root = []string{"ldap://" + l.Addr().String()}, true, "" }), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Check(t.Context(), "alice", []byte(password)); !errors.Is(err, source.ErrUnavailable) {
		t.Errorf("%v", err)
	}
	if n := <-sent; n > 64<<20 { // what was taken, and what the kernel holds
		t.Errorf("%d bytes were taken", n)
	}
	_ = l.Close()
	wg.Wait()
}

// Refusals take the same time, whoever it is.
func TestRefusalsTakeTheSame(t *testing.T) {
	w := newWorld(t)
	s := w.asking(t, nil)
	for _, uid := range []string{"alice", "nobody", "carol", "twin"} {
		began := time.Now()
		if _, err := s.Check(t.Context(), uid, []byte("wrong")); !errors.Is(err, source.ErrRejected) {
			t.Fatal(err)
		}
		if took := time.Since(began); took < refusalTime {
			t.Errorf("%s: refused after %s", uid, took)
		}
	}
	// And the same is asked for each.
	quiet := func(before string) string { // when slapd has written of the end of all connections, it has written of all
		t.Helper()
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			if log := w.Log(); strings.Count(log, " ACCEPT from ") == strings.Count(log, " closed") && len(log) > len(before) {
				return log
			}
		}
		t.Fatal("connections stay open")
		return ""
	}
	asked := func(uid string) (binds, searches int) {
		before := quiet("")
		_, _ = s.Check(t.Context(), uid, []byte("wrong"))
		log := quiet(before)[len(before):]
		return strings.Count(log, " BIND dn="), strings.Count(log, " SRCH base=")
	}
	wantB, wantS := asked("alice")
	if wantB < 2 || wantS != 1 {
		t.Fatalf("%d binds, %d searches", wantB, wantS)
	}
	for _, uid := range []string{"nobody", "twin"} {
		if b, n := asked(uid); b != wantB || n != wantS {
			t.Errorf("%s: %d binds and %d searches, for alice it is %d and %d", uid, b, n, wantB, wantS)
		}
	}
}

// ending is who obeys a source that can end users and nothing else.
type ending func(ctx context.Context, uid, why string) error

func (f ending) End(ctx context.Context, uid string, w source.Word) error { return f(ctx, uid, w.Why) }

func (f ending) Change(_ context.Context, uid string, c source.Change, _ source.Word) error {
	return fmt.Errorf("%s is changed to %+v by a source that cannot know of it", uid, c)
}

func TestWatch(t *testing.T) {
	w := newWorld(t)
	s := w.asking(t, func(c *Config) { c.Timeout = time.Second })
	s.cfg.Interval = 50 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan string, 10)
	fails := make(chan error, 10)
	done := make(chan error, 1)
	go func() {
		done <- s.Watch(ctx, ending(func(_ context.Context, uid, why string) error {
			ended <- uid
			if !strings.Contains(why, "source people") {
				t.Errorf("why: %s", why)
			}
			select {
			case err := <-fails:
				return err
			default:
				return nil
			}
		}))
	}()
	next := func(want string) {
		t.Helper()
		select {
		case got := <-ended:
			if got != want {
				t.Errorf("%s was ended, want %s", got, want)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%s was not ended", want)
		}
	}
	rounds := func(what string, n uint64) {
		t.Helper()
		from := counted(s, what)
		for end := time.Now().Add(20 * time.Second); counted(s, what) < from+n; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("no more %s: %+v", what, s.State().Counts)
			}
		}
	}
	if _, err := s.Check(t.Context(), "alice", []byte(password)); err != nil {
		t.Fatal(err)
	}
	s.Follow("bob", "nobody") // as if they had logged in before a restart
	next("nobody")
	rounds("rounds", 3)

	// Whoever is disabled, is ended; if that fails, again.
	fails <- errors.New("the directory is away")
	w.Modify(t, "dn: uid=alice,ou=people,dc=example\nchangetype: modify\nreplace: employeeType\nemployeeType: disabled\n")
	next("alice")
	next("alice")
	rounds("rounds", 3)

	// A server that hangs, is gone, or has forgotten everything ends nobody.
	w.Hang(t)
	rounds("rounds failed", 1)
	w.Resume(t)
	w.Stop()
	rounds("rounds failed", 2)
	w.Restart(t)
	rounds("rounds", 2)
	if len(ended) > 0 {
		t.Errorf("%s was ended by a server that was away", <-ended)
	}

	// Removed; somebody whom the callback does not know is forgotten as well.
	fails <- fmt.Errorf("bob: %w", source.ErrNotThere)
	w.Modify(t, "dn: uid=bob,ou=people,dc=example\nchangetype: delete\n")
	next("bob")
	rounds("rounds", 3)
	if n := counted(s, "users followed"); n != 0 || len(ended) > 0 {
		t.Errorf("%d are followed, %d were ended", n, len(ended))
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A server that answers, and shows nothing: it has lost its data, or our account its rights.
func TestServerThatShowsNothing(t *testing.T) {
	w := newWorld(t)
	for name, change := range map[string]func(*Config){
		"no rights":         func(c *Config) { c.BindDN, c.SecretFile = "", "" },
		"none to see users": func(c *Config) { c.BindDN = sourcetest.LDAPBlind },
		"no base":           func(c *Config) { c.Base = "ou=gone,dc=example" },
	} {
		s := w.asking(t, change)
		s.Follow("alice")
		err := s.round(t.Context(), ending(func(context.Context, string, string) error {
			t.Errorf("%s: alice was ended", name)
			return nil
		}))
		if err == nil || s.followed.len() != 1 {
			t.Errorf("%s: %v", name, err)
		}
	}
	// The same with rights and a base that is there and empty: she is not there any more.
	s := w.asking(t, func(c *Config) { c.Base = "ou=nobody,dc=example" })
	s.Follow("alice")
	ends := 0
	if err := s.round(t.Context(), ending(func(context.Context, string, string) error { ends++; return nil })); err != nil || ends != 1 {
		t.Errorf("%v, %d ends", err, ends)
	}
}

func TestConfigurationRefused(t *testing.T) {
	if bad := config.Undocumented[Config](); len(bad) > 0 {
		t.Errorf("%q", bad)
	}
	for key, change := range map[string]func(*Config){
		"l.servers: ":            func(c *Config) { c.Servers = nil },
		"l.servers[0]: \"http":   func(c *Config) { c.Servers = []string{"http://ldap.example"} },
		"l.servers[0]: \"ldap.":  func(c *Config) { c.Servers = []string{"ldap.example"} },
		"l.servers[0]: \"ldaps":  func(c *Config) { c.Servers = []string{"ldaps://ldap.example/dc=example"} },
		"l.servers[0]: a socket": func(c *Config) { c.Servers = []string{"ldapi:///run/slapd/ldapi"} },
		"l.servers[0]: \"ldapi":  func(c *Config) { c.Servers, c.Plain = []string{"ldapi://"}, true },
		"l.servers[0]: ldap.ex":  func(c *Config) { c.Servers, c.Plain = []string{"ldap://ldap.example"}, true },
		"l.servers[0]: 192":      func(c *Config) { c.Servers, c.Plain = []string{"ldap://192.0.2.1"}, true },
		"l.servers[0]: \"plain":  func(c *Config) { c.Servers, c.Plain = []string{"ldaps://127.0.0.1"}, true },
		"l.servers[1]":           func(c *Config) { c.Servers = append(c.Servers, c.Servers[0]) },
		"l.bind_dn: bind_dn":     func(c *Config) { c.SecretFile = "" },
		"l.bind_dn: \"x":         func(c *Config) { c.BindDN = "x" },
		"l.base: where":          func(c *Config) { c.Base = "" },
		"l.base: \"x":            func(c *Config) { c.Base = "x" },
		"l.filter: \"(uid=x":     func(c *Config) { c.Filter = "(uid=x)" },
		"l.filter: \"(uid=%s":    func(c *Config) { c.Filter = "(uid=%s" },
		"l.group_filter":         func(c *Config) { c.GroupFilter = "(member=x)" },
		"l.groups: ":             func(c *Config) { c.GroupBase = "dc=example" },
		"l.groups[0].group":      func(c *Config) { c.Groups = []source.Mapping{{Value: "x", Group: "X"}} },
		"l.timeout":              func(c *Config) { c.Timeout = 0 },
		"l.interval":             func(c *Config) { c.Interval = 0 },
	} {
		c := defaults(t, func(c *Config) { c.Servers = []string{"ldaps://ldap.example"} })
		change(&c)
		if err := c.Check("l"); err == nil || !strings.HasPrefix(err.Error(), key) {
			t.Errorf("want a fault at %s, got: %v", key, err)
		}
	}
}

func TestAddresses(t *testing.T) {
	for server, want := range map[string]string{"ldaps://ldap.example": "tcp ldap.example:636", "ldap://ldap.example": "tcp ldap.example:389", "ldap://[2001:db8::1]": "tcp [2001:db8::1]:389",
		"ldaps://ldap.example:1636/": "tcp ldap.example:1636", "ldapi:///run/slapd/ldapi": "unix /run/slapd/ldapi"} {
		u, err := url.Parse(server)
		if err != nil {
			t.Fatal(err)
		}
		if network, addr := address(u); network+" "+addr != want {
			t.Errorf("%s: %s %s, want %s", server, network, addr, want)
		}
	}
}
