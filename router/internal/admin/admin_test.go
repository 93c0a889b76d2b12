package admin_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"twinkey/router/internal/admin"
)

// desk answers as a router would and keeps what it was asked. Of passwords it has copies, and lent are the originals.
type desk struct {
	login  admin.Login
	hangup admin.Hangup
	passwd admin.Passwd
	lent   [][]byte
	loads  int
	err    error
}

func (d *desk) Status(context.Context) (admin.Status, error) {
	return admin.Status{Name: "ra", Since: time.Unix(1000, 0).UTC(), Drops: map[string]uint64{"no_call": 3}, Calls: []admin.Call{{ID: 7, Local: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24")}}}}, d.err
}

func (d *desk) Portal(context.Context) (admin.Portal, error) {
	return admin.Portal{URL: "https://10.1.1.1/", Names: []string{"10.1.1.1"}, Sessions: []admin.PortalSession{{User: "alice", Address: netip.MustParseAddr("10.1.1.3")}}}, d.err
}

func (d *desk) Login(_ context.Context, l admin.Login) (admin.Call, error) {
	d.login, d.lent = l, append(d.lent, l.Password)
	d.login.Password = bytes.Clone(l.Password)
	return admin.Call{ID: 8, User: l.User}, d.err
}

func (d *desk) Hangup(_ context.Context, h admin.Hangup) (admin.Ended, error) {
	d.hangup = h
	return admin.Ended{Calls: []uint64{h.ID}}, d.err
}

func (d *desk) Passwd(_ context.Context, p admin.Passwd) error {
	d.passwd, d.lent = p, append(d.lent, p.Password, p.New)
	d.passwd.Password, d.passwd.New = bytes.Clone(p.Password), bytes.Clone(p.New)
	return d.err
}

func (d *desk) Reload(context.Context) error {
	d.loads++
	return d.err
}

// serve runs a desk at a socket until the test ends.
func serve(t *testing.T, d *desk) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "control.sock")
	l, err := admin.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- admin.Serve(ctx, l, d) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket is left behind: %v", err)
		}
	})
	return path
}

func TestClientAndServer(t *testing.T) {
	d := &desk{}
	c := admin.NewClient(serve(t, d))
	want, _ := d.Status(t.Context())
	if got, err := c.Status(t.Context()); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("status %+v, %v", got, err)
	}
	page, _ := d.Portal(t.Context())
	if got, err := c.Portal(t.Context()); err != nil || !reflect.DeepEqual(got, page) {
		t.Errorf("portal %+v, %v", got, err)
	}
	passwd := admin.Passwd{User: "alice", Password: []byte("p\"w"), New: []byte("é\x00")}
	if err := c.Passwd(t.Context(), passwd); err != nil || !reflect.DeepEqual(d.passwd, passwd) {
		t.Errorf("passwd: %v; asked %+v", err, d.passwd)
	}
	login := admin.Login{User: "alice", Password: []byte("p\"w\x00é"), Address: netip.MustParseAddr("10.1.1.3"), Peer: "rb"}
	if call, err := c.Login(t.Context(), login); err != nil || call.User != "alice" || !reflect.DeepEqual(d.login, login) {
		t.Errorf("login %+v, %v; asked %+v", call, err, d.login)
	}
	if e, err := c.Hangup(t.Context(), admin.Hangup{ID: 7}); err != nil || len(e.Calls) != 1 || e.Calls[0] != 7 {
		t.Errorf("hangup %+v, %v", e, err)
	}
	if err := c.Reload(t.Context()); err != nil || d.loads != 1 {
		t.Errorf("reload %v, %d", err, d.loads)
	}
}

// The server wipes what it has decoded of passwords, whatever became of the request, and both ends what they were encoded in.
func TestPasswordsAreWiped(t *testing.T) {
	for _, failed := range []error{nil, &admin.Error{What: "refused"}} {
		d := &desk{err: failed}
		path := serve(t, d)
		c := admin.NewClient(path)
		long := strings.Repeat("a long password ", 60)
		_, err1 := c.Login(t.Context(), admin.Login{User: "alice", Password: []byte("secret of alice"), Address: netip.MustParseAddr("10.1.1.3"), Peer: "rb"})
		err2 := c.Passwd(t.Context(), admin.Passwd{User: "alice", Password: []byte(long), New: []byte("another secret")})
		if (err1 == nil) != (failed == nil) || (err2 == nil) != (failed == nil) || len(d.lent) != 3 || string(d.passwd.Password) != long {
			t.Fatalf("%v, %v: asked %+v", err1, err2, d)
		}
		for i, b := range d.lent {
			if len(b) == 0 || !bytes.Equal(b, make([]byte, len(b))) {
				t.Errorf("password %d is still there: %q", i, b)
			}
		}
	}
}

// A request whose body says nothing of its length is read as well, up to the bound.
func TestBodiesOfUnknownLength(t *testing.T) {
	d := &desk{}
	path := serve(t, d)
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var nd net.Dialer
		return nd.DialContext(ctx, "unix", path)
	}}}
	for body, status := range map[string]int{
		`{"user":"alice","password":"c2VjcmV0"}`:                            200,
		`{"user":"alice","password":"` + strings.Repeat("A", 64<<10) + `"}`: 400,
		`{"user":"alice","password":"not base64!"}`:                         400,
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://router/login", io.MultiReader(strings.NewReader(body)))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != status {
			t.Errorf("%.40s: %s, want %d", body, resp.Status, status)
		}
	}
	if string(d.login.Password) != "secret" {
		t.Errorf("asked %+v", d.login)
	}
}

func TestErrorsKeepTheirHints(t *testing.T) {
	d := &desk{err: &admin.Error{What: "no such call", Hint: "calls lists them", Kind: admin.KindNotFound}}
	c := admin.NewClient(serve(t, d))
	_, err := c.Hangup(t.Context(), admin.Hangup{ID: 1})
	if e, ok := errors.AsType[*admin.Error](err); !ok || e.What != "no such call" || e.Hint != "calls lists them" || e.Kind != admin.KindNotFound {
		t.Errorf("err = %#v", err)
	}
	d.err = errors.New("something else")
	if err := c.Reload(t.Context()); err == nil || err.Error() != "something else" {
		t.Errorf("err = %v", err)
	}
}

func TestNobodyAnswers(t *testing.T) {
	dir := t.TempDir()
	none := filepath.Join(dir, "none.sock")
	stale := staleSocket(t, filepath.Join(dir, "stale.sock"))
	for _, path := range []string{none, stale} {
		_, err := admin.NewClient(path).Status(t.Context())
		if e, ok := errors.AsType[*admin.Error](err); !ok || !errors.Is(err, admin.ErrNotRunning) || e.Hint == "" || !strings.Contains(e.What, path) {
			t.Errorf("err = %#v", err)
		}
	}
}

// staleSocket is what a router that was killed leaves behind.
func staleSocket(t *testing.T, path string) string {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestListen(t *testing.T) {
	old := syscall.Umask(0) // the worst that a start script may do
	defer syscall.Umask(old)
	path := staleSocket(t, filepath.Join(t.TempDir(), "control.sock"))
	l, err := admin.Listen(path)
	if err != nil {
		t.Fatalf("over a stale socket: %v", err)
	}
	defer l.Close()
	if st, err := os.Stat(path); err != nil || st.Mode() != os.ModeSocket|0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	if _, err := admin.Listen(path); !errors.Is(err, admin.ErrInUse) {
		t.Errorf("a second router: %v", err)
	}
	if c, err := net.Dial("unix", path); err != nil {
		t.Errorf("the first no longer answers: %v", err)
	} else {
		_ = c.Close()
	}
	file := filepath.Join(t.TempDir(), "control.sock")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.Listen(file); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("over a file: %v", err)
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "precious" {
		t.Errorf("the file is gone: %v", err)
	}
	if _, err := admin.Listen(filepath.Join(t.TempDir(), "none", "control.sock")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("in no directory: %v", err)
	}
}

func TestBadRequests(t *testing.T) {
	d := &desk{}
	path := serve(t, d)
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}}
	for _, tt := range []struct {
		name, method, path, body string
		status                   int
	}{
		{"too large", "POST", "/login", `{"user":"` + strings.Repeat("x", 65<<10) + `"}`, 400},
		{"unknown field", "POST", "/hangup", `{"idd":7}`, 400},
		{"not JSON", "POST", "/hangup", `seven`, 400},
		{"wrong type", "POST", "/hangup", `{"id":"seven"}`, 400},
		{"negative", "POST", "/hangup", `{"id":-7}`, 400},
		{"bad address", "POST", "/login", `{"address":"10.1.1"}`, 400},
		{"method", "GET", "/hangup", "", 405},
		{"nothing there", "GET", "/", "", 404},
	} {
		req, err := http.NewRequestWithContext(t.Context(), tt.method, "http://router"+tt.path, strings.NewReader(tt.body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != tt.status {
			t.Errorf("%s: %s, want %d", tt.name, resp.Status, tt.status)
		}
	}
	if d.login.User != "" || d.login.Password != nil || d.hangup != (admin.Hangup{}) {
		t.Errorf("a bad request reached the router: %+v %+v", d.login, d.hangup)
	}
}
