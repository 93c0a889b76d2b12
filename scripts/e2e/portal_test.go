//go:build linux

package e2e

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"twinkey/pkg/netlab"
	"twinkey/scripts/lab"
)

// Where the portal of ra is: the router's own address among those of the users.
var portalAddr = lab.SiteA.Users.Addr().Next()

// withPortal makes a company whose router ra has a portal, and waits for the portal's certificate.
func withPortal(t *testing.T) (c *lab.Company, root *x509.Certificate) {
	t.Helper()
	c = network(t)
	ctx := t.Context()
	// The page has a certificate's end to warn of from the login on.
	check(t, c.UpWith(ctx, lab.SiteA, lab.SiteB, fmt.Sprintf("renewal: {warn-users: 8760h}\nportal: {listen: \"%s:443\", http: \"%s:80\", name: ra, company: \"Example & Sons\", captive: true}\n", portalAddr, portalAddr), ""))
	return c, portalUp(t, c)
}

// portalUp waits for the certificate of ra's portal, and returns the company's root.
func portalUp(t *testing.T, c *lab.Company) (root *x509.Certificate) {
	t.Helper()
	check(t, lab.Until(t.Context(), "the portal's certificate", 30*time.Second, func(ctx context.Context) error {
		p, err := portalOf(ctx, c)
		if err == nil && p.Certificate.SHA256 == "" {
			err = errors.New(p.Problem)
		}
		return err
	}, c.Routers[lab.SiteA.Name], c.CA))
	b, err := os.ReadFile(rootFile(c))
	check(t, err)
	block, _ := pem.Decode(b)
	root, err = x509.ParseCertificate(block.Bytes)
	check(t, err)
	return root
}

func rootFile(c *lab.Company) string { return filepath.Join(c.Dir, "ca", "root.crt") }

// portalState is what we read of `twinkey-router portal --json`.
type portalState struct {
	URL         string `json:"url"`
	Problem     string `json:"problem"`
	Root        string `json:"root_sha256"`
	Certificate struct {
		SHA256 string `json:"sha256"`
	} `json:"certificate"`
	Sessions []struct {
		User    string     `json:"user"`
		Address netip.Addr `json:"address"`
	} `json:"sessions"`
}

func portalOf(ctx context.Context, c *lab.Company) (p portalState, err error) {
	out, err := c.Router(ctx, lab.SiteA, "portal", "--json")
	if err == nil {
		err = json.Unmarshal([]byte(out), &p)
	}
	return p, err
}

// A person with a browser: the lock, the fingerprint, a wrong password, the right one, traffic that the page counts, the end, and another password. Once
// as browsers are and once without JavaScript.
func TestPortalInABrowser(t *testing.T) {
	t.Parallel()
	needs(t, "chromium", "chromium")
	needs(t, "certutil", "libnss3-tools")
	c, root := withPortal(t)
	ctx := t.Context()
	alice := netip.MustParseAddr("10.1.1.3")
	password, next := "correct horse", "battery staple"
	check(t, c.AddUser(ctx, "alice", password))
	check(t, c.HostA.AddAddress("eth0", netip.PrefixFrom(alice, lab.SiteA.Users.Bits())))

	p, err := portalOf(ctx, c)
	check(t, err)
	if p.Root != c.Fingerprint() || p.URL != "https://ra/" {
		t.Errorf("portal %+v, the operator has %s", p, c.Fingerprint())
	}
	seen := handshake(t, c, root, "ra")
	if sum := sha256.Sum256(seen.Raw); hex.EncodeToString(sum[:]) != p.Certificate.SHA256 || seen.VerifyHostname(portalAddr.String()) != nil {
		t.Errorf("browsers see %x, the command says %s", sum, p.Certificate.SHA256)
	}
	info, err := os.Stat(filepath.Join(c.Dir, lab.SiteA.Name, "portal.pem"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the portal's key: %v, %v", info, err)
	}
	home := trusting(t, c)
	for name, script := range map[string]bool{"with JavaScript": true, "without JavaScript": false} {
		t.Run(name, func(t *testing.T) { day(t, c, browser(t, c, home, script), alice, password, next) })
		password, next = next, password // as the day has left it
	}
}

// day is what alice does; at its end she has another password.
func day(t *testing.T, c *lab.Company, tab context.Context, alice netip.Addr, password, next string) {
	t.Helper()
	p := person{t, tab}
	logIn := func(uid, password string) {
		t.Helper()
		p.do(chromedp.WaitVisible(chromedp.CSS("#uid")), chromedp.SendKeys(chromedp.CSS("#uid"), uid),
			chromedp.SendKeys(chromedp.CSS("#password"), password), chromedp.Click(chromedp.CSS("#login")))
	}
	p.do(chromedp.Navigate("http://" + portalAddr.String() + "/generate_204"))
	p.reads("#login", "Log in")
	if where := p.see(chromedp.Location()); where != "https://ra/" {
		t.Errorf("a probe led to %s", where)
	}
	p.reads("header", "Example & Sons")
	p.do(chromedp.Click(chromedp.CSS("summary")))
	if prints := p.see(chromedp.Text(chromedp.CSS("#root"))); strings.ReplaceAll(prints, " ", "") != c.Fingerprint() {
		t.Errorf("the page shows %q, the operator has %s", prints, c.Fingerprint())
	}
	mustNotPing(t, c, alice)
	logIn("alice", "wrong horse")
	p.reads("#said", "UserID or password is wrong")
	mustNotPing(t, c, alice)
	logIn("", password) // the form remembers the UserID
	p.reads("#logout", "Log out")
	p.reads("h1", "Connected as alice")
	mustPing(t, c, alice)
	if s, err := portalOf(t.Context(), c); err != nil || len(s.Sessions) != 1 || s.Sessions[0].User != "alice" || s.Sessions[0].Address != alice {
		t.Errorf("the command shows %+v, %v", s, err)
	}
	p.do(chromedp.Navigate("https://ra/"))
	rx, tx := p.counts(".rx"), p.counts(".tx")
	mustPing(t, c, alice)
	p.do(chromedp.Navigate("https://ra/"))
	rx2, tx2 := p.counts(".rx"), p.counts(".tx")
	if rx == 0 || tx == 0 || rx2-rx < 3*36 || tx2-tx < 3*36 { // of IP packets: 20 bytes, and 16 of ICMP at the least
		t.Errorf("after three pings %d and %d bytes became %d and %d", rx, tx, rx2, tx2)
	}
	// The page is made anew by itself.
	p.reads(".warning", "ends with it: the CA has not certified the user anew. Log out and log in again")
	mustPing(t, c, alice)
	check(t, lab.Until(t.Context(), "a page that counts by itself", 20*time.Second, func(context.Context) error {
		if n := p.counts(".tx"); n <= tx2 {
			return fmt.Errorf("it shows %d", n)
		}
		return nil
	}))
	logOut := func() {
		t.Helper()
		p.do(chromedp.Click(chromedp.CSS("#logout")))
		p.reads("#said", "You are logged out")
		mustNotPing(t, c, alice)
		if _, up := status(t, c, lab.SiteA).UserCall("alice"); up {
			t.Error("alice's call is up still")
		}
	}
	before, _ := status(t, c, lab.SiteA).UserCall("alice")
	p.do(chromedp.Navigate("https://ra/password"), chromedp.SendKeys(chromedp.CSS("#password"), password),
		chromedp.SendKeys(chromedp.CSS("#new"), next), chromedp.SendKeys(chromedp.CSS("#again"), next), chromedp.Click(chromedp.CSS("#change")))
	p.reads("#changed", "Your password was changed")
	if after, up := status(t, c, lab.SiteA).UserCall("alice"); !up || after.ID != before.ID {
		t.Errorf("her call was %d, and is %d", before.ID, after.ID)
	}
	mustPing(t, c, alice)
	p.do(chromedp.Click(chromedp.CSS("#back")))
	p.reads("#logout", "Log out")
	p.reads("h1", "Connected as alice")
	logOut()
	p.do(chromedp.Navigate("https://ra/")) // a page on which nothing is said yet
	logIn("alice", password)
	p.reads("#said", "UserID or password is wrong")
	mustNotPing(t, c, alice)
	logIn("", next)
	p.reads("#logout", "Log out")
	mustPing(t, c, alice)
	logOut()
}

// person is whoever sits in front of a tab.
type person struct {
	*testing.T
	tab context.Context
}

// patience is how long a person waits for a page, on a busy machine.
const patience = 40 * time.Second

func (p person) do(steps ...chromedp.Action[chromedp.Void]) {
	p.Helper()
	p.see(func(ctx context.Context, _ *chromedp.Target) (string, error) { return "", chromedp.Do(ctx, steps...) })
}

// see returns what an action reads; where it cannot, the test shows the page.
func (p person) see(a chromedp.Action[string]) string {
	p.Helper()
	ctx, stop := context.WithTimeout(p.tab, patience)
	defer stop()
	got, err := chromedp.Run(ctx, a)
	if err != nil {
		show, stop := context.WithTimeout(p.tab, 5*time.Second)
		defer stop()
		page, _ := chromedp.Run(show, chromedp.OuterHTML(chromedp.CSS("html")))
		p.Fatalf("%v, at\n%s", err, page)
	}
	return got
}

// reads waits until an element is there and demands that it says so.
func (p person) reads(element, want string) {
	p.Helper()
	if got := p.see(chromedp.Text(chromedp.CSS(element))); !strings.Contains(got, want) {
		p.Errorf("%s says %q, not %q", element, got, want)
	}
}

// counts reads a number of the page. The page may be replaced by itself meanwhile, so it tries again.
func (p person) counts(element string) (n int) {
	p.Helper()
	check(p.T, lab.Until(p.Context(), element, patience, func(context.Context) error {
		ctx, stop := context.WithTimeout(p.tab, 3*time.Second)
		defer stop()
		v, err := chromedp.Run(ctx, chromedp.AttributeValue(chromedp.CSS(element), "value"))
		if err == nil {
			n, err = strconv.Atoi(v.Value)
		}
		return err
	}))
	return n
}

// trusting makes a home directory in which Chromium finds the company's root, as a user's machine would have it.
func trusting(t *testing.T, c *lab.Company) string {
	t.Helper()
	home := filepath.Join(c.Dir, "home")
	for _, db := range []string{".pki/nssdb", ".local/share/pki/nssdb"} { // the old place and the new one
		dir := filepath.Join(home, db)
		check(t, os.MkdirAll(dir, 0o700))
		for _, args := range [][]string{{"-N", "--empty-password"}, {"-A", "-t", "C,,", "-n", "Example Corp", "-i", rootFile(c)}} {
			if out, err := exec.Command("certutil", append([]string{"-d", "sql:" + dir}, args...)...).CombinedOutput(); err != nil {
				t.Fatalf("certutil %v: %v\n%s", args, err, out)
			}
		}
	}
	return home
}

// browser is a tab of a headless Chromium on hosta, whose DNS knows the portal.
func browser(t *testing.T, c *lab.Company, home string, script bool) context.Context {
	t.Helper()
	var said strings.Builder
	profile := filepath.Join(c.Dir, "profile-"+strconv.FormatBool(script))
	path, err := exec.LookPath("chromium")
	check(t, err)
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.UserDataDir(profile), chromedp.Env("HOME="+home),
		chromedp.Flag("no-proxy-server", true), chromedp.Flag("disable-gpu", true), chromedp.Flag("host-resolver-rules", "MAP ra "+portalAddr.String()),
		chromedp.CombinedOutput(&said), chromedp.ModifyCmdFunc(func(cmd *exec.Cmd) {
			on := c.HostA.Command(t.Context(), path, cmd.Args[1:]...)
			cmd.Path, cmd.Args, cmd.Err = on.Path, on.Args, on.Err
		}))
	ctx, end := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(end)
	tab, shut := chromedp.NewContext(ctx)
	t.Cleanup(shut)
	const page = `data:text/html,<title>off</title><script>document.title="on"</script>`
	_, err = chromedp.Call(tab, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: !script})
	check(t, err)
	title := ""
	if err = chromedp.Do(tab, chromedp.Navigate(page)); err == nil {
		title, err = chromedp.Run(tab, chromedp.Title())
	}
	if err != nil {
		t.Fatalf("starting Chromium: %v\n%s", err, said.String())
	}
	if (title == "on") != script {
		t.Fatalf("JavaScript is %s", title)
	}
	return tab
}

// handshake returns the certificate that the portal shows on hosta for a name, its chain checked against root alone.
func handshake(t *testing.T, c *lab.Company, root *x509.Certificate, name string) *x509.Certificate {
	t.Helper()
	conn, err := c.HostA.Dial(t.Context(), "tcp", netip.AddrPortFrom(portalAddr, 443))
	check(t, err)
	defer func() { _ = conn.Close() }()
	roots := x509.NewCertPool()
	roots.AddCert(root)
	tc := tls.Client(conn, &tls.Config{RootCAs: roots, ServerName: name})
	check(t, tc.HandshakeContext(t.Context()))
	return tc.ConnectionState().PeerCertificates[0]
}

// client is an HTTP client at an address of hosta that believes root alone.
func client(t *testing.T, c *lab.Company, root *x509.Certificate, from netip.Addr) *http.Client {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(root)
	jar, err := cookiejar.New(nil)
	check(t, err)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, MaxConnsPerHost: 2,
		DialContext: func(ctx context.Context, _, _ string) (conn net.Conn, err error) {
			err = c.HostA.Do(func() (err error) {
				d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
				conn, err = d.DialContext(ctx, "tcp4", netip.AddrPortFrom(portalAddr, 443).String())
				return err
			})
			return conn, err
		}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Jar: jar, Timeout: 50 * time.Second, Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

var csrfPattern = regexp.MustCompile(`name="csrf" value="([^"]+)"`)

// logIn does what a browser does with the form; the answer's status and text.
func logIn(ctx context.Context, hc *http.Client, uid, password string) (int, string, error) {
	const base = "https://ra"
	res, err := hc.Get(base + "/login")
	if err != nil {
		return 0, "", err
	}
	page, err := io.ReadAll(res.Body)
	_ = res.Body.Close()
	token := csrfPattern.FindStringSubmatch(string(page))
	if err != nil || token == nil {
		return 0, "", errors.Join(err, fmt.Errorf("no form: %s", res.Status))
	}
	form := url.Values{"csrf": {token[1]}, "uid": {uid}, "password": {password}, "peer": {lab.SiteB.Name}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/login", strings.NewReader(form.Encode()))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Origin", base)
	if res, err = hc.Do(req); err != nil {
		return 0, "", err
	}
	page, err = io.ReadAll(res.Body)
	_ = res.Body.Close()
	return res.StatusCode, string(page), err
}

// What is refused: by the directory, the policy, the address; and a directory that is away is told from a wrong password.
func TestPortalSaysWhatIsTheMatter(t *testing.T) {
	t.Parallel()
	c, root := withPortal(t)
	ctx := t.Context()
	alice, bob := netip.MustParseAddr("10.1.1.3"), netip.MustParseAddr("10.1.1.4")
	for uid, a := range map[string]netip.Addr{"alice": alice, "bob": bob} {
		check(t, c.AddUser(ctx, uid, "correct horse"))
		check(t, c.HostA.AddAddress("eth0", netip.PrefixFrom(a, lab.SiteA.Users.Bits())))
	}
	captive := func(from netip.Addr, want bool) {
		t.Helper()
		res, err := client(t, c, root, from).Get("https://ra/captive")
		check(t, err)
		defer func() { _ = res.Body.Close() }()
		var got struct {
			Captive bool   `json:"captive"`
			URL     string `json:"user-portal-url"`
		}
		check(t, json.NewDecoder(res.Body).Decode(&got))
		if got.Captive != want || got.URL != "https://ra/" {
			t.Errorf("from %s: %+v", from, got)
		}
	}
	try := func(hc *http.Client, uid, password string, status int, want string) {
		t.Helper()
		code, page, err := logIn(ctx, hc, uid, password)
		if err != nil || code != status || !strings.Contains(page, want) {
			t.Errorf("%s: %d, %v, want %d and %q\n%s", uid, code, err, status, want, page)
		}
	}
	captive(alice, true)
	captive(lab.SiteA.Host, false)
	try(client(t, c, root, alice), "nobody", "correct horse", http.StatusForbidden, "UserID or password is wrong")
	try(client(t, c, root, alice), "alice", "correct horse", http.StatusSeeOther, "")
	captive(alice, false)
	captive(bob, true)
	mustPing(t, c, alice)
	try(client(t, c, root, alice), "bob", "correct horse", http.StatusConflict, "Somebody else is logged in from your device")
	try(client(t, c, root, bob), "alice", "correct horse", http.StatusConflict, "from another device")
	try(client(t, c, root, lab.SiteA.Host), "bob", "correct horse", http.StatusForbidden, "From your device&#39;s address nobody can log in")
	// Alice's cookie is lost: another browser of hers has the session back, sees it, and it ends with the call.
	again := client(t, c, root, alice)
	try(again, "alice", "correct horse", http.StatusSeeOther, "")
	page := func() string {
		t.Helper()
		res, err := again.Get("https://ra/")
		check(t, err)
		defer func() { _ = res.Body.Close() }()
		b, err := io.ReadAll(res.Body)
		check(t, err)
		return string(b)
	}
	if got := page(); !strings.Contains(got, "Connected as alice") {
		t.Errorf("her session is not there:\n%s", got)
	}
	_, err := c.CACommand(ctx, "user", "revoke", "alice")
	check(t, err)
	check(t, lab.Until(ctx, "the end of the session", 10*time.Second, func(context.Context) error {
		if got := page(); strings.Contains(got, "Connected as alice") {
			return errors.New("it is there")
		}
		return nil
	}))
	mustNotPing(t, c, alice)
	// Somebody guesses bob's password, not at the portal: for a while he himself does not get in, and reads until when.
	check(t, os.WriteFile(filepath.Join(c.Dir, "guess.password"), []byte("guess"), 0o600))
	for range 10 {
		if _, err := c.Router(ctx, lab.SiteA, "login", "bob", "--address", bob.String(), "--peer", lab.SiteB.Name, "--password-file", filepath.Join(c.Dir, "guess.password")); err == nil {
			t.Fatal("a guess was right")
		}
	}
	try(client(t, c, root, bob), "bob", "correct horse", http.StatusTooManyRequests, "Locked after too many wrong tries")
	check(t, c.Directory.Stop())
	try(client(t, c, root, bob), "bob", "correct horse", http.StatusServiceUnavailable, "directory cannot be reached")
	log, err := os.ReadFile(c.Routers[lab.SiteA.Name].Log)
	check(t, err)
	if strings.Contains(string(log), "correct horse") {
		t.Error("a password is in the router's log")
	}
}

type reader func([]byte) (int, error)

func (r reader) Read(b []byte) (int, error) { return r(b) }

// Forty machines try passwords as fast as the portal lets them. What goes over the site link meanwhile arrives as it was sent and not slower
// than half as fast, though routers, hosts and the forty share this machine's cores.
func TestPortalFloodedWithLogins(t *testing.T) {
	c, root := withPortal(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	check(t, c.AddUser(ctx, "alice", "correct horse"))
	rate := func() float64 {
		t.Helper()
		best := 0.0
		for seed := range uint64(2) {
			source, end := &pattern{seed: seed}, time.Now().Add(1500*time.Millisecond)
			tr, err := netlab.Transfer(t.Context(), c.HostA, c.HostB, lab.SiteB.Host, reader(func(b []byte) (int, error) {
				if time.Now().After(end) {
					return 0, io.EOF
				}
				return source.Read(b)
			}))
			check(t, err)
			if !tr.Intact() || tr.Bytes == 0 {
				t.Errorf("%d bytes arrived, intact: %v", tr.Bytes, tr.Intact())
			}
			best = max(best, tr.Rate())
		}
		return best
	}
	quiet := rate()
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		codes = map[int]int{}
	)
	for i := range 40 {
		from := netip.AddrFrom4([4]byte{10, 1, 1, byte(100 + i)})
		check(t, c.HostA.AddAddress("eth0", netip.PrefixFrom(from, lab.SiteA.Users.Bits())))
		hc := client(t, c, root, from)
		wg.Go(func() {
			for ctx.Err() == nil {
				code, _, _ := logIn(ctx, hc, fmt.Sprintf("user%d", i), "wrong") // of connections that are refused the code is 0
				mu.Lock()
				codes[code]++
				mu.Unlock()
				if code != http.StatusForbidden {
					time.Sleep(100 * time.Millisecond)
				}
			}
		})
	}
	time.Sleep(time.Second)
	flooded := rate()
	// A refusal takes its fixed time, whatever it is for.
	check(t, lab.Until(t.Context(), "a password that was looked at", 30*time.Second, func(context.Context) error {
		mu.Lock()
		defer mu.Unlock()
		if codes[http.StatusForbidden] == 0 {
			return fmt.Errorf("answers so far: %v", codes)
		}
		return nil
	}))
	stop()
	wg.Wait()
	delete(codes, 0)
	quiet = min(quiet, rate()) // other tests come and go
	t.Logf("%.0f Mbit/s, with the flood %.0f; answers %v", quiet/1e6, flooded/1e6, codes)
	if codes[http.StatusServiceUnavailable] < 5 || codes[http.StatusTooManyRequests] < 5 {
		t.Errorf("that was no flood: %v", codes)
	}
	if flooded < quiet/2 {
		t.Errorf("%.0f Mbit/s became %.0f", quiet/1e6, flooded/1e6)
	}
	if call := siteCall(t, c, lab.SiteA); call.State != "up" {
		t.Errorf("%+v", call)
	}
}
