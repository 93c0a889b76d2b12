package radius

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"twinkey/ca/internal/source"
	"twinkey/ca/internal/source/sourcetest"
)

// users of the FreeRADIUS of the tests.
const users = `
alice	Cleartext-Password := "correct horse"
	Filter-Id = "staff",
	Session-Timeout = 3600,
	Class = 0x616c696365,
	Class = 0x00ff

bob	Auth-Type := Reject

carol	Cleartext-Password := "a password of more than sixteen, of more than thirty-two characters"
	Filter-Id = "guests"
`

func event(what source.What) source.Event {
	return source.Event{What: what, Time: time.Now().Add(-3 * time.Second), Session: "berlin-17", UID: "alice", Router: "berlin", Address: netip.MustParseAddr("10.1.0.7"),
		State: []byte("\x05alice\x02\x00\xff"), BytesIn: 5<<32 + 1000, BytesOut: 2000, PacketsIn: 10, PacketsOut: 20, Lasted: 90 * time.Second, Cause: source.CauseIdle}
}

// logins are what every transport has to do with a real server.
func logins(t *testing.T, s *Source) {
	t.Helper()
	a, err := s.Check(t.Context(), "alice", []byte(password))
	if err != nil || a.Group != "staff" || a.Session != time.Hour || string(a.State) != "\x05alice\x02\x00\xff" {
		t.Errorf("alice: %+v, %v", a, err)
	}
	a, err = s.Check(t.Context(), "carol", []byte("a password of more than sixteen, of more than thirty-two characters"))
	if err != nil || a.Group != "guests" || a.Session != 0 || a.State != nil {
		t.Errorf("carol: %+v, %v", a, err)
	}
	for uid, pass := range map[string]string{"alice": "wrong", "bob": password, "nobody": password, "carol": "a password of more than sixteen, of more than thirty-two character"} {
		if a, err := s.Check(t.Context(), uid, []byte(pass)); !errors.Is(err, source.ErrRejected) {
			t.Errorf("%s: %+v, %v", uid, a, err)
		}
	}
	if counted(s, "accepted") != 2 || counted(s, "rejected") != 4 {
		t.Errorf("%+v", s.State().Counts)
	}
}

// accounts reports a call and looks at what the server noted of it.
func accounts(t *testing.T, s *Source, detail func(testing.TB) string) {
	t.Helper()
	for _, what := range []source.What{source.Start, source.Interim, source.Stop} {
		if err := s.Account(t.Context(), event(what)); err != nil {
			t.Fatal(err)
		}
	}
	if counted(s, "accounted") != 3 {
		t.Errorf("%+v", s.State().Counts)
	}
	var records []string
	for end := time.Now().Add(5 * time.Second); len(records) < 3 && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		records = strings.Split(strings.TrimSpace(detail(t)), "\n\n")
	}
	if len(records) != 3 {
		t.Fatalf("%d records:\n%s", len(records), detail(t))
	}
	for i, want := range [][]string{
		{"Acct-Status-Type = Start"}, {"Acct-Status-Type = Interim-Update", "Acct-Input-Octets = 1000"},
		{"Acct-Status-Type = Stop", "Acct-Terminate-Cause = Idle-Timeout", "Acct-Input-Octets = 1000", "Acct-Input-Gigawords = 5", "Acct-Output-Octets = 2000",
			"Acct-Input-Packets = 10", "Acct-Output-Packets = 20", "Acct-Session-Time = 90"},
	} {
		for _, w := range append(want, `Acct-Session-Id = "berlin-17"`, `User-Name = "alice"`, `Called-Station-Id = "berlin"`, `NAS-Identifier = "twinkey-ca"`,
			"Framed-IP-Address = 10.1.0.7", "Class = 0x616c696365", "Class = 0x00ff", "Event-Timestamp = ", "Acct-Delay-Time = ") {
			if !strings.Contains(records[i], w) {
				t.Errorf("%s is missing in\n%s", w, records[i])
			}
		}
	}
	if strings.Contains(records[0], "Octets") {
		t.Errorf("a start with bytes:\n%s", records[0])
	}
}

func TestFreeRADIUSOverUDP(t *testing.T) {
	srv := sourcetest.StartFreeRADIUS(t, users, nil, "")
	s := overUDP(t, func(c *Config) { c.Wait, c.Accounting = 2*time.Second, []string{srv.Acct.String()} }, srv.Auth.String())
	logins(t, s)
	accounts(t, s, srv.Detail)

	// The wrong secret: the server cannot believe us, and does not answer.
	dir := t.TempDir()
	sourcetest.WriteFile(t, dir, "secret", "another secret than the server's")
	wrong := opened(t, dir, defaults(t, func(c *Config) {
		c.Servers, c.Transport, c.SecretFile, c.Wait, c.Tries = []string{srv.Auth.String()}, UDP, "secret", 100*time.Millisecond, 1
	}))
	if _, err := wrong.Check(t.Context(), "alice", []byte(password)); !errors.Is(err, source.ErrUnavailable) {
		t.Errorf("another secret: %v", err)
	}

	// It hangs, and answers again: one packet of several is answered once.
	srv.Hang(t)
	done := make(chan error, 1)
	go func() {
		_, err := s.Check(t.Context(), "alice", []byte(password))
		done <- err
	}()
	time.Sleep(2500 * time.Millisecond) // after the first repetition
	srv.Resume(t)
	if err := <-done; err != nil || counted(s, "repeated") == 0 {
		t.Errorf("%v, %+v", err, s.State().Counts)
	}

	// Nobody to account to: it is tried until there is no more time.
	srv.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := s.Account(ctx, event(source.Start)); !errors.Is(err, source.ErrUnavailable) {
		t.Errorf("%v", err)
	}
}

func overTLS(t *testing.T, pki *sourcetest.PKI, change func(*Config), servers ...string) *Source {
	t.Helper()
	return opened(t, pki.Dir, defaults(t, func(c *Config) {
		c.Servers, c.Root, c.Certificate, c.Key = servers, "root.crt", "ca.crt", "ca.key"
		if change != nil {
			change(c)
		}
	}))
}

func newPKI(t *testing.T) *sourcetest.PKI {
	t.Helper()
	pki := sourcetest.NewPKI(t, t.TempDir(), "root")
	pki.Issue(t, "ca")
	pki.Issue(t, "radius")
	return pki
}

func TestFreeRADIUSOverRadSec(t *testing.T) {
	for _, version := range []string{"1.2", "1.3"} {
		t.Run("TLS "+version, func(t *testing.T) {
			pki := newPKI(t)
			srv := sourcetest.StartFreeRADIUS(t, users, pki, version)
			server := srv.TLS.String()
			s := overTLS(t, pki, func(c *Config) { c.Wait, c.Accounting = 2*time.Second, []string{server} }, server)
			logins(t, s)
			accounts(t, s, srv.Detail)

			// Many at once through one connection.
			errs := make(chan error, 50)
			for range cap(errs) {
				go func() {
					_, err := s.Check(t.Context(), "alice", []byte(password))
					errs <- err
				}()
			}
			for range cap(errs) {
				if err := <-errs; err != nil {
					t.Error(err)
				}
			}

			// A server whose certificate names another, or that another authority vouches for, is not spoken to; nor does the server
			// speak to us with a certificate of another's.
			other := newPKI(t)
			for name, bad := range map[string]*Source{
				"another name": overTLS(t, pki, func(c *Config) { c.ServerName, c.Wait = "other.example", 100*time.Millisecond }, server),
				"another root": overTLS(t, other, func(c *Config) { c.Wait = 100 * time.Millisecond }, server),
				"our certificate is another's": overTLS(t, pki, func(c *Config) {
					c.Certificate, c.Key, c.Wait = other.Cert("ca"), other.Key("ca"), 100*time.Millisecond
				}, server),
			} {
				if a, err := bad.Check(t.Context(), "alice", []byte(password)); !errors.Is(err, source.ErrUnavailable) {
					t.Errorf("%s: %+v, %v", name, a, err)
				}
			}

			// It ends, and comes back: the connection is made anew.
			srv.Stop()
			quick := overTLS(t, pki, func(c *Config) { c.Wait = 100 * time.Millisecond }, server)
			if _, err := quick.Check(t.Context(), "alice", []byte(password)); !errors.Is(err, source.ErrUnavailable) {
				t.Errorf("nobody there: %v", err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			sourcetest.Ended(t, "radius.(*link).read")
		})
	}
}

// radclient sends a request of RFC 5176 and returns what it prints of the answer.
func radclient(t *testing.T, to netip.AddrPort, kind, secret, attributes string) string {
	t.Helper()
	c := exec.Command(sourcetest.Program(t, "radclient", "freeradius-utils"), "-x", "-r", "1", "-t", "2", to.String(), kind, secret)
	c.Stdin = strings.NewReader(attributes)
	out, err := c.CombinedOutput()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok { // a NAK, or no answer
		t.Fatal(err)
	}
	return string(out)
}

// watched is a source that listens, and what it ordered.
type watched struct {
	*Source
	addr   netip.AddrPort
	orders chan string
	fails  chan error // what the next order comes to, if anything
}

// End and Change are orders.
func (w *watched) End(_ context.Context, uid string, said source.Word) error {
	return w.ordered(uid, said.Why)
}

func (w *watched) Change(_ context.Context, uid string, c source.Change, said source.Word) error {
	return w.ordered(uid, fmt.Sprintf("%q %s %s", c.Group, c.Session, said.Why))
}

func (w *watched) ordered(uid, what string) error {
	select {
	case err := <-w.fails:
		return err
	default:
	}
	if uid != "alice" {
		return fmt.Errorf("%s: %w", uid, source.ErrNotThere)
	}
	w.orders <- uid + ": " + what
	return nil
}

func watch(t *testing.T, change func(*Config)) *watched {
	t.Helper()
	w := &watched{addr: sourcetest.FreePort(t), orders: make(chan string, 10), fails: make(chan error, 1)}
	dir := t.TempDir()
	sourcetest.WriteFile(t, dir, "secret", secretText)
	w.Source = opened(t, dir, defaults(t, func(c *Config) {
		c.Servers, c.Transport, c.SecretFile = []string{"127.0.0.1:1812"}, UDP, "secret"
		c.Disconnect.Listen, c.Disconnect.Clients = w.addr, map[string]string{"127.0.0.1": "secret"}
		if change != nil {
			change(c)
		}
	}))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Watch(ctx, w) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if inUse(w.addr) {
			return w
		}
	}
	t.Fatal("nobody listens")
	return nil
}

// The requests of a real client, and how each is answered.
func TestOrdersByRadclient(t *testing.T) {
	w := watch(t, nil)
	if err := w.Account(t.Context(), event(source.Start)); err != nil {
		t.Fatal(err)
	}
	stamp := fmt.Sprintf("\nEvent-Timestamp = %d\nMessage-Authenticator = 0x00\n", time.Now().Unix())
	for _, tt := range []struct {
		name, kind, attributes, want string
		ordered                      string // how that begins; empty: nothing is
		fails                        error
	}{
		{"by name", "disconnect", "User-Name = alice", "Disconnect-ACK", "alice: Disconnect-Request by source office", nil},
		{"by session", "disconnect", `Acct-Session-Id = "berlin-17"`, "Disconnect-ACK", "alice: Disconnect-Request by source office", nil},
		{"by both, with what does not matter", "disconnect", "User-Name = alice\nAcct-Session-Id = \"berlin-17\"\nNAS-IP-Address = 192.0.2.1\nNAS-Identifier = twinkey-ca\nReply-Message = \"bye\"", "Disconnect-ACK", "alice: Disconnect-Request by source office", nil},
		{"somebody else's session", "disconnect", "User-Name = bob\nAcct-Session-Id = \"berlin-17\"", "Session-Context-Not-Found", "", nil},
		{"no such session", "disconnect", `Acct-Session-Id = "berlin-18"`, "Session-Context-Not-Found", "", nil},
		{"nobody", "disconnect", "User-Name = nobody", "Session-Context-Not-Found", "", nil},
		{"no name", "disconnect", `User-Name = "Not a name"`, "Session-Context-Not-Found", "", nil},
		{"nothing named", "disconnect", "NAS-Identifier = twinkey-ca", "Missing-Attribute", "", nil},
		{"another NAS", "disconnect", "User-Name = alice\nNAS-Identifier = other", "NAS-Identification-Mismatch", "", nil},
		{"one address of the user's", "disconnect", "User-Name = alice\nFramed-IP-Address = 10.1.0.7", "Unsupported-Attribute", "", nil},
		{"authorize only", "disconnect", "User-Name = alice\nService-Type = Authorize-Only", "Unsupported-Service", "", nil},
		{"it fails", "disconnect", "User-Name = alice\nReply-Message = \"fails\"", "Resources-Unavailable", "", errors.New("the directory is away")},
		{"it does not fail any more", "disconnect", "User-Name = alice\nReply-Message = \"fails\"", "Disconnect-ACK", "alice: Disconnect-Request by source office", nil},
		{"a group", "coa", "User-Name = alice\nFilter-Id = admins", "CoA-ACK", `alice: "admins" 0s CoA-Request by source office`, nil},
		{"a time", "coa", "Acct-Session-Id = \"berlin-17\"\nSession-Timeout = 60", "CoA-ACK", `alice: "" 1m0s CoA-Request by source office`, nil},
		{"both", "coa", "User-Name = alice\nSession-Timeout = 60\nFilter-Id = admins\nReply-Message = \"welcome\"", "CoA-ACK", `alice: "admins" 1m0s CoA-Request by source office: "welcome"`, nil},
		{"no change", "coa", "User-Name = alice", "Missing-Attribute", "", nil},
		{"a change of what is not changed", "coa", "User-Name = alice\nFilter-Id = admins\nIdle-Timeout = 60", "Unsupported-Attribute", "", nil},
		{"a group that cannot be", "coa", "User-Name = alice\nFilter-Id = \"No Group\"", "Invalid-Attribute-Value", "", nil},
		{"a change of nobody", "coa", "User-Name = nobody\nFilter-Id = admins", "Session-Context-Not-Found", "", nil},
		{"a change of another NAS's", "coa", "User-Name = alice\nFilter-Id = admins\nNAS-Identifier = other", "NAS-Identification-Mismatch", "", nil},
		{"a change, to be asked for", "coa", "User-Name = alice\nService-Type = Authorize-Only", "Unsupported-Service", "", nil},
		{"a change that fails", "coa", "User-Name = alice\nFilter-Id = staff", "Resources-Unavailable", "", errors.New("the directory is away")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.fails != nil {
				w.fails <- tt.fails
			}
			out := radclient(t, w.addr, tt.kind, secretText, tt.attributes+stamp)
			if !strings.Contains(out, tt.want) || strings.Contains(out, "invalid") {
				t.Errorf("the answer is not %s:\n%s", tt.want, out)
			}
			select {
			case what := <-w.orders:
				if tt.ordered == "" || !strings.HasPrefix(what, tt.ordered) {
					t.Errorf("ordered %s", what)
				}
			default:
				if tt.ordered != "" {
					t.Error("nothing was ordered")
				}
			}
		})
	}
	for name, silence := range map[string]string{
		"another secret":  radclient(t, w.addr, "disconnect", "another", "User-Name = alice"+stamp),
		"no timestamp":    radclient(t, w.addr, "disconnect", secretText, "User-Name = alice\nMessage-Authenticator = 0x00"),
		"an old one":      radclient(t, w.addr, "disconnect", secretText, fmt.Sprintf("User-Name = alice\nMessage-Authenticator = 0x00\nEvent-Timestamp = %d", time.Now().Add(-time.Hour).Unix())),
		"no signature":    radclient(t, w.addr, "disconnect", secretText, fmt.Sprintf("User-Name = alice\nEvent-Timestamp = %d", time.Now().Unix())),
		"a forged change": radclient(t, w.addr, "coa", "another", "User-Name = alice\nFilter-Id = admins"+stamp),
	} {
		if strings.Contains(silence, "-ACK") || strings.Contains(silence, "-NAK") {
			t.Errorf("%s is answered:\n%s", name, silence)
		}
	}
	if len(w.orders) > 0 {
		t.Error("something was ordered by what is not believed")
	}
	// What ended with the call is forgotten.
	if err := w.Account(t.Context(), event(source.Stop)); err != nil {
		t.Fatal(err)
	}
	if out := radclient(t, w.addr, "disconnect", secretText, `Acct-Session-Id = "berlin-17"`+fmt.Sprintf("\nEvent-Timestamp = %d\nMessage-Authenticator = 0x00\n", time.Now().Unix()+1)); !strings.Contains(out, "Session-Context-Not-Found") {
		t.Errorf("a session that is over:\n%s", out)
	}
}
