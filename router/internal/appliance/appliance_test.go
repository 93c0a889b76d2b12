package appliance

import (
	"context"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/big"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/semaphore"

	caclient "twinkey/ca/client"
	"twinkey/directory/client"
	"twinkey/pkg/identity"
	"twinkey/pkg/keybundle"
	"twinkey/pkg/twincert"
	"twinkey/proto/secret"
	"twinkey/router/internal/admin"
	"twinkey/router/internal/authn"
	"twinkey/router/internal/engine"
	"twinkey/router/internal/links"
	"twinkey/router/internal/native"
	"twinkey/router/internal/policy"
	"twinkey/router/internal/portal"
	"twinkey/router/internal/renewal"
	"twinkey/router/internal/settings"
	"twinkey/router/internal/trust"
	"twinkey/router/internal/voluntary"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// load reads a configuration whose state is in dir.
func load(t *testing.T, dir, text string) *settings.Settings {
	t.Helper()
	file := filepath.Join(t.TempDir(), "router.yaml")
	if err := os.WriteFile(file, []byte("state: "+dir+"\n"+text), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := settings.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// enrolled makes an identity in dir; a router's is certified for prefixes.
func enrolled(dir, uri string, prefixes ...netip.Prefix) {
	caKey := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	ca := must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, tmpl, tmpl, caKey.Public(), caKey))))
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), URIs: []*url.URL{must(url.Parse(uri))}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	b := identity.Bundle{Roots: []*x509.Certificate{ca}, TLS: tls.Certificate{
		Certificate: [][]byte{must(x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey))}, PrivateKey: key}}
	if name, ok := strings.CutPrefix(uri, "twinkey://router/"); ok {
		control, data := must(ecdh.X25519().GenerateKey(rand.Reader)), must(ecdh.X25519().GenerateKey(rand.Reader))
		b.Control, b.Data = secret.New(control.Bytes()), secret.New(data.Bytes())
		b.Twin = must(twincert.Parse(must(twincert.Create(rand.Reader, &twincert.Template{
			Profile: twincert.Paper, Role: twincert.Router, Name: name, Prefixes: prefixes, Serial: big.NewInt(3), NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
			Keys: twincert.Keys{Control: [32]byte(control.PublicKey().Bytes()), Data: [32]byte(data.PublicKey().Bytes())},
		}, ca, caKey))))
	}
	must(identity.Create(filepath.Join(dir, "identity"), b))
}

// What cannot work is refused before interface and socket are opened, which a test may not do.
func TestNewRefuses(t *testing.T) {
	const ends = "ca: https://hq:8700\ndirectory: https://hq:8702\n"
	ra := func(dir string) { enrolled(dir, "twinkey://router/ra", netip.MustParsePrefix("10.1.0.0/23")) }
	for name, tt := range map[string]struct {
		enrol func(dir string)
		text  string
		is    error
		want  string
	}{
		"not enrolled":                {func(string) {}, ends, identity.ErrNone, "enrol"},
		"a directory's identity":      {func(dir string) { enrolled(dir, "twinkey://directory") }, ends, nil, "is that of a directory, not of a router"},
		"nobody said where the CA is": {ra, "directory: https://hq:8702\n", nil, "set ca and directory"},
		"a prefix of somebody else":   {ra, ends + "site: {prefixes: [10.1.0.0/24, 10.2.0.0/24]}\n", ErrUncovered, "10.2.0.0/24"},
		"a prefix that is too wide":   {ra, ends + "site: {prefixes: [10.1.0.0/16]}\n", ErrUncovered, "certificate of ra covers [10.1.0.0/23]"},
		"a portal on the WAN":         {ra, ends + "portal: {listen: \"198.51.100.1:443\"}\n", ErrUncovered, "portal.listen: no certificate covers the prefix: 198.51.100.1 (the portal is for the LAN: take an address that this box has there, within [10.1.0.0/23])"},
		"a redirection on the WAN":    {ra, ends + "portal: {listen: \"10.1.1.1:443\", http: \"198.51.100.1:80\"}\n", ErrUncovered, "portal.http"},
		"a key log that others read":  {ra, ends, identity.ErrPermissions, "key log"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			tt.enrol(dir)
			o := Options{KeyLog: filepath.Join(dir, "keys")} // refused last: nothing is opened whatever else is wrong
			if err := os.WriteFile(o.KeyLog, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(o.KeyLog, 0o644); err != nil { //nolint:gosec // that is the point
				t.Fatal(err)
			}
			_, err := New(load(t, dir, tt.text), o, slog.New(slog.DiscardHandler))
			if err == nil || tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("err = %v, want %v with %q", err, tt.is, tt.want)
			}
		})
	}
}

// A reload that is refused leaves what is in force as it is.
func TestReloadRefused(t *testing.T) {
	dir := t.TempDir()
	enrolled(dir, "twinkey://router/ra", netip.MustParsePrefix("10.1.0.0/16"))
	const before = "site: {prefixes: [10.1.0.0/24]}\n"
	for name, tt := range map[string]struct {
		load func() (*settings.Settings, error)
		want string
	}{
		"unreadable":              {func() (*settings.Settings, error) { return settings.Load(filepath.Join(dir, "none.yaml")) }, "no such file"},
		"uncovered":               {func() (*settings.Settings, error) { return load(t, dir, "site: {prefixes: [10.2.0.0/24]}\n"), nil }, "10.2.0.0/24"},
		"what needs a restart":    {func() (*settings.Settings, error) { return load(t, dir, before+"listen: 0.0.0.0:1702\n"), nil }, "listen: this change needs a restart"},
		"another state directory": {func() (*settings.Settings, error) { return load(t, filepath.Join(dir, "x"), before), nil }, "state: this change needs a restart"},
	} {
		t.Run(name, func(t *testing.T) {
			a := &Appliance{o: Options{Load: tt.load}, id: must(identity.Load(filepath.Join(dir, "identity"))), log: slog.New(slog.DiscardHandler)}
			was := load(t, dir, before)
			a.set.Store(was)
			err := a.Reload(t.Context())
			e, ok := errors.AsType[*admin.Error](err)
			if !ok || e.Kind != admin.KindConfig || e.Hint == "" || !strings.Contains(e.What, tt.want) {
				t.Errorf("err = %v, want %q", err, tt.want)
			}
			if a.set.Load() != was {
				t.Error("it was taken over all the same")
			}
			if _, prefixes := a.announce(); fmt.Sprint(prefixes) != "[10.1.0.0/24]" {
				t.Errorf("announced: %v", prefixes)
			}
		})
	}
}

// The configuration goes before what enrolment told, key by key.
func TestEndpoints(t *testing.T) {
	const ca, dir = "https://ca:8700", "https://dir:8702"
	for name, tt := range map[string]struct {
		told, text string // endpoints.json, empty: none; router.yaml
		want       Endpoints
		err        string
	}{
		"as enrolment told":     {`{"ca": "https://ca:8700", "directory": "https://dir:8702"}`, "", Endpoints{ca, dir}, ""},
		"one configured":        {`{"ca": "https://old:8700", "directory": "https://dir:8702"}`, "ca: https://ca:8700\n", Endpoints{ca, dir}, ""},
		"both configured":       {"", "ca: https://ca:8700\ndirectory: https://dir:8702\n", Endpoints{ca, dir}, ""},
		"the directory unknown": {`{"ca": "https://ca:8700"}`, "", Endpoints{}, "enrol this router, or set ca and directory"},
		"nothing known":         {"", "", Endpoints{}, "enrol this router, or set ca and directory"},
		"a damaged file":        {`{"ca": `, "ca: https://ca:8700\ndirectory: https://dir:8702\n", Endpoints{}, "endpoints.json"},
	} {
		t.Run(name, func(t *testing.T) {
			state := t.TempDir()
			if tt.told != "" {
				if err := os.WriteFile(filepath.Join(state, endpointsFile), []byte(tt.told), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got, err := LoadEndpoints(load(t, state, tt.text))
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("err = %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil || got != tt.want {
				t.Errorf("%+v, %v, want %+v", got, err, tt.want)
			}
		})
	}
	state := t.TempDir()
	if err := (Endpoints{ca, dir}).Save(state); err != nil {
		t.Fatal(err)
	}
	if got, err := LoadEndpoints(load(t, state, "")); err != nil || got != (Endpoints{ca, dir}) {
		t.Errorf("saved and loaded: %+v, %v", got, err)
	}
}

// The numbers are counted by hand: 1,500 bytes less IP (20 or 40), UDP 8, ESP 8, IV, ICV 16, padding and trailer to
// 4 or 16, and what stands before the packet; five bytes of IPv4 header are left out where headers are compact.
func TestMTU(t *testing.T) {
	for name, tt := range map[string]struct {
		text string
		want int
	}{
		"as configured":     {"tun: {mtu: 1300}\n", 1300},
		"by default":        {"", 1451},
		"GCM":               {"security: {suites: [aes256-gcm]}\n", 1451},
		"GCM, full":         {"data: {headers: full}\nsecurity: {suites: [aes256-gcm]}\n", 1420},
		"CBC":               {"security: {suites: [aes256-cbc-sha256]}\n", 1443},
		"CBC, full":         {"data: {headers: full}\nsecurity: {suites: [aes256-cbc-sha256]}\n", 1404},
		"the best of two":   {"data: {headers: full}\nsecurity: {suites: [aes256-cbc-sha256, aes128-gcm]}\n", 1420},
		"over IPv6":         {"listen: \"[2001:db8::1]:1701\"\n", 1431},
		"over both":         {"listen: \"[::]:1701\"\n", 1451},
		"over IPv6 in full": {"listen: \"[2001:db8::1]:1701\"\ndata: {headers: full}\n", 1400},
	} {
		if got := MTU(load(t, t.TempDir(), tt.text)); got != tt.want {
			t.Errorf("%s: %d, want %d", name, got, tt.want)
		}
	}
}

// A person is told what to do; why a login was refused, nobody who guesses passwords is told.
func TestLoginErrors(t *testing.T) {
	refusal := func(code, message string) error {
		return fmt.Errorf("asking for the keys of alice: %w", &client.Error{Op: "asking for a user's keys", Code: code, Message: message})
	}
	said := func(code, message string) error {
		return fmt.Errorf("asking whether the password of alice is right: %w", &caclient.Error{Op: "asking the CA", Code: code, Message: message})
	}
	for name, tt := range map[string]struct {
		err  error
		kind admin.Kind
		what string // empty: as it is
		hint string
	}{
		"wrong password":   {refusal(client.CodeDenied, "wrong password"), admin.KindDenied, "login of alice refused", "audit"},
		"unknown user":     {refusal(client.CodeDenied, "no such user"), admin.KindDenied, "login of alice refused", "audit"},
		"out of scope":     {refusal(client.CodeDenied, "not in scope"), admin.KindDenied, "login of alice refused", "audit"},
		"locked":           {refusal(client.CodeLocked, ""), admin.KindDenied, "", "twinkey-ca user unlock alice"},
		"directory away":   {refusal(client.CodeUnavailable, ""), admin.KindUnavailable, "", "is the directory running"},
		"no UserID":        {refusal(client.CodeInvalid, ""), admin.KindNotFound, `"alice" is no UserID`, "check UserID"},
		"foreign address":  {fmt.Errorf("logging in: %w", engine.ErrNotOurs), admin.KindDenied, "", "address"},
		"a site's address": {fmt.Errorf("logging in: %w", engine.ErrBridged), admin.KindDenied, "", "site.prefixes"},
		"nobody there":     {fmt.Errorf("logging in: %w", native.ErrUnknownPeer), admin.KindNotFound, "", "Wanted calls"},
		"behind a NAT":     {fmt.Errorf("logging in: %w", native.ErrNoEndpoint), admin.KindConflict, "", "public:"},
		"logged in":        {fmt.Errorf("logging in: %w", engine.ErrBusy), admin.KindConflict, "", "twinkey-router logout alice"},
		"denied by the CA": {said(caclient.CodeDenied, "no such user"), admin.KindDenied, "login of alice refused", "audit"},
		"locked at the CA": {said(caclient.CodeLocked, ""), admin.KindDenied, "", "twinkey-ca user unlock alice"},
		"the CA is busy":   {said(caclient.CodeTooMany, ""), admin.KindUnavailable, "", "try again"},
		"the CA is away":   {said(caclient.CodeUnavailable, ""), admin.KindUnavailable, "", "is the CA running"},
		"a source is away": {said(caclient.CodeSource, "corp"), admin.KindUnavailable, "what the company's CA asks about users does not answer: corp", "local users can"},
		"directory busy":   {refusal(client.CodeTooMany, ""), admin.KindUnavailable, "", "try again"},
		"directory's disk": {refusal(client.CodeStorage, ""), admin.KindUnavailable, "", "disk"},
		"no word":          {fmt.Errorf("logging in: %w", trust.ErrStale), admin.KindUnavailable, "", "when it was heard last"},
		"expired":          {fmt.Errorf("logging in: %w", twincert.ErrExpired), admin.KindDenied, "", "twinkey-ca user renew alice"},
		"not yet valid":    {fmt.Errorf("logging in: %w", twincert.ErrNotYetValid), admin.KindDenied, "", "clock"},
		"revoked":          {fmt.Errorf("logging in: %w", twincert.ErrRevoked), admin.KindDenied, "", "twinkey-ca user show alice"},
		"does not open":    {fmt.Errorf("opening: %w", keybundle.ErrOpen), "", "", "twinkey-ca user renew alice"},
		"nor does another": {fmt.Errorf("opening: %w", keybundle.ErrSuccessor), "", "", "twinkey-ca user renew alice"},
		"gate busy":        {fmt.Errorf("deriving: %w", keybundle.ErrBusy), admin.KindUnavailable, "", "try again"},
		"policy":           {fmt.Errorf("logging in: %w", policy.ErrDenied), admin.KindDenied, "", "policy:"},
		"too many calls":   {fmt.Errorf("logging in: %w", native.ErrTooMany), admin.KindUnavailable, "", "wait"},
		"stopping":         {engine.ErrStopped, admin.KindUnavailable, "", "started anew"},
		"refused there":    {&engine.Failed{Reason: "user alice: the policy does not allow it", Refused: true}, admin.KindDenied, "", "policies of both routers"},
		"silence there":    {&engine.Failed{Reason: "the peer is silent"}, admin.KindUnavailable, "", "UDP port"},
		"too slow":         {fmt.Errorf("logging in: %w", context.DeadlineExceeded), admin.KindUnavailable, "", loginTime.String()},
		"given up":         {fmt.Errorf("logging in: %w", context.Canceled), admin.KindUnavailable, "", "try again"},
		"a foreign CA's":   {fmt.Errorf("verifying: %w", twincert.ErrUnknownAuthority), "", "", "log"},
		"anything else":    {errors.New("no space left on device"), "", "", "log"},
	} {
		e, ok := errors.AsType[*admin.Error](loginError("alice", tt.err))
		if tt.what == "" {
			tt.what = tt.err.Error()
		}
		if !ok || e.Kind != tt.kind || e.What != tt.what || e.Hint == "" || tt.hint == "" || !strings.Contains(e.Hint, tt.hint) {
			t.Errorf("%s: %+v", name, e)
		}
	}
}

// The portal offers the sites that can be called, and no others.
func TestPeersOfThePortal(t *testing.T) {
	at := netip.MustParseAddrPort("198.51.100.2:1701")
	a := &Appliance{peers: []native.Peer{{Name: "rc", Endpoint: at}, {Name: "behind-a-nat"}, {Name: "rb", Endpoint: at}}}
	if got := (visitors{a}).Peers(); fmt.Sprint(got) != "[rb rc]" {
		t.Errorf("offers %v", got)
	}
}

// What a change of password fails with says what there is to do, and of the old password what a login says.
func TestPasswdErrors(t *testing.T) {
	refused := func(code string) error { return fmt.Errorf("changing: %w", &client.Error{Code: code}) }
	for name, tt := range map[string]struct {
		err  error
		uid  string
		kind admin.Kind
		hint string
	}{
		"weak":               {keybundle.ErrWeak, "alice", admin.KindConflict, "choose another one"},
		"long":               {keybundle.ErrLong, "alice", admin.KindConflict, "choose another one"},
		"the same":           {authn.ErrSame, "alice", admin.KindConflict, "choose another one"},
		"wrong password":     {refused(client.CodeDenied), "alice", admin.KindDenied, "check UserID and password"},
		"locked":             {refused(client.CodeLocked), "alice", admin.KindDenied, "twinkey-ca user unlock alice"},
		"other keys":         {refused(client.CodeConflict), "alice", admin.KindConflict, "try again"},
		"too cheap":          {refused(client.CodeInvalid), "alice", "", "directory.yaml"},
		"no UserID":          {refused(client.CodeInvalid), "A b", admin.KindNotFound, "check UserID and password"},
		"an old directory":   {refused(client.CodeNotFound), "alice", "", "upgrade it"},
		"silence":            {refused(client.CodeUnavailable), "alice", admin.KindUnavailable, "is the directory running"},
		"silence at the end": {fmt.Errorf("%w: %w", authn.ErrUncertain, refused(client.CodeUnavailable)), "alice", admin.KindUnavailable, "with the new password, and if"},
	} {
		e, ok := errors.AsType[*admin.Error](passwdError(tt.uid, tt.err))
		if !ok || e.Kind != tt.kind || e.Hint == "" || !strings.Contains(e.Hint, tt.hint) {
			t.Errorf("%s: %+v", name, e)
		}
	}
}

// More logins than the CA would answer at a time are told so here, before they cost a handshake.
func TestTooManyAskTheCA(t *testing.T) {
	dir := t.TempDir()
	enrolled(dir, "twinkey://router/ra", netip.MustParsePrefix("10.1.0.0/16"))
	a := &Appliance{asks: semaphore.NewWeighted(1), id: must(identity.Load(filepath.Join(dir, "identity"))), ends: Endpoints{CA: "https://127.0.0.1:1"}}
	for range 2 { // the room is given back
		if _, err := a.askCA(t.Context(), "alice", []byte("x")); !errors.Is(err, caclient.ErrUnavailable) {
			t.Fatalf("nobody there: %v", err)
		}
	}
	if !a.asks.TryAcquire(1) {
		t.Fatal("no room")
	}
	if _, err := a.askCA(t.Context(), "alice", []byte("x")); !errors.Is(err, keybundle.ErrBusy) {
		t.Errorf("one too many: %v", err)
	}
}

// Connections refused are told for the listeners that there are.
func TestConnectionsRefused(t *testing.T) {
	a := &Appliance{}
	if got := a.connectionsRefused(); len(got) != 0 {
		t.Errorf("without listeners: %v", got)
	}
	a.desk, a.web = &voluntary.Server{}, &web{Portal: &portal.Portal{}}
	a.desk.Refused.Store(7)
	if got := a.connectionsRefused(); !maps.Equal(got, map[string]uint64{"clients": 7, "portal": 0}) {
		t.Errorf("got %v", got)
	}
}

func TestCertificateProblems(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for name, tt := range map[string]struct {
		from, to time.Duration
		want     string
	}{
		"good":            {-time.Hour, 100 * time.Hour, ""},
		"soon":            {-time.Hour, 9 * time.Hour, "expires soon"},
		"just not soon":   {-time.Hour, 10 * time.Hour, ""},
		"expired":         {-time.Hour, -time.Second, "expired"},
		"from the future": {time.Hour, 100 * time.Hour, "not valid yet: is the clock right?"},
	} {
		if got := certificate(renewal.Life{NotBefore: now.Add(tt.from), NotAfter: now.Add(tt.to)}, now, 10*time.Hour); got.Problem != tt.want {
			t.Errorf("%s: %q, want %q", name, got.Problem, tt.want)
		}
	}
}

// The time of the next attempt is shown while there will be one.
func TestNextAttempt(t *testing.T) {
	at := time.Unix(1_800_000_000, 0)
	for name, tt := range map[string]struct {
		l    links.Link
		want time.Time
	}{
		"waiting":               {links.Link{State: links.Waiting, Next: at}, at},
		"up":                    {links.Link{State: links.Up, Next: at}, time.Time{}},
		"on demand, not asked":  {links.Link{State: links.Waiting, Demand: true, Next: at}, time.Time{}},
		"on demand, and wanted": {links.Link{State: links.Waiting, Demand: true, Asked: true, Next: at}, at},
	} {
		if got := next(tt.l); !got.Equal(tt.want) {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
	}
}
