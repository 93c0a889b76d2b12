package voluntary

import (
	"context"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"log/slog"
	"math/big"
	"net/netip"
	"net/url"
	"sync"
	"testing"
	"time"

	"twinkey/directory/client"
	"twinkey/pkg/keybundle"
	"twinkey/pkg/limit"
	"twinkey/pkg/twincert"
	"twinkey/proto/secret"
	"twinkey/router/internal/engine"
	"twinkey/router/internal/policy"
	"twinkey/router/internal/trust"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// authority is a CA.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(cn string, by *authority) *authority {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	tmpl := &x509.Certificate{
		SerialNumber: must(rand.Int(rand.Reader, big.NewInt(1<<60))), Subject: pkix.Name{CommonName: cn}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	parent, signer := tmpl, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	return &authority{must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), signer)))), key}
}

// box certifies a TLS key for a bearer.
func (a *authority) box(uri string) tls.Certificate {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	der := must(x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: must(rand.Int(rand.Reader, big.NewInt(1<<60))), URIs: []*url.URL{must(url.Parse(uri))},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(50 * time.Minute), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, key.Public(), a.key))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (a *authority) user(uid string) *twincert.Certificate { return a.own(uid, "staff").cert }

// own is a user with the keys.
type own struct {
	cert          *twincert.Certificate
	control, data *ecdh.PrivateKey
}

func (a *authority) own(uid, group string) own {
	o := own{control: must(ecdh.X25519().GenerateKey(rand.Reader)), data: must(ecdh.X25519().GenerateKey(rand.Reader))}
	o.cert = a.twin(twincert.Template{Role: twincert.User, Name: uid, Group: group}, o.control.PublicKey().Bytes(), o.data.PublicKey().Bytes())
	return o
}

func (a *authority) twin(tmpl twincert.Template, control, data []byte) *twincert.Certificate {
	tmpl.Profile, tmpl.Serial = twincert.Paper, must(rand.Int(rand.Reader, big.NewInt(1<<60)))
	tmpl.Keys = twincert.Keys{Control: [32]byte(control), Data: [32]byte(data)}
	tmpl.NotBefore, tmpl.NotAfter = time.Now().Add(-time.Minute), time.Now().Add(50*time.Minute)
	return must(twincert.Parse(must(twincert.Create(rand.Reader, &tmpl, a.cert, a.key))))
}

func fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

// world is a router in front with what it asks: a directory that knows alice and bob, and a hall.
type world struct {
	*Server
	t       *testing.T
	ca      *authority
	box     tls.Certificate
	trust   *trust.Store
	at      string // where the router listens
	params  keybundle.Params
	sources bool // the CA has some; they may know whom the directory does not

	mu       sync.Mutex
	users    map[string]*twincert.Certificate
	code     string // of what the directory refuses; empty: it does not
	released int
	owned    []client.OwnLogin // that the directory was asked about
	notOwn   error             // what it says; nil: they may
	guests   map[netip.Addr]*engine.Guest
	vacant   error
	terms    policy.Terms
	welcome  error
	left     []string
	endings  []engine.Ending // that the hall was handed
	closeKey []byte          // the CA's
	during   func()          // while the directory looks at a proof
	// wrongs is what may fail
	wrongs limit.FailureLimits
	// successor is what the directory releases besides
	successor *client.Successor
	corp      *corp // the CA and its source; nil: there is none
}

const vouch = 20 * time.Minute

// newWorld is one that is asked over the network.
func newWorld(t *testing.T, set ...func(w *world, c *Config)) *world {
	w := newRouter(t, set...)
	w.at = serve(t, w.Server, w.box)
	return w
}

// newRouter is one that nothing reaches but calls of its handler. It holds nothing.
func newRouter(t *testing.T, set ...func(w *world, c *Config)) *world {
	w := &world{t: t, ca: newAuthority("root", nil), trust: trust.New(time.Hour), users: map[string]*twincert.Certificate{}, guests: map[netip.Addr]*engine.Guest{}}
	w.params = keybundle.Params{Salt: make([]byte, keybundle.SaltLen), Time: 1, MemoryKiB: 8 << 10, Threads: 1} // the least
	w.box = w.ca.box("twinkey://router/ra")
	w.trust.SetAnchors([]*x509.Certificate{w.ca.cert}, nil)
	w.trust.Heard(time.Now())
	for _, uid := range []string{"alice", "bob"} {
		w.users[uid] = w.ca.user(uid)
	}
	many := limit.Bucket{Rate: 1, Burst: 1000}
	w.wrongs = limit.FailureLimits{Each: many, Net: many, All: many, Known: many, Remember: time.Hour}
	p := must(policy.New([]policy.Rule{{Groups: []string{"staff", "others"}, To: []netip.Prefix{netip.MustParsePrefix("10.2.0.0/24")}}, {Groups: []string{"others"}}}))
	c := Config{
		Scope: func() []string { return []string{"group:staff"} },
		Name:  "ra", Directory: w, Hall: w, Trust: w.trust, Log: slog.New(slog.DiscardHandler), Vouch: func() time.Duration { return vouch },
		Sign: func(digest []byte) (router, signature []byte, err error) {
			signature, err = twincert.SignLowS(rand.Reader, w.box.PrivateKey.(*ecdsa.PrivateKey), digest)
			return w.box.Certificate[0], signature, err
		},
		Guesses: limit.NewFailures(w.wrongs),
		Hold:    func(context.Context, time.Time, error) {},
		CloseKey: func() []byte {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.closeKey
		},
		Anchors: func() (roots, inter []*x509.Certificate) { return []*x509.Certificate{w.ca.cert}, nil },
	}
	for _, f := range set {
		f(w, &c)
	}
	w.Server = NewServer(c, p)
	return w
}

// serve runs a server until the test ends.
func serve(t *testing.T, s *Server, box tls.Certificate) (at string) {
	t.Helper()
	l := must(Listen(netip.MustParseAddrPort("127.0.0.1:0")))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- s.Serve(ctx, l, &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{box}})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// LoginParams is the directory's.
func (w *world) LoginParams(_ context.Context, uid string) (client.LoginParams, error) {
	if twincert.CheckName(uid) != nil {
		return client.LoginParams{}, &client.Error{Op: "asking", Code: client.CodeInvalid}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.code != "" {
		return client.LoginParams{}, &client.Error{Op: "asking", Code: w.code}
	}
	_, known := w.users[uid]
	if w.corp != nil {
		return w.corp.loginParams(uid, w.params, known), nil
	}
	return client.LoginParams{Params: w.params, AskCA: w.sources && !known}, nil
}

func proofOf(uid string) secret.Key {
	return secret.New([]byte(fmt.Sprintf("%-32s", "the proof of "+uid)))
}

// Release is the directory's.
func (w *world) Release(ctx context.Context, uid string, auth secret.Key) (client.Release, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	refused := func(code string) (client.Release, error) {
		return client.Release{}, &client.Error{Op: "asking", Code: code, RetryAfter: time.Minute}
	}
	w.released++
	if w.during != nil {
		w.during()
	}
	if w.corp != nil && w.corp.accounts[uid] != "" {
		return w.corp.release(uid, auth, refused)
	}
	c, ok := w.users[uid]
	switch {
	case ctx.Err() != nil:
		return refused(client.CodeUnavailable)
	case w.code != "":
		return refused(w.code)
	case !ok || subtle.ConstantTimeCompare(auth.Bytes(), proofOf(uid).Bytes()) != 1:
		return refused(client.CodeDenied)
	}
	return client.Release{Certificate: c.Raw, Sealed: []byte("sealed keys of " + uid), Group: c.Group, Successor: w.successor}, nil
}

// Own is the directory's.
func (w *world) Own(_ context.Context, l client.OwnLogin) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.owned = append(w.owned, l)
	return w.notOwn
}

// Vacant, Welcome and Leave are the hall's.
func (w *world) Vacant(context.Context, netip.Addr) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.vacant
}

func (w *world) Welcome(_ context.Context, g *engine.Guest) (policy.Terms, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.welcome != nil {
		return policy.Terms{}, w.welcome
	}
	if o := w.guests[g.Address]; o != nil && o != g.Replaces {
		return policy.Terms{}, engine.ErrBusy
	}
	w.guests[g.Address] = g
	return w.terms, nil
}

func (w *world) Leave(ctx context.Context, g *engine.Guest, reason string) error {
	if err := ctx.Err(); err != nil { // as Engine.Do may
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.guests[g.Address] == g {
		delete(w.guests, g.Address)
		w.left = append(w.left, reason)
	}
	return nil
}

func (w *world) SucceedGuest(_ context.Context, u engine.User, c *twincert.Certificate) (policy.Terms, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if g := w.guests[u.Guest.Address]; g != u.Guest || g.Certificate.ID() != u.Certificate.ID() {
		return policy.Terms{}, engine.ErrGone
	}
	u.Guest.Certificate = c
	if w.welcome != nil {
		delete(w.guests, u.Guest.Address)
		u.Guest.Dismissed(w.welcome.Error())
		return policy.Terms{}, engine.ErrGone
	}
	return w.terms, nil
}

func (w *world) Prove(_ context.Context, g *engine.Guest, end engine.Ending) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.guests[g.Address] != g || g.Certificate.ID() != end.Certificate.ID() {
		return engine.ErrGone
	}
	w.endings = append(w.endings, end)
	return nil
}

// client is one that speaks from 127.0.0.N.
func (w *world) client(n byte) *Client {
	c := NewClient(w.at, netip.AddrFrom4([4]byte{127, 0, 0, n}), w.ca.cert)
	w.t.Cleanup(c.Close)
	return c
}

// login logs a user in from 127.0.0.N.
func (w *world) login(uid string, n byte) (*Client, Admission) {
	w.t.Helper()
	c := w.client(n)
	adm, err := c.Login(w.t.Context(), uid, proofOf(uid))
	if err != nil {
		w.t.Fatal(err)
	}
	return c, adm
}

// watching follows a watch and passes on its words, until it ends.
func watching(t *testing.T, c *Client, token []byte) (words <-chan Word, ended <-chan error) {
	ctx, cancel := context.WithCancel(context.Background())
	out, end := make(chan Word, 64), make(chan error, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for word, err := range c.Watch(ctx, token) {
			if err != nil {
				end <- err
				return
			}
			out <- word
		}
		end <- nil
	}()
	t.Cleanup(func() { cancel(); <-done })
	return out, end
}

// heard waits for a word that is as wanted.
func heard(t *testing.T, words <-chan Word, what string, ok func(Word) bool) Word {
	t.Helper()
	late := time.After(10 * time.Second)
	for {
		select {
		case w := <-words:
			if ok(w) {
				return w
			}
		case <-late:
			t.Fatalf("not heard: %s", what)
		}
	}
}
