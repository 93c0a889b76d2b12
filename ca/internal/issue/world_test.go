package issue_test

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"twinkey/ca/internal/authority"
	"twinkey/ca/internal/issue"
	"twinkey/ca/internal/ledger"
	"twinkey/directory/client"
	"twinkey/pkg/keybundle"
	"twinkey/pkg/twincert"
	"twinkey/proto/secret"
)

// directory is one that keeps what it is told in memory, by the real one's rules: a
// change once, the same again is nothing, other content under its ID a conflict. Tests of
// package cmd run the real one.
type directory struct {
	mu      sync.Mutex
	changes map[string]string // content by ID
	users   map[string]client.UserRecord
	bundles map[string]client.BundleRecord
	// successors fall with a new bundle
	successors map[string]client.SuccessorRecord
	certs      map[twincert.ID][]byte
	routers    map[string]twincert.ID
	revoked    map[twincert.ID]bool
	crl        []byte

	down   bool                      // takes no connection
	mute   bool                      // swallows changes: they arrive when deliver is called
	lost   []client.Change           // swallowed
	deaf   bool                      // applies, but its answer gets lost
	refuse func(client.Change) error // says no
	asked  []client.Change           // every Apply, in order
}

func newDirectory() *directory {
	return &directory{changes: map[string]string{}, users: map[string]client.UserRecord{}, bundles: map[string]client.BundleRecord{}, successors: map[string]client.SuccessorRecord{},
		certs: map[twincert.ID][]byte{}, routers: map[string]twincert.ID{}, revoked: map[twincert.ID]bool{}}
}

func unavailable(why string) error {
	return &client.Error{Op: "applying a change", Code: client.CodeUnavailable, Message: why}
}

func (d *directory) Health(context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.down {
		return unavailable("connection refused")
	}
	return nil
}

func (d *directory) Has(_ context.Context, changeID string) (bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.down || d.mute {
		return false, unavailable("connection refused")
	}
	_, ok := d.changes[changeID]
	return ok, nil
}

// restore is what a copy would bring back.
func (d *directory) restore(copied map[string]string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.changes = maps.Clone(copied)
}

func (d *directory) Apply(ctx context.Context, c client.Change) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return &client.Error{Op: "applying a change", Code: client.CodeUnavailable, Err: err}
	}
	d.asked = append(d.asked, c)
	switch {
	case d.down:
		return unavailable("connection refused")
	case d.mute:
		d.lost = append(d.lost, c)
		return unavailable("timeout")
	}
	err := d.apply(c)
	if d.deaf {
		return unavailable("connection reset")
	}
	return err
}

// deliver lets what was swallowed arrive, late.
func (d *directory) deliver() (errs []error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mute = false
	for _, c := range d.lost {
		errs = append(errs, d.apply(c))
	}
	d.lost = nil
	return errs
}

func (d *directory) apply(c client.Change) error {
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	if old, ok := d.changes[c.ChangeID]; ok {
		if old != string(b) {
			return &client.Error{Op: "applying a change", Code: client.CodeConflict}
		}
		return nil
	}
	if d.refuse != nil {
		if err := d.refuse(c); err != nil {
			return err
		}
	}
	d.changes[c.ChangeID] = string(b)
	for _, r := range c.Certificates {
		d.certs[r.ID] = r.DER
	}
	for _, u := range c.Users {
		d.users[u.UID] = u
	}
	for _, uid := range c.Disable {
		if u, ok := d.users[uid]; ok {
			u.Disabled = true
			d.users[uid] = u
		}
	}
	for _, r := range c.Bundles {
		d.bundles[r.UID] = r
		delete(d.successors, r.UID)
	}
	for _, s := range c.Successors {
		d.successors[s.UID] = s
	}
	for _, r := range c.Routers {
		d.routers[r.Name] = r.ID
	}
	for _, r := range c.Revocations {
		d.revoked[r.ID] = true
	}
	if c.CRL != nil {
		d.crl = c.CRL
	}
	return nil
}

// killed is what At panics with: from there on the process is dead.
type killed struct{}

// world is a CA on disk that can die and come back.
type world struct {
	*testing.T
	dir      string
	now      time.Time
	h        authority.Hierarchy
	group    secret.Key
	remote   *directory
	patience time.Duration
	sources  bool // there are some
	killAt   string
	// renewUsers is issue.Config's
	renewUsers bool
	atStep     func(what, step string)

	auth *authority.Authority
	led  *ledger.Ledger
	desk *issue.Desk
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{T: t, dir: t.TempDir(), now: time.Now(), remote: newDirectory(), patience: 300 * time.Millisecond,
		group: secret.New([]byte("0123456789abcdef0123456789abcdef"))}
	var err error
	if w.h, err = authority.NewHierarchy("Example Corp", w.now); err != nil {
		t.Fatal(err)
	}
	w.open()
	t.Cleanup(w.close)
	return w
}

func (w *world) open() {
	w.Helper()
	var err error
	if w.led, err = ledger.Open(filepath.Join(w.dir, "ledger.db")); err != nil {
		w.Fatal(err)
	}
	w.auth, err = authority.Open(authority.Config{Name: "Example Corp", DNSNames: []string{"127.0.0.1"}, Database: filepath.Join(w.dir, "issued.db"),
		Root: w.h.Root, Intermediate: w.h.Intermediate, Signer: w.h.IntermediateKey, Provisioner: w.h.RootKey,
		CRLURL: "https://ca.example/crl", CRLLifetime: time.Hour})
	if err != nil {
		w.Fatal(err)
	}
	w.desk = issue.New(issue.Config{Authority: w.auth, Ledger: w.led, Directory: w.remote, Sources: w.sources, GroupKey: w.group, RenewUsers: w.renewUsers, Profile: twincert.Paper,
		CRLURL: "https://ca.example/crl", Patience: w.patience, Now: func() time.Time { return w.now },
		Terms: issue.Terms{Router: 90 * day, User: 30 * day, TLS: 90 * day, Grace: 30 * day, CRL: time.Hour},
		At: func(what, step string) {
			if w.atStep != nil {
				w.atStep(what, step)
			}
			if w.killAt == what+": "+step {
				panic(killed{})
			}
		}})
}

const day = 24 * time.Hour

func (w *world) close() {
	if err := errors.Join(w.auth.Close(), w.led.Close()); err != nil {
		w.Error(err)
	}
}

// die runs f, which is to be killed on its way, and brings the CA back.
func (w *world) die(at string, f func()) {
	w.Helper()
	w.killAt = at
	func() {
		defer func() {
			if _, ok := recover().(killed); !ok {
				w.Fatalf("nothing was killed at %q", at)
			}
		}()
		f()
	}()
	w.killAt = ""
	w.close()
	w.open()
}

func (w *world) user(uid string) issue.UserRequest {
	w.Helper()
	p := keybundle.Params{Salt: make([]byte, keybundle.SaltLen), Time: 1, MemoryKiB: 8 << 10, Threads: 1}
	proof, err := keybundle.Derive([]byte("password of "+uid), p)
	if err != nil {
		w.Fatal(err)
	}
	return issue.UserRequest{UID: uid, Group: "staff", Params: p, Verifier: keybundle.Verifier(proof.Auth.Bytes()), Seal: proof.Seal}
}

func (w *world) addUser(uid string) error {
	_, err := w.desk.AddUser(w.Context(), "operator:test", w.user(uid))
	return err
}

func (w *world) settle() error { return w.desk.Settle(w.Context()) }

// presence says where a user is: certificate, bundle and record in the directory, record
// and certificate in the ledger, certificate in smallstep's database.
func (w *world) presence(uid string) (all, none bool) {
	w.Helper()
	var serials []string
	ledgerUser := false
	err := w.desk.View(func(tx *ledger.Tx) error {
		_, ok, err := tx.User(uid)
		ledgerUser = ok
		certs, cerr := tx.Certs()
		for _, c := range certs {
			if c.Role == "user" && c.Name == uid {
				serials = append(serials, c.Serial)
			}
		}
		return errors.Join(err, cerr)
	})
	if err != nil {
		w.Fatal(err)
	}
	d := w.remote
	d.mu.Lock()
	defer d.mu.Unlock()
	_, user := d.users[uid]
	bundle, sealed := d.bundles[uid]
	der, cert := d.certs[bundle.ID]
	if sealed && cert {
		w.opens(uid, bundle, der)
	}
	if sealed && ledgerUser && !slices.Contains(serials, bundle.ID.Serial) {
		w.Errorf("the ledger knows %v, the directory's bundle is for %s", serials, bundle.ID.Serial)
	}
	parts := []bool{user, sealed, cert, ledgerUser, len(serials) > 0}
	return !slices.Contains(parts, false), !slices.Contains(parts, true)
}

// opens checks that the bundle is what the user's password opens beside the certificate.
func (w *world) opens(uid string, b client.BundleRecord, der []byte) {
	w.Helper()
	c, err := twincert.Parse(der)
	if err != nil {
		w.Fatal(err)
	}
	private, err := keybundle.Open(b.Sealed, w.user(uid).Seal, der)
	if err != nil {
		w.Fatalf("bundle of %s: %v", uid, err)
	}
	w.isKeyOf(uid, private.Control, private.Data, c.Raw)
}

// isKeyOf checks that private keys are those of a certificate.
func (w *world) isKeyOf(uid string, control, data secret.Key, der []byte) {
	w.Helper()
	c, err := twincert.Parse(der)
	if err != nil {
		w.Fatal(err)
	}
	for _, k := range []struct {
		private secret.Key
		public  [32]byte
	}{{control, c.Keys.Control}, {data, c.Keys.Data}} {
		p, err := ecdh.X25519().NewPrivateKey(k.private.Bytes())
		if err != nil || [32]byte(p.PublicKey().Bytes()) != k.public {
			w.Errorf("keys of %s: the private key is not that of the certificate (%v)", uid, err)
		}
	}
}

func (w *world) pending() (what []string) {
	w.Helper()
	err := w.desk.View(func(tx *ledger.Tx) error {
		queue, err := tx.Intents()
		for _, in := range queue {
			what = append(what, in.What)
		}
		return err
	})
	if err != nil {
		w.Fatal(err)
	}
	return what
}

// box is one that enrols.
func (w *world) box() issue.Keys {
	w.Helper()
	k, err := authority.NewKey()
	if err != nil {
		w.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, k)
	if err != nil {
		w.Fatal(err)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		w.Fatal(err)
	}
	keys := issue.Keys{CSR: csr}
	for _, p := range []*[32]byte{&keys.Twin.Control, &keys.Twin.Data} {
		x, err := ecdh.X25519().GenerateKey(rand.Reader)
		if err != nil {
			w.Fatal(err)
		}
		*p = [32]byte(x.PublicKey().Bytes())
	}
	return keys
}

func (w *world) token(name string) string {
	w.Helper()
	t, _, err := w.desk.Token(issue.TokenRequest{Role: issue.RoleRouter, Name: name, TTL: time.Hour, Scope: []string{"group:staff"},
		Prefixes: []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.%d.0.0/24", len(name)))}})
	if err != nil {
		w.Fatal(err)
	}
	return t
}
