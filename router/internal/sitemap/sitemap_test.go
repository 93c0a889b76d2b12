package sitemap_test

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"twinkey/directory/client"
	"twinkey/pkg/twincert"
	"twinkey/router/internal/native"
	"twinkey/router/internal/sitemap"
	"twinkey/router/internal/trust"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func prefixes(ss ...string) (ps []netip.Prefix) {
	for _, s := range ss {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

// authority is a CA.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority() authority {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	return authority{must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)))), key}
}

func (a authority) twin(tmpl twincert.Template) *twincert.Certificate {
	for _, k := range []*[32]byte{&tmpl.Keys.Control, &tmpl.Keys.Data} {
		*k = [32]byte(must(ecdh.X25519().GenerateKey(rand.Reader)).PublicKey().Bytes())
	}
	tmpl.Profile, tmpl.Serial = twincert.Paper, must(rand.Int(rand.Reader, big.NewInt(1<<60)))
	tmpl.NotBefore, tmpl.NotAfter = time.Now().Add(-time.Minute), time.Now().Add(50*time.Minute)
	return must(twincert.Parse(must(twincert.Create(rand.Reader, &tmpl, a.cert, a.key))))
}

// site is what an honest directory says of a router that announces all that it may.
func (a authority) site(name string, n int) client.Site {
	ps := prefixes(fmt.Sprintf("10.%d.0.0/16", n))
	c := a.twin(twincert.Template{Role: twincert.Router, Name: name, Prefixes: ps})
	return client.Site{Name: name, Endpoint: fmt.Sprintf("198.51.100.%d:1701", n), Prefixes: ps, Certificate: c.Raw, ID: c.ID()}
}

// directory is one that says what it is told to.
type directory struct {
	mu        sync.Mutex
	down      bool
	sites     []client.Site
	revoked   []client.Revocation
	announced []client.AnnounceBody
	crl       []byte            // DER; nil: there is none yet
	events    chan client.Event // to whoever watches; closed: the stream ends
}

func (d *directory) set(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

func (d *directory) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.down:
		http.Error(w, "down", http.StatusBadGateway)
	case r.URL.Path == client.PathSite:
		var in client.AnnounceBody
		_ = json.NewDecoder(r.Body).Decode(&in)
		d.announced = append(d.announced, in)
		w.WriteHeader(http.StatusNoContent)
	case r.URL.Path == client.PathRevocations:
		_ = json.NewEncoder(w).Encode(d.revoked)
	case r.URL.Path == client.PathSites:
		_ = json.NewEncoder(w).Encode(client.SitesBody{Revision: 1, Sites: d.sites})
	case r.URL.Path == client.PathWatch:
		events := d.events
		d.mu.Unlock()
		defer d.mu.Lock()
		watch(w, r, events)
	case r.URL.Path == client.PathCRL && d.crl != nil:
		_, _ = w.Write(d.crl)
	default: // there is no CRL yet
		w.WriteHeader(http.StatusNotFound)
		var b client.ErrorBody
		b.Error.Code = client.CodeNotFound
		_ = json.NewEncoder(w).Encode(b)
	}
}

func watch(w http.ResponseWriter, r *http.Request, events <-chan client.Event) {
	out := json.NewEncoder(w)
	send := func(e client.Event) {
		_ = out.Encode(e)
		w.(http.Flusher).Flush() //nolint:errcheck // httptest's is one
	}
	send(client.Event{Kind: client.KindSync})
	for {
		select {
		case e, ok := <-events:
			if !ok {
				return
			}
			send(e)
		case <-r.Context().Done():
			return
		}
	}
}

// world is a follower, ra's, and what it told the engine, in order: "peers rb rc",
// "refused rb 10.0.0.0/8", "overtake SERIAL", "revoked SERIAL".
type world struct {
	*testing.T
	authority
	dir   *directory
	trust *trust.Store
	f     *sitemap.Follower

	mu      sync.Mutex
	heard   []string
	peers   []native.Peer
	refused []native.Refusal
	sites   []client.Site
	crl     []byte
	users   []string // whose certificates were told of; "" is anybody's
}

func (w *world) takeSites(sites []client.Site) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sites = sites
}

func (w *world) takeCRL(der []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.crl = der
}

func follow(t *testing.T, a authority, d *directory) *world {
	t.Helper()
	return followFrom(t, a, d, nil)
}

// followFrom has a CA that may be asked for its CRL.
func followFrom(t *testing.T, a authority, d *directory, ca func(context.Context) ([]byte, error)) *world {
	t.Helper()
	w := &world{T: t, authority: a, dir: d, trust: trust.New(time.Hour)}
	w.trust.SetAnchors([]*x509.Certificate{a.cert}, nil)
	d.events = make(chan client.Event)
	s := httptest.NewServer(d)
	dir := client.New(s.URL, nil)
	announce := func() (string, []netip.Prefix) { return "198.51.100.1:1701", prefixes("10.1.0.0/24") }
	sink := sitemap.Sink{Peers: w.takePeers, Revoked: w.takeRevoked, Cut: w.takeRevoked, Sites: w.takeSites, CRL: w.takeCRL, Certified: w.takeCertified, Overtake: w.takeOvertake}
	w.f = sitemap.New(dir, "ra", w.trust, announce, sink, slog.New(slog.DiscardHandler))
	w.f.FromCA = ca
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { w.f.Run(ctx); close(done) }()
	t.Cleanup(func() { stop(); <-done; dir.CloseIdle(); s.Close() })
	return w
}

func (w *world) takePeers(_ context.Context, peers []native.Peer, refused []native.Refusal) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.peers, w.refused = peers, refused
	line := "peers"
	for _, p := range peers {
		line += " " + p.Name
	}
	w.heard = append(w.heard, line)
	return nil
}

func (w *world) takeCertified(uid string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.users = append(w.users, uid)
}

func (w *world) takeOvertake(_ context.Context, revoked []twincert.ID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range revoked {
		if !w.trust.Revoked(id) {
			w.Errorf("certificate %s is still believed", id.Serial)
		}
		w.heard = append(w.heard, "overtake "+id.Serial)
	}
}

func (w *world) takeRevoked(_ context.Context, ids ...twincert.ID) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.trust.Revoke(ids...)
	for _, id := range ids {
		w.heard = append(w.heard, "revoked "+id.Serial)
	}
	return nil
}

// until waits until the last that was heard is want.
func (w *world) until(want string) {
	w.Helper()
	last := ""
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		w.mu.Lock()
		if n := len(w.heard); n > 0 {
			last = w.heard[n-1]
		}
		w.mu.Unlock()
		if last == want {
			return
		}
	}
	w.Fatalf("heard last %q, want %q", last, want)
}

// What the directory says of a site is taken only as far as the site's own certificate bears it out.
func TestWhatIsBelievedOfASite(t *testing.T) {
	a := newAuthority()
	for name, tt := range map[string]struct {
		change    func(s *client.Site, w *directory)
		peers     string // in the picture
		announced string // by rb
		dialled   bool
		refused   string // what, and why
	}{
		"all of it":            {nil, "peers rb", "[10.2.0.0/16]", true, ""},
		"part of what it may":  {func(s *client.Site, _ *directory) { s.Prefixes = prefixes("10.2.3.0/24") }, "peers rb", "[10.2.3.0/24]", true, ""},
		"ourselves":            {func(s *client.Site, _ *directory) { *s = a.site("ra", 2) }, "peers", "", false, ""},
		"nobody can dial it":   {func(s *client.Site, _ *directory) { s.Endpoint = "" }, "peers rb", "[10.2.0.0/16]", false, ""},
		"an endpoint in words": {func(s *client.Site, _ *directory) { s.Endpoint = "rb.example:1701" }, "peers rb", "[10.2.0.0/16]", false, "rb.example:1701 no address and port"},
		"a prefix more": {func(s *client.Site, _ *directory) { s.Prefixes = prefixes("10.2.0.0/16", "10.3.0.0/16") }, "peers rb", "[10.2.0.0/16]", true,
			"10.3.0.0/16 no certificate covers it"},
		"a wider prefix":             {func(s *client.Site, _ *directory) { s.Prefixes = prefixes("10.0.0.0/8") }, "peers rb", "[]", true, "10.0.0.0/8 no certificate covers it"},
		"everything":                 {func(s *client.Site, _ *directory) { s.Prefixes = prefixes("0.0.0.0/0") }, "peers rb", "[]", true, "0.0.0.0/0 no certificate covers it"},
		"under another's name":       {func(s *client.Site, _ *directory) { s.Name = "rc" }, "peers", "", false, "site its certificate names rb"},
		"another CA's certificate":   {func(s *client.Site, _ *directory) { *s = newAuthority().site("rb", 2) }, "peers", "", false, "site verifying"},
		"a certificate that is none": {func(s *client.Site, _ *directory) { s.Certificate = []byte("rb") }, "peers", "", false, "site "},
		"a user's certificate": {func(s *client.Site, _ *directory) {
			s.Certificate = a.twin(twincert.Template{Role: twincert.User, Name: "rb", Group: "g"}).Raw
		}, "peers", "", false, "site verifying"},
		"a certificate that is revoked": {func(s *client.Site, d *directory) { d.revoked = []client.Revocation{{ID: s.ID, Name: "rb"}} }, "peers", "", false, "site verifying"},
	} {
		t.Run(name, func(t *testing.T) {
			s, d := a.site("rb", 2), &directory{}
			if tt.change != nil {
				tt.change(&s, d)
			}
			d.sites = []client.Site{s}
			w := follow(t, a, d)
			w.until(tt.peers)
			w.mu.Lock()
			defer w.mu.Unlock()
			if len(w.peers) == 1 {
				p := w.peers[0]
				if fmt.Sprint(p.Announced) != tt.announced || p.Endpoint.IsValid() != tt.dialled || !slices.Equal(p.Certified, prefixes("10.2.0.0/16")) {
					t.Errorf("peer %+v", p)
				}
			}
			said := ""
			if len(w.refused) == 1 {
				said = w.refused[0].What + " " + w.refused[0].Reason
			}
			if len(w.refused) > 1 || !strings.HasPrefix(said, tt.refused) || (said == "") != (tt.refused == "") {
				t.Errorf("refused %+v, want %q", w.refused, tt.refused)
			}
		})
	}
}

// Changes reach the engine as they come; a revocation before the site goes from the map.
func TestChanges(t *testing.T) {
	a := newAuthority()
	rb, rc := a.site("rb", 2), a.site("rc", 3)
	renewed := a.site("rb", 2)
	site := func(s client.Site) client.Event { return client.Event{Kind: client.KindSite, Site: &s} }
	revoked := func(s client.Site) client.Event {
		return client.Event{Kind: client.KindRevoked, Revoked: &client.Revocation{ID: s.ID, Name: s.Name}}
	}
	for name, tt := range map[string]struct {
		events []client.Event
		want   []string // heard after the first picture
	}{
		"a new site":                   {[]client.Event{site(rc)}, []string{"peers rb rc"}},
		"a revocation":                 {[]client.Event{revoked(rb)}, []string{"overtake " + rb.ID.Serial, "revoked " + rb.ID.Serial, "peers"}},
		"a renewal":                    {[]client.Event{site(renewed)}, []string{"peers rb"}},
		"the old one revoked after it": {[]client.Event{site(renewed), revoked(rb)}, []string{"peers rb", "overtake " + rb.ID.Serial, "revoked " + rb.ID.Serial}},
		"events without content":       {[]client.Event{{Kind: client.KindSite}, {Kind: client.KindRevoked}, {Kind: "news"}, {Kind: client.KindHeartbeat}, site(rc)}, []string{"peers rb rc"}},
		"too much was missed":          {[]client.Event{site(rc), {Kind: client.KindSync, Reset: true}}, []string{"peers rb rc", "peers rb"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := follow(t, a, &directory{sites: []client.Site{rb}})
			w.until("peers rb")
			w.mu.Lock()
			n := len(w.heard)
			w.mu.Unlock()
			for _, e := range tt.events {
				w.dir.events <- e
			}
			w.until(tt.want[len(tt.want)-1])
			for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
				w.mu.Lock()
				got := slices.Clone(w.heard[n:])
				w.mu.Unlock()
				if slices.Equal(got, tt.want) {
					return
				}
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			t.Errorf("heard %q, want %q", w.heard[n:], tt.want)
		})
	}
}

// A directory that is lost takes nothing out of the picture. It is asked again, and what it says then counts.
func TestDirectoryLostAndFound(t *testing.T) {
	a := newAuthority()
	w := follow(t, a, &directory{sites: []client.Site{a.site("rb", 2)}})
	w.until("peers rb")
	if err := w.f.Problem(); err != nil {
		t.Errorf("a problem while all is well: %v", err)
	}
	w.dir.set(func() {
		w.dir.down = true
		close(w.dir.events)
	})
	for end := time.Now().Add(10 * time.Second); w.f.Problem() == nil; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("nobody noticed")
		}
	}
	w.until("peers rb") // still
	w.dir.set(func() {
		w.dir.down, w.dir.events = false, make(chan client.Event)
		w.dir.sites = []client.Site{a.site("rb", 2), a.site("rc", 3)}
	})
	w.until("peers rb rc")
	for end := time.Now().Add(10 * time.Second); w.f.Problem() != nil; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still a problem: %v", w.f.Problem())
		}
	}
}

// A changed configuration is announced at once, not when the stream ends.
// Whoever verifies for themselves is told what the directory said of all others, and each CRL that was believed.
func TestWhatOthersAreTold(t *testing.T) {
	a := newAuthority()
	crl := func(by authority) []byte {
		return must(x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(7), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour)}, by.cert, by.key))
	}
	forged := a.site("rc", 3)
	forged.Certificate = newAuthority().site("rc", 3).Certificate
	d := &directory{sites: []client.Site{a.site("ra", 1), a.site("rb", 2), forged}, crl: crl(a)}
	w := follow(t, a, d)
	w.until("peers rb")
	w.mu.Lock()
	if len(w.sites) != 2 || w.sites[0].Name != "rb" || w.sites[1].Name != "rc" || !bytes.Equal(w.crl, d.crl) {
		t.Errorf("told %d sites, a CRL of %d bytes", len(w.sites), len(w.crl))
	}
	before := w.crl
	w.mu.Unlock()
	d.set(func() { d.crl = crl(newAuthority()) })
	d.events <- client.Event{Kind: client.KindCRL}
	d.events <- client.Event{Kind: client.KindRevoked, Revoked: &client.Revocation{ID: twincert.ID{Issuer: "00", Serial: "9"}}}
	w.until("revoked 9")
	w.mu.Lock()
	defer w.mu.Unlock()
	if !bytes.Equal(w.crl, before) {
		t.Error("a CRL that was not believed was passed on")
	}
}

func TestAgain(t *testing.T) {
	a := newAuthority()
	w := follow(t, a, &directory{sites: []client.Site{a.site("rb", 2)}})
	w.until("peers rb")
	w.dir.set(func() { w.dir.sites = append(w.dir.sites, a.site("rc", 3)) })
	w.f.Again()
	w.until("peers rb rc")
	w.dir.set(func() {
		if len(w.dir.announced) < 2 || w.dir.announced[1].Endpoint != "198.51.100.1:1701" || !slices.Equal(w.dir.announced[1].Prefixes, prefixes("10.1.0.0/24")) {
			t.Errorf("announced %+v", w.dir.announced)
		}
	})
}

// That a user has another certificate is passed on; so is that the news of some may have been missed.
func TestUsersCertificates(t *testing.T) {
	a := newAuthority()
	d := &directory{}
	w := follow(t, a, d)
	notice := func(role twincert.Role, name string) client.Event {
		return client.Event{Kind: client.KindCertificate, Certificate: &client.Notice{ID: twincert.ID{Issuer: "30", Serial: "1"}, Role: role, Name: name}}
	}
	d.events <- notice(twincert.User, "alice")
	d.events <- notice(twincert.Router, "rb")
	d.events <- client.Event{Kind: client.KindCertificate} // of a directory that is out of its mind
	d.events <- client.Event{Kind: client.KindSync, Reset: true}
	d.events <- notice(twincert.User, "bob")
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		w.mu.Lock()
		got := slices.Clone(w.users)
		w.mu.Unlock()
		if slices.Equal(got, []string{"", "alice", "", "bob"}) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("heard of %q", got)
		}
	}
}

// What was revoked while the directory was away is believed no more at once, and calls end after users had a chance to go over to newer
// certificates.
func TestUsersMayOvertakeARevocation(t *testing.T) {
	a := newAuthority()
	w := follow(t, a, &directory{revoked: []client.Revocation{{ID: twincert.ID{Issuer: "30", Serial: "7"}, Name: "alice", Role: twincert.User}}})
	w.until("peers")
	w.mu.Lock()
	defer w.mu.Unlock()
	if want := []string{"overtake 7", "revoked 7", "peers"}; !slices.Equal(w.heard, want) {
		t.Errorf("heard %q, want %q", w.heard, want)
	}
}

// The same while the directory is heard: of what came with a revocation is heard before, and who may have something newer is asked for before
// calls end.
func TestUsersMayOvertakeARevocationAsItComes(t *testing.T) {
	a := newAuthority()
	d := &directory{events: make(chan client.Event)}
	w := follow(t, a, d)
	w.until("peers")
	id := twincert.ID{Issuer: "30", Serial: "7"}
	d.events <- client.Event{Kind: client.KindCertificate, Certificate: &client.Notice{ID: twincert.ID{Issuer: "30", Serial: "8"}, Role: twincert.User, Name: "alice", Group: "staff"}}
	d.events <- client.Event{Kind: client.KindRevoked, Revoked: &client.Revocation{ID: id, Name: "alice", Role: twincert.User}}
	w.until("revoked 7")
	w.mu.Lock()
	defer w.mu.Unlock()
	n := len(w.heard)
	if want := []string{"overtake 7", "revoked 7"}; n < 2 || !slices.Equal(w.heard[n-2:], want) || !slices.Equal(w.users, []string{"", "alice"}) {
		t.Errorf("heard %q, of users %q", w.heard, w.users)
	}
}

// What the engine refuses to take ends the attempt, and is said.
func TestSinkFails(t *testing.T) {
	a := newAuthority()
	d := &directory{events: make(chan client.Event)}
	s := httptest.NewServer(d)
	defer s.Close()
	errStopped := errors.New("stopped")
	fail := func(context.Context, []native.Peer, []native.Refusal) error { return errStopped }
	tr := trust.New(time.Hour)
	tr.SetAnchors([]*x509.Certificate{a.cert}, nil)
	dir := client.New(s.URL, nil)
	defer dir.CloseIdle()
	f := sitemap.New(dir, "ra", tr, func() (string, []netip.Prefix) { return "", nil },
		sitemap.Sink{Peers: fail, Revoked: func(context.Context, ...twincert.ID) error { return nil }, Certified: func(string) {}, Overtake: func(context.Context, []twincert.ID) {}}, slog.New(slog.DiscardHandler))
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { f.Run(ctx); close(done) }()
	for end := time.Now().Add(10 * time.Second); !errors.Is(f.Problem(), errStopped); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("problem: %v", f.Problem())
		}
	}
	stop()
	<-done
}
