package station

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"twinkey/directory/client"
	"twinkey/router/internal/native"
	"twinkey/router/internal/trust"
	"twinkey/router/internal/voluntary"
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

func root() *x509.Certificate {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	return must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key))))
}

func TestHome(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "config", "twinkey")
	h, err := OpenHome(dir)
	if err != nil || h.Root != nil || h.Router != "" {
		t.Fatalf("a home that is not there yet: %+v, %v", h, err)
	}
	if err := h.At(""); !errors.Is(err, ErrNoRouter) {
		t.Errorf("no router: %v", err)
	}
	if err := h.Trust(t.Context(), netip.Addr{}, ""); !errors.Is(err, ErrNoRoot) {
		t.Errorf("no root: %v", err)
	}
	for in, want := range map[string]string{
		"10.1.1.1": "10.1.1.1:8443", "10.1.1.1:9000": "10.1.1.1:9000", "ra.example": "ra.example:8443", "2001:db8::1": "[2001:db8::1]:8443", "[2001:db8::1]:9000": "[2001:db8::1]:9000",
		":8443": "", "10.1.1.1:": "",
	} {
		g := h
		if err := g.At(in); (err == nil) != (want != "") || err == nil && g.Router != want {
			t.Errorf("router %q: %q, %v", in, g.Router, err)
		}
	}
	h.Root, h.Router, h.User = root(), "10.1.1.1:8443", "alice"
	if err := h.Save(); err != nil {
		t.Fatal(err)
	}
	again, err := OpenHome(dir)
	if err != nil || !again.Root.Equal(h.Root) || again.Router != h.Router || again.User != h.User {
		t.Fatalf("read back: %+v, %v", again, err)
	}
	if st := must(os.Stat(dir)); st.Mode().Perm() != 0o700 {
		t.Errorf("mode %v", st.Mode())
	}
	for _, f := range must(os.ReadDir(dir)) {
		if i := must(f.Info()); i.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", f.Name(), i.Mode())
		}
	}
	// What is known needs no router; another fingerprint does, and what it does not bear out is not taken.
	sum := sha256.Sum256(h.Root.Raw)
	if err := again.Trust(t.Context(), netip.Addr{}, hex.EncodeToString(sum[:])); err != nil {
		t.Errorf("the fingerprint of the root that is here: %v", err)
	}
	again.Router = "127.0.0.1:1"
	err = again.Trust(t.Context(), netip.Addr{}, strings.Repeat("00", 32))
	if e, ok := errors.AsType[*voluntary.Error](err); !ok || e.Code != voluntary.CodeUnavailable || !again.Root.Equal(h.Root) {
		t.Errorf("another fingerprint: %v", err)
	}
	for _, name := range []string{rootFile, clientFile} {
		broken, err := fs.ReadFile(os.DirFS(dir), name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenHome(dir); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s broken: %v", name, err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), broken, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// Nothing that a site announces cuts the machine off from its own network, from the router in front, or from the routers that it calls.
func TestApart(t *testing.T) {
	peer := func(name string, certified, announced []netip.Prefix) native.Peer {
		return native.Peer{Name: name, Certified: certified, Announced: announced}
	}
	peers := []native.Peer{
		peer("rb", prefixes("10.2.0.0/24", "10.2.1.0/24"), prefixes("10.2.0.0/25")),
		peer("rc", prefixes("192.168.0.0/16"), prefixes("192.168.7.0/24")),
		peer("rd", prefixes("10.4.0.0/24", "198.51.100.0/24"), prefixes("10.4.0.0/24", "198.51.100.0/24")),
		peer("re", prefixes("0.0.0.0/0"), prefixes("0.0.0.0/0")),
	}
	kept, refused := apart(peers, prefixes("192.168.7.0/24"), []netip.Addr{netip.MustParseAddr("10.1.1.1"), netip.MustParseAddr("198.51.100.7")})
	got := fmt.Sprint(kept[0].Certified, kept[0].Announced, kept[1].Certified, kept[1].Announced, kept[2].Certified, kept[2].Announced, kept[3].Certified)
	if want := "[10.2.0.0/24 10.2.1.0/24] [10.2.0.0/25] [] [] [10.4.0.0/24] [10.4.0.0/24] []"; got != want {
		t.Errorf("kept %s, want %s", got, want)
	}
	if len(refused) != 3 || refused[0].Peer != "rc" || !strings.Contains(refused[0].Reason, "192.168.7.0/24, which this machine is in") ||
		refused[1].Peer != "rd" || !strings.Contains(refused[1].Reason, "198.51.100.7 is in it") || refused[2].Peer != "re" {
		t.Errorf("refused %+v", refused)
	}
	if len(peers[1].Certified) != 1 {
		t.Error("what was handed in was changed")
	}
}

func TestVouched(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	var v vouched
	if v.due(now.Add(time.Hour)) {
		t.Error("due without a word")
	}
	v.note(now, time.Hour)
	v.note(now.Add(10*time.Minute), time.Hour) // for another tunnel: the first one counts
	if v.due(now.Add(29*time.Minute)) || !v.due(now.Add(30*time.Minute)) || v.due(now.Add(40*time.Minute)) {
		t.Error("not due once, at half of the time")
	}
	v.note(now, 0)
	if v.due(now.Add(24 * time.Hour)) {
		t.Error("due, and there is no more to be had")
	}
}

// Whatever a person has to see to ends the client; the rest is tried again.
func TestFinal(t *testing.T) {
	for code, want := range map[voluntary.Code]bool{
		voluntary.CodeDenied: true, voluntary.CodeLocked: true, voluntary.CodePolicy: true, voluntary.CodeAddress: true, voluntary.CodeRouter: true, voluntary.CodeInvalid: true,
		voluntary.CodeUnavailable: false, voluntary.CodeBusy: false, voluntary.CodeTaken: false,
	} {
		if got := final(&voluntary.Error{Code: code}); got != want {
			t.Errorf("%s: %v", code, got)
		}
	}
	if !final(errAnew) {
		t.Error("another address goes on as before")
	}
}

func TestUnreachable(t *testing.T) {
	peers := []native.Peer{{Name: "rb", Endpoint: netip.MustParseAddrPort("198.51.100.2:1701")}, {Name: "rc"}}
	got := unreachable(peers, []string{"rb", "rd"})
	if len(got) != 2 || got[0].Peer != "rd" || got[1].Peer != "rc" {
		t.Errorf("got %+v", got)
	}
}

// A map that comes while nothing is believed waits: it would look empty, and end the calls that are up.
func TestStaleMapWaits(t *testing.T) {
	now := time.Now()
	r := &run{trust: trust.New(time.Minute)} // without an engine to tell
	for name, heard := range map[string]int64{"never heard": -1, "heard too long ago": 2 * time.Minute.Milliseconds(), "more than can be": math.MaxInt64, "so long that it goes around": 9_300_000_000_000} {
		if err := r.take(t.Context(), voluntary.Word{Heard: heard, Sites: &[]client.Site{{Name: "rb"}}}, now); err != nil || !r.unread || len(r.sites) != 1 {
			t.Errorf("%s: %v, waiting: %v", name, err, r.unread)
		}
	}
	if r.ready(now) {
		t.Error("told, and nothing is believed")
	}
	r.trust.Heard(now)
	if !r.ready(now) || r.ready(now) {
		t.Error("not told once, when something was heard")
	}
}
