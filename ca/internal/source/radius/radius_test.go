package radius

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/md5"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"layeh.com/radius"

	"twinkey/ca/internal/source"
	"twinkey/ca/internal/source/sourcetest"
	"twinkey/pkg/config"
	"twinkey/pkg/identity"
)

const (
	secretText = sourcetest.Secret
	password   = "correct horse"
)

// defaults is the section with what is given over its defaults.
func defaults(t testing.TB, change func(*Config)) Config {
	t.Helper()
	c, err := config.Parse[Config]("radius", nil)
	if err != nil {
		t.Fatal(err)
	}
	change(&c)
	if err := c.Check("radius"); err != nil {
		t.Fatal(err)
	}
	return c
}

// overUDP is a source that asks servers by UDP.
func overUDP(t testing.TB, change func(*Config), servers ...string) *Source {
	t.Helper()
	dir := t.TempDir()
	sourcetest.WriteFile(t, dir, "secret", secretText+"\n")
	return opened(t, dir, defaults(t, func(c *Config) {
		c.Servers, c.Transport, c.SecretFile = servers, UDP, "secret"
		if change != nil {
			change(c)
		}
	}))
}

func opened(t testing.TB, dir string, c Config) *Source {
	t.Helper()
	s, err := New("office", "sources[0].radius", dir, c, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// reply is an answer under construction.
type reply struct {
	code       radius.Code
	id         byte
	auth       [authLen]byte // of the request
	attrs      radius.Attributes
	signatures int // Message-Authenticators, first
	secret     []byte
	spoil      func(wire []byte) // before it is signed by the Response Authenticator
	after      func(wire []byte) // after
}

func replyTo(req []byte, code radius.Code, attrs ...*radius.AVP) *reply {
	return &reply{code: code, id: req[1], auth: [authLen]byte(req[authAt:headerLen]), attrs: attrs, signatures: 1, secret: []byte(secretText)}
}

func avp(t radius.Type, v string) *radius.AVP {
	return &radius.AVP{Type: t, Attribute: radius.Attribute(v)}
}

func (r *reply) bytes(t testing.TB) []byte {
	t.Helper()
	p := &radius.Packet{Code: r.code, Identifier: r.id, Authenticator: r.auth}
	for range r.signatures {
		p.Add(typeMessageAuthenticator, make(radius.Attribute, authLen))
	}
	p.Attributes = append(p.Attributes, r.attrs...)
	wire, err := p.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	if r.signatures > 0 {
		h := hmac.New(md5.New, r.secret) // as RFC 3579 3.2 says it, not as packet.go does
		h.Write(wire)
		copy(wire[headerLen+2:], h.Sum(nil))
	}
	if r.spoil != nil {
		r.spoil(wire)
	}
	h := md5.New()
	h.Write(wire)
	h.Write(r.secret)
	copy(wire[authAt:], h.Sum(nil))
	if r.after != nil {
		r.after(wire)
	}
	return wire
}

// server is one by UDP that answers as a test wants; it notes what it is asked.
type server struct {
	addr string
	conn *net.UDPConn
	mu   sync.Mutex
	got  [][]byte
}

func serve(t testing.TB, answer func(n int, req []byte) [][]byte) *server {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	s := &server{addr: conn.LocalAddr().String(), conn: conn}
	var wg sync.WaitGroup
	wg.Go(func() {
		var buf [maxPacket]byte
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf[:])
			if err != nil {
				return
			}
			req := bytes.Clone(buf[:n])
			s.mu.Lock()
			s.got = append(s.got, req)
			i := len(s.got) - 1
			s.mu.Unlock()
			for _, b := range answer(i, req) {
				if _, err := conn.WriteToUDPAddrPort(b, from); err != nil {
					t.Error(err)
				}
			}
		}
	})
	t.Cleanup(func() {
		_ = conn.Close()
		wg.Wait()
	})
	return s
}

func (s *server) asked() [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([][]byte(nil), s.got...)
}

func silent(int, []byte) [][]byte { return nil }

// accept is an honest server's yes, with attributes.
func accept(t testing.TB, attrs ...*radius.AVP) func(int, []byte) [][]byte {
	return func(_ int, req []byte) [][]byte {
		return [][]byte{replyTo(req, radius.CodeAccessAccept, attrs...).bytes(t)}
	}
}

func check(t *testing.T, s *Source) (source.Answer, error) {
	t.Helper()
	return s.Check(t.Context(), "alice", []byte(password))
}

// counted is how often something happened.
func counted(s *Source, what string) uint64 {
	for _, c := range s.State().Counts {
		if c.What == what {
			return c.N
		}
	}
	return 0
}

// What goes out: the signature first and right, the password hidden with nothing behind it, everything new each time.
func TestRequest(t *testing.T) {
	srv := serve(t, accept(t))
	s := overUDP(t, nil, srv.addr)
	// What lies in memory behind the password must not be sent.
	room := []byte(password + "NEXT TO IT IN MEMORY")
	for range 20 {
		if _, err := s.Check(t.Context(), "alice", room[:len(password)]); err != nil {
			t.Fatal(err)
		}
	}
	ids, auths := map[byte]bool{}, map[string]bool{}
	for _, b := range srv.asked() {
		p, err := parse(b)
		if err != nil {
			t.Fatal(err)
		}
		if p.Attributes[0].Type != typeMessageAuthenticator {
			t.Fatalf("the first attribute is of type %d", p.Attributes[0].Type)
		}
		unsigned := bytes.Clone(b)
		clear(unsigned[headerLen+2 : headerLen+2+authLen])
		h := hmac.New(md5.New, []byte(secretText))
		h.Write(unsigned)
		if !hmac.Equal(h.Sum(nil), p.Attributes[0].Attribute) {
			t.Error("the Message-Authenticator is wrong")
		}
		hidden, _ := p.Lookup(typeUserPassword)
		if got, err := radius.UserPassword(hidden, []byte(secretText), b[authAt:headerLen]); err != nil || string(got) != password || len(hidden) != 16 {
			t.Errorf("the password arrives as %q, %v", got, err)
		}
		for typ, want := range map[radius.Type]string{typeUserName: "alice", typeNASIdentifier: "twinkey-ca", typeServiceType: "\x00\x00\x00\x02", typeNASPortType: "\x00\x00\x00\x05"} {
			if v, _ := p.Lookup(typ); string(v) != want {
				t.Errorf("attribute %d is %q, want %q", typ, v, want)
			}
		}
		if bytes.Contains(b, []byte(password)) {
			t.Error("the password is readable")
		}
		ids[b[1]], auths[string(b[authAt:headerLen])] = true, true
	}
	if len(auths) != 20 || len(ids) < 10 {
		t.Errorf("%d authenticators and %d identifiers in 20 requests", len(auths), len(ids))
	}
}

// A server that lies, or somebody in its place: nothing of it is believed, all of it is counted, and an honest answer
// that comes after it still counts.
func TestLies(t *testing.T) {
	flip := func(at int) func([]byte) { return func(b []byte) { b[at] ^= 1 } }
	for name, tt := range map[string]struct {
		lie   func(r *reply)
		raw   func(req []byte) []byte
		count string
	}{
		"no Message-Authenticator":      {lie: func(r *reply) { r.signatures = 0 }, count: "dropped: no Message-Authenticator"}, // CVE-2024-3596
		"a wrong Message-Authenticator": {lie: func(r *reply) { r.spoil = flip(headerLen + 2) }, count: "dropped: wrong Message-Authenticator"},
		"one of a reject made into an accept": {lie: func(r *reply) {
			r.spoil = func(b []byte) { b[0] = byte(radius.CodeAccessAccept) }
			r.code = radius.CodeAccessReject
		}, count: "dropped: wrong Message-Authenticator"},
		"two Message-Authenticators":                    {lie: func(r *reply) { r.signatures = 2 }, count: "dropped: wrong Message-Authenticator"},
		"a short Message-Authenticator":                 {lie: func(r *reply) { r.signatures, r.attrs = 0, radius.Attributes{avp(typeMessageAuthenticator, "short")} }, count: "dropped: wrong Message-Authenticator"},
		"a wrong Response Authenticator":                {lie: func(r *reply) { r.after = flip(authAt) }, count: "dropped: wrong authenticator"},
		"another secret":                                {lie: func(r *reply) { r.secret = []byte("another one") }, count: "dropped: wrong authenticator"},
		"the answer to another request, by Identifier":  {lie: func(r *reply) { r.id++ }, count: "dropped: stray"},
		"the answer to another request, by its content": {lie: func(r *reply) { r.auth[0] ^= 1 }, count: "dropped: wrong authenticator"},
		"a Proxy-State":                                 {lie: func(r *reply) { r.attrs = append(r.attrs, avp(typeProxyState, "x")) }, count: "dropped: Proxy-State"},
		"an answer to something else":                   {lie: func(r *reply) { r.code = radius.CodeAccountingResponse }, count: "dropped: stray"},
		"a request":                                     {raw: func(req []byte) []byte { return req }, count: "dropped: stray"},
		"noise":                                         {raw: func([]byte) []byte { return []byte("not at all a packet of the protocol") }, count: "dropped: malformed"},
		"nothing":                                       {raw: func([]byte) []byte { return []byte{} }, count: "dropped: malformed"},
		"a length beyond the datagram":                  {lie: func(r *reply) { r.after = func(b []byte) { b[2] = 0x0f } }, count: "dropped: malformed"},
		"an attribute of no length":                     {lie: func(r *reply) { r.after = func(b []byte) { b[headerLen+1] = 0 } }, count: "dropped: malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // each waits for an honest answer that does not come
			lie := func(req []byte) []byte {
				if tt.raw != nil {
					return tt.raw(req)
				}
				r := replyTo(req, radius.CodeAccessAccept, avp(typeFilterID, "admins"))
				tt.lie(r)
				return r.bytes(t)
			}
			srv := serve(t, func(_ int, req []byte) [][]byte { return [][]byte{lie(req)} })
			s := overUDP(t, func(c *Config) { c.Wait, c.Tries = time.Second, 1 }, srv.addr)
			a, err := check(t, s)
			if !errors.Is(err, source.ErrUnavailable) || errors.Is(err, source.ErrRejected) || a.Group != "" {
				t.Errorf("%+v, %v", a, err)
			}
			if n := counted(s, tt.count); n != 1 {
				t.Errorf("%s: %d, want 1; %+v", tt.count, n, s.State().Counts)
			}
			// The same, and the honest answer after it.
			both := serve(t, func(n int, req []byte) [][]byte {
				return append([][]byte{lie(req)}, accept(t, avp(typeFilterID, "staff"))(n, req)...)
			})
			s = overUDP(t, nil, both.addr)
			if a, err := check(t, s); err != nil || a.Group != "staff" {
				t.Errorf("with the honest answer behind it: %+v, %v", a, err)
			}
		})
	}
}

// An answer with everything right from another address or port is nobody's.
func TestOnlyFromTheServerAsked(t *testing.T) {
	other, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	ready := make(chan struct{})
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go func() {
		defer close(ready)
		var buf [maxPacket]byte
		n, from, err := conn.ReadFromUDPAddrPort(buf[:])
		if err != nil {
			return
		}
		_, _ = other.WriteToUDPAddrPort(replyTo(buf[:n], radius.CodeAccessAccept).bytes(t), from)
	}()
	s := overUDP(t, func(c *Config) { c.Wait, c.Tries = 200*time.Millisecond, 1 }, conn.LocalAddr().String())
	if _, err := check(t, s); !errors.Is(err, source.ErrUnavailable) {
		t.Errorf("%v", err)
	}
	<-ready
	if counted(s, "accepted") != 0 {
		t.Errorf("%+v", s.State().Counts)
	}
}

// Silence: the same packet again, later each time; then the other server, with another packet; after that the
// silent one is asked last.
func TestSilence(t *testing.T) {
	deaf := serve(t, silent)
	hears := serve(t, accept(t, avp(typeFilterID, "staff")))
	const wait = 200 * time.Millisecond
	s := overUDP(t, func(c *Config) { c.Wait = wait }, deaf.addr, hears.addr)
	began := time.Now()
	if a, err := check(t, s); err != nil || a.Group != "staff" {
		t.Fatalf("%+v, %v", a, err)
	}
	if took := time.Since(began); took < (1+2+4)*wait*8/10 {
		t.Errorf("three tries took %s", took)
	}
	sent := deaf.asked()
	if len(sent) != 3 || !bytes.Equal(sent[0], sent[1]) || !bytes.Equal(sent[1], sent[2]) {
		t.Errorf("the silent one got %d packets, want the same one 3 times", len(sent))
	}
	if bytes.Equal(hears.asked()[0][authAt:headerLen], sent[0][authAt:headerLen]) {
		t.Error("both servers got the same authenticator")
	}
	if counted(s, "repeated") != 2 || counted(s, "servers silent") != 1 {
		t.Errorf("%+v", s.State().Counts)
	}
	if _, err := check(t, s); err != nil {
		t.Fatal(err)
	}
	if len(deaf.asked()) != 3 {
		t.Error("the one that fell silent was asked first again")
	}
	// Nobody at all.
	s = overUDP(t, func(c *Config) { c.Wait, c.Tries = leastWait, 2 }, deaf.addr)
	if _, err := check(t, s); !errors.Is(err, source.ErrUnavailable) || errors.Is(err, source.ErrRejected) {
		t.Errorf("%v", err)
	}
	// Nobody listens there: the next one is asked at once.
	s = overUDP(t, func(c *Config) { c.Wait = 5 * time.Second }, sourcetest.FreePort(t).String(), hears.addr)
	began = time.Now()
	if _, err := check(t, s); err != nil || time.Since(began) > 4*time.Second {
		t.Errorf("%v after %s", err, time.Since(began))
	}
}

// However long servers may be waited for: the next one is asked in time, and one that used up all the time is asked last from then on.
func TestSlowServersLeaveTimeForTheNext(t *testing.T) {
	deaf, hears := serve(t, silent), serve(t, accept(t, avp(typeFilterID, "staff")))
	patient := func(c *Config) { c.Wait, c.Tries = 40*time.Second, 1 }
	s := overUDP(t, patient, deaf.addr, hears.addr)
	s.turn = 200 * time.Millisecond
	began := time.Now()
	if _, err := check(t, s); err != nil || time.Since(began) > 5*time.Second {
		t.Errorf("%v after %s", err, time.Since(began))
	}
	s = overUDP(t, patient, deaf.addr, hears.addr)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := s.Check(ctx, "alice", []byte(password)); !errors.Is(err, source.ErrUnavailable) || counted(s, "servers silent") != 1 {
		t.Errorf("%v, %+v", err, s.State().Counts)
	}
	began = time.Now()
	if _, err := check(t, s); err != nil || time.Since(began) > 5*time.Second {
		t.Errorf("after it had used up the time: %v after %s", err, time.Since(began))
	}
	// That nobody waits any more says nothing of the server.
	gone, leave := context.WithCancel(t.Context())
	s = overUDP(t, patient, deaf.addr, hears.addr)
	time.AfterFunc(50*time.Millisecond, leave)
	if _, err := s.Check(gone, "alice", []byte(password)); !errors.Is(err, source.ErrUnavailable) || counted(s, "servers silent") != 0 {
		t.Errorf("%v, %+v", err, s.State().Counts)
	}
}

func TestRepetitionIsAnswered(t *testing.T) {
	srv := serve(t, func(n int, req []byte) [][]byte {
		if n < 2 {
			return nil
		}
		return accept(t)(n, req)
	})
	s := overUDP(t, func(c *Config) { c.Wait = leastWait }, srv.addr)
	if _, err := check(t, s); err != nil {
		t.Error(err)
	}
}

func TestAnswers(t *testing.T) {
	vendor := "\x00\x00\x00\x09" + "\x01\x07staff" + "\x02\x03x"
	for name, tt := range map[string]struct {
		change func(*Config)
		attrs  []*radius.AVP
		want   source.Answer
	}{
		"nothing":              {want: source.Answer{}},
		"a group":              {attrs: []*radius.AVP{avp(typeFilterID, "staff")}, want: source.Answer{Group: "staff"}},
		"none that can be one": {attrs: []*radius.AVP{avp(typeFilterID, "All Staff!"), avp(typeFilterID, "")}, want: source.Answer{}},
		"the fallback":         {change: func(c *Config) { c.Group = "guests" }, attrs: []*radius.AVP{avp(typeFilterID, "All Staff!")}, want: source.Answer{Group: "guests"}},
		"a mapping": {change: func(c *Config) {
			c.Groups = []source.Mapping{{Value: "Boss", Group: "admins"}, {Value: "All Staff!", Group: "staff"}}
		},
			attrs: []*radius.AVP{avp(typeFilterID, "All Staff!"), avp(typeFilterID, "Boss")}, want: source.Answer{Group: "admins"}},
		"a mapping that does not fit": {change: func(c *Config) { c.Groups = []source.Mapping{{Value: "Boss", Group: "admins"}} },
			attrs: []*radius.AVP{avp(typeFilterID, "admins")}, want: source.Answer{}},
		"a time":           {attrs: []*radius.AVP{avp(typeSessionTimeout, "\x00\x00\x0e\x10")}, want: source.Answer{Session: time.Hour}},
		"a malformed time": {attrs: []*radius.AVP{avp(typeSessionTimeout, "\x0e\x10")}, want: source.Answer{}},
		"Class": {attrs: []*radius.AVP{avp(typeClass, "one"), avp(typeClass, ""), avp(typeClass, "two")},
			want: source.Answer{State: []byte("\x03one\x03two")}},
		"Class as group":   {change: func(c *Config) { c.GroupAttribute = "class" }, attrs: []*radius.AVP{avp(typeClass, "staff")}, want: source.Answer{Group: "staff", State: []byte("\x05staff")}},
		"a tagged one":     {change: func(c *Config) { c.GroupAttribute = "Tunnel-Private-Group-Id" }, attrs: []*radius.AVP{avp(typeTunnelPrivateGroupID, "\x01staff")}, want: source.Answer{Group: "staff"}},
		"an untagged one":  {change: func(c *Config) { c.GroupAttribute = "Tunnel-Private-Group-Id" }, attrs: []*radius.AVP{avp(typeTunnelPrivateGroupID, "staff")}, want: source.Answer{Group: "staff"}},
		"a vendor's":       {change: func(c *Config) { c.GroupAttribute = "26.9.1" }, attrs: []*radius.AVP{avp(typeVendorSpecific, vendor)}, want: source.Answer{Group: "staff"}},
		"another vendor's": {change: func(c *Config) { c.GroupAttribute = "26.10.1" }, attrs: []*radius.AVP{avp(typeVendorSpecific, vendor)}, want: source.Answer{}},
	} {
		t.Run(name, func(t *testing.T) {
			s := overUDP(t, tt.change, serve(t, accept(t, tt.attrs...)).addr)
			a, err := check(t, s)
			if err != nil || a.Group != tt.want.Group || a.Session != tt.want.Session || !bytes.Equal(a.State, tt.want.State) {
				t.Errorf("%+v, %v; want %+v", a, err, tt.want)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	no := func(code radius.Code) *server {
		return serve(t, func(_ int, req []byte) [][]byte {
			return [][]byte{replyTo(req, code, avp(typeReplyMessage, "unknown user")).bytes(t)}
		})
	}
	rejects := no(radius.CodeAccessReject)
	s := overUDP(t, nil, rejects.addr)
	if _, err := check(t, s); !errors.Is(err, source.ErrRejected) || strings.Contains(err.Error(), "unknown user") {
		t.Errorf("%v", err)
	}
	s = overUDP(t, nil, no(radius.CodeAccessChallenge).addr)
	if _, err := check(t, s); !errors.Is(err, source.ErrRejected) || counted(s, "challenged") != 1 {
		t.Errorf("a challenge: %v", err)
	}
	// What nobody can have is not asked about.
	before := len(rejects.asked())
	s = overUDP(t, nil, rejects.addr)
	for name, c := range map[string][2]string{"no password": {"alice", ""}, "a long one": {"alice", strings.Repeat("x", 129)}, "a zero in it": {"alice", "secret\x00"},
		"no user": {"", password}, "no name": {"alice\x00", password}, "upper case": {"Alice", password}} {
		if _, err := s.Check(t.Context(), c[0], []byte(c[1])); !errors.Is(err, source.ErrRejected) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := len(rejects.asked()); n != before {
		t.Errorf("the server was asked %d times", n-before)
	}
	if _, err := s.Check(t.Context(), "alice", []byte(strings.Repeat("x", 128))); !errors.Is(err, source.ErrRejected) || len(rejects.asked()) != before+1 {
		t.Errorf("the longest password: %v", err)
	}
}

// A thousand logins at a silent server hold no more sockets than maxOutstanding, and end when the source does.
func TestOutstandingIsBounded(t *testing.T) {
	srv := serve(t, silent)
	s := overUDP(t, func(c *Config) { c.Wait, c.Tries = 10*time.Second, 1 }, srv.addr)
	errs := make(chan error, maxOutstanding)
	for range maxOutstanding {
		go func() {
			_, err := s.Check(t.Context(), "alice", []byte(password))
			errs <- err
		}()
	}
	for end := time.Now().Add(10 * time.Second); len(s.turns) < maxOutstanding && time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.Check(ctx, "bob", []byte(password)); !errors.Is(err, source.ErrUnavailable) {
		t.Errorf("one more: %v", err)
	}
	for end := time.Now().Add(10 * time.Second); len(srv.asked()) < maxOutstanding && time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
	for _, b := range srv.asked() {
		if bytes.Contains(b, []byte("bob")) {
			t.Error("it was sent")
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for range maxOutstanding {
		if err := <-errs; !errors.Is(err, source.ErrUnavailable) || !errors.Is(err, errClosed) {
			t.Fatal(err)
		}
	}
}

func TestSecretFiles(t *testing.T) {
	dir := t.TempDir()
	c := defaults(t, func(c *Config) { c.Servers, c.Transport, c.SecretFile = []string{"127.0.0.1:1812"}, UDP, "secret" })
	try := func() error {
		s, err := New("office", "sources[0].radius", dir, c, slog.New(slog.DiscardHandler))
		if err == nil {
			err = s.Close()
		}
		return err
	}
	if err := try(); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "sources[0].radius.secret_file") {
		t.Errorf("no file: %v", err)
	}
	path := sourcetest.WriteFile(t, dir, "secret", "\n")
	if err := try(); err == nil {
		t.Error("an empty secret is taken")
	}
	sourcetest.WriteFile(t, dir, "secret", "short")
	if err := try(); err != nil {
		t.Error(err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := try(); !errors.Is(err, identity.ErrPermissions) {
		t.Errorf("others may read it: %v", err)
	}
}

// Whoever runs it without TLS is told, and that a secret is short.
func TestWarnings(t *testing.T) {
	dir := t.TempDir()
	sourcetest.WriteFile(t, dir, "secret", "short")
	s := opened(t, dir, defaults(t, func(c *Config) { c.Servers, c.Transport, c.SecretFile = []string{"127.0.0.1:1812"}, UDP, "secret" }))
	if w := s.State().Warnings; len(w) != 2 || !strings.Contains(w[0], "RADIUS over UDP") || !strings.Contains(w[1], "shorter than 16") || strings.Contains(fmt.Sprint(s.State()), "a secret") {
		t.Errorf("%q", w)
	}
	pki := sourcetest.NewPKI(t, dir, "root")
	pki.Issue(t, "ca")
	s = opened(t, dir, defaults(t, func(c *Config) {
		c.Servers, c.Certificate, c.Key, c.Root = []string{"127.0.0.1:2083"}, "ca.crt", "ca.key", "root.crt"
	}))
	if st := s.State(); len(st.Warnings) != 0 || st.Kind != "radius over TLS" {
		t.Errorf("%+v", st)
	}
}

func TestConfigurationRefused(t *testing.T) {
	if bad := config.Undocumented[Config](); len(bad) > 0 {
		t.Errorf("%q", bad)
	}
	for key, change := range map[string]func(*Config){
		"r.servers: ":                 func(c *Config) { c.Servers = nil },
		"r.servers[0]":                func(c *Config) { c.Servers = []string{"radius.example"} },
		"r.servers[1]":                func(c *Config) { c.Servers = []string{"radius.example:1812", "radius.example:1812"} },
		"r.accounting[0]":             func(c *Config) { c.Accounting = []string{"radius.example:0"} },
		"r.transport":                 func(c *Config) { c.Transport = "tcp" },
		"r.certificate: RadSec needs": func(c *Config) { c.Transport, c.SecretFile = RadSec, "" },
		"r.key: RadSec needs":         func(c *Config) { c.Transport, c.SecretFile, c.Certificate = RadSec, "", "x" },
		"r.secret_file: RadSec has":   func(c *Config) { c.Transport, c.Certificate, c.Key = RadSec, "x", "x" },
		"r.secret_file: UDP needs":    func(c *Config) { c.SecretFile = "" },
		"r.root: UDP knows":           func(c *Config) { c.Root = "root.crt" },
		"r.nas_identifier":            func(c *Config) { c.NASIdentifier = "" },
		"r.group_attribute":           func(c *Config) { c.GroupAttribute = "26.0.1" },
		"r.groups[0].group":           func(c *Config) { c.Groups = []source.Mapping{{Value: "x", Group: "X"}} },
		"r.groups[0].value":           func(c *Config) { c.Groups = []source.Mapping{{Group: "x"}} },
		"r.group: ":                   func(c *Config) { c.Group = "X" },
		"r.tries":                     func(c *Config) { c.Tries = 0 },
		"r.wait: 1ms":                 func(c *Config) { c.Wait = time.Millisecond },
		"r.wait: 20s":                 func(c *Config) { c.Wait = 20 * time.Second },
		"r.disconnect: ":              func(c *Config) { c.Disconnect.Listen = netip.MustParseAddrPort("127.0.0.1:3799") },
		"r.disconnect.clients.radius: \"": func(c *Config) {
			c.Disconnect.Listen, c.Disconnect.Clients = netip.MustParseAddrPort("127.0.0.1:3799"), map[string]string{"radius": "x"}
		},
		"r.disconnect.clients.192.0.2.1:": func(c *Config) {
			c.Disconnect.Listen, c.Disconnect.Clients = netip.MustParseAddrPort("127.0.0.1:3799"), map[string]string{"192.0.2.1": ""}
		},
		"r.disconnect.window": func(c *Config) { c.Disconnect.Window = 0 },
	} {
		c := defaults(t, func(c *Config) { c.Servers, c.Transport, c.SecretFile = []string{"radius.example:1812"}, UDP, "secret" })
		change(&c)
		if err := c.Check("r"); err == nil || !strings.HasPrefix(err.Error(), key) {
			t.Errorf("want a fault at %s, got: %v", key, err)
		}
	}
}

// Whatever comes in, nothing panics, and nothing is believed that was not signed.
func FuzzBelieve(f *testing.F) {
	r, err := newRequest(radius.CodeAccessRequest, 7, []byte(secretText), func(p *radius.Packet) error { add(p, typeUserName, "alice"); return nil })
	if err != nil {
		f.Fatal(err)
	}
	for _, rep := range []*reply{
		replyTo(r.wire, radius.CodeAccessAccept, avp(typeFilterID, "staff"), avp(typeClass, "x"), avp(typeVendorSpecific, "\x00\x00\x00\x09\x01\x07staff")),
		replyTo(r.wire, radius.CodeAccessReject), {code: radius.CodeAccessAccept, id: 7, auth: r.auth},
	} {
		f.Add(rep.bytes(f))
	}
	f.Add([]byte{2, 7, 0, 20})
	groups := make([]attribute, 0, 4)
	for _, name := range []string{"Filter-Id", "Class", "Tunnel-Private-Group-Id", "26.9.1"} {
		a, err := parseAttribute(name)
		if err != nil {
			f.Fatal(err)
		}
		groups = append(groups, a)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := parse(b); err == nil {
			for _, g := range groups {
				g.values(p.Attributes)
			}
			p.number(typeSessionTimeout)
			state := packState(p.Attributes)
			if len(state) > maxState {
				t.Fatalf("%d bytes of state", len(state))
			}
			classes := unpackState(state)
			var again radius.Attributes
			for _, c := range classes {
				again.Add(typeClass, c)
			}
			if !bytes.Equal(packState(again), state) {
				t.Fatalf("state % x comes back as % x", state, packState(again))
			}
		}
		unpackState(b)
		p, err := r.believe(b)
		if err != nil {
			return
		}
		// What is believed was made with the secret: alter any bit of it, and it is not any more.
		for _, at := range []int{0, 1, authAt, headerLen + 2, len(p.wire) - 1} {
			c := bytes.Clone(p.wire)
			c[at] ^= 1
			if _, err := r.believe(c); err == nil {
				t.Fatalf("byte %d altered, and believed: % x", at, c)
			}
		}
	})
}
