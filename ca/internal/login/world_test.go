package login

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"twinkey/ca/internal/authority"
	"twinkey/ca/internal/issue"
	"twinkey/ca/internal/ledger"
	"twinkey/ca/internal/source"
	"twinkey/directory/client"
	"twinkey/pkg/keybundle"
	"twinkey/pkg/lockout"
	"twinkey/pkg/twincert"
	"twinkey/proto/secret"
)

// account is what a source knows of somebody.
type account struct {
	password, group string
	disabled        bool
}

// corp is a source that tests change: it accepts and rejects, falls silent, takes its time.
type corp struct {
	name string

	mu       sync.Mutex
	accounts map[string]account
	away     error         // what it fails with
	slow     chan struct{} // a check waits for it to be closed
	delay    time.Duration // of a rejection, as servers have it
	asked    []string      // UIDs
	session  time.Duration
	state    []byte
	follows  map[string]bool
	orders   chan source.Orders // whom it tells
}

func newCorp(name string) *corp {
	return &corp{name: name, accounts: map[string]account{}, follows: map[string]bool{}, orders: make(chan source.Orders, 1)}
}

func (c *corp) Name() string { return c.name }
func (c *corp) Close() error { return nil }

func (c *corp) Check(ctx context.Context, uid string, password []byte) (source.Answer, error) {
	c.mu.Lock()
	c.asked = append(c.asked, uid)
	a, ok := c.accounts[uid]
	away, slow := c.away, c.slow
	answer := source.Answer{Group: a.group, Session: c.session, State: c.state}
	c.mu.Unlock()
	if slow != nil {
		select {
		case <-slow:
		case <-ctx.Done():
			return source.Answer{}, errors.Join(source.ErrUnavailable, ctx.Err())
		}
	}
	switch {
	case away != nil:
		return source.Answer{}, away
	case !ok || a.disabled || a.password != string(password):
		time.Sleep(c.delay)
		return source.Answer{}, source.ErrRejected
	}
	c.Follow(uid)
	return answer, nil
}

func (c *corp) Follow(uids ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, u := range uids {
		c.follows[u] = true
	}
}

func (c *corp) Unfollow(uids ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, u := range uids {
		delete(c.follows, u)
	}
}

func (c *corp) following(uid string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.follows[uid]
}

func (c *corp) Watch(ctx context.Context, o source.Orders) error {
	c.orders <- o
	<-ctx.Done()
	return nil
}

func (c *corp) Account(context.Context, source.Event) error { return nil }

func (c *corp) set(uid, password, group string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.accounts[uid] = account{password: password, group: group}
}

func (c *corp) timesAsked() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.asked)
}

// directory keeps what a login needs of it.
type directory struct {
	mu      sync.Mutex
	changes map[string]bool
	users   map[string]client.UserRecord
	bundles map[string]client.BundleRecord
	// successors fall with a new bundle
	successors map[string]client.SuccessorRecord
	certs      map[twincert.ID][]byte
	revoked    map[twincert.ID]client.Revocation
	vouches    []client.Vouch
	refused    []client.Refusal
	down       bool
	sources    *bool // what was said of them last
}

var errDown = &client.Error{Op: "test", Code: client.CodeUnavailable}

func (d *directory) Health(context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.down {
		return errDown
	}
	return nil
}

func (d *directory) Has(_ context.Context, id string) (bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.changes[id], nil
}

func (d *directory) Apply(_ context.Context, c client.Change) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.down {
		return errDown
	}
	if d.changes[c.ChangeID] {
		return nil
	}
	d.changes[c.ChangeID] = true
	for _, r := range c.Certificates {
		d.certs[r.ID] = r.DER
	}
	if c.Sources != nil {
		d.sources = c.Sources
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
	for _, b := range c.Bundles {
		d.bundles[b.UID] = b
		delete(d.successors, b.UID)
	}
	for _, s := range c.Successors {
		d.successors[s.UID] = s
	}
	for _, r := range c.Revocations {
		d.revoked[r.ID] = r
		if d.present(r.Name) == r.ID {
			delete(d.bundles, r.Name)
			delete(d.successors, r.Name)
		}
	}
	return nil
}

// present is a user's certificate of now.
func (d *directory) present(uid string) twincert.ID {
	if s, ok := d.successors[uid]; ok {
		return s.ID
	}
	return d.bundles[uid].ID
}

func (d *directory) Vouch(_ context.Context, v client.Vouch) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.down {
		return errDown
	}
	if u := d.users[v.UID]; u.Source != v.Source || u.Disabled || d.present(v.UID) != v.ID {
		return &client.Error{Op: "vouching", Code: client.CodeConflict}
	}
	d.vouches = append(d.vouches, v)
	return nil
}

func (d *directory) Refused(_ context.Context, r client.Refusal) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.down {
		return errDown
	}
	d.refused = append(d.refused, r)
	return nil
}

// forget makes it a copy from before the user was there.
func (d *directory) forget(uid string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.users, uid)
	delete(d.bundles, uid)
}

// world is a CA with a source, at whose door routers berlin (group:staff) and paris (*) stand.
type world struct {
	*testing.T
	*Door
	corp   *corp
	dir    *directory
	desk   *issue.Desk
	led    *ledger.Ledger
	now    time.Time
	log    *bytes.Buffer
	berlin ledger.Router
	paris  ledger.Router
}

func newWorld(t *testing.T, more ...source.Source) *world {
	t.Helper()
	w := &world{T: t, corp: newCorp("corp"), now: time.Now(), log: &bytes.Buffer{},
		dir:    &directory{changes: map[string]bool{}, users: map[string]client.UserRecord{}, bundles: map[string]client.BundleRecord{}, successors: map[string]client.SuccessorRecord{}, certs: map[twincert.ID][]byte{}, revoked: map[twincert.ID]client.Revocation{}},
		berlin: ledger.Router{Name: "berlin", Scope: []string{"group:staff"}}, paris: ledger.Router{Name: "paris", Scope: []string{"*"}}}
	h, err := authority.NewHierarchy("Example Corp", w.now)
	w.check(err)
	path := t.TempDir()
	w.led, err = ledger.Open(filepath.Join(path, "ledger.db"))
	w.check(err)
	auth, err := authority.Open(authority.Config{Name: "Example Corp", DNSNames: []string{"127.0.0.1"}, Database: filepath.Join(path, "issued.db"),
		Root: h.Root, Intermediate: h.Intermediate, Signer: h.IntermediateKey, Provisioner: h.RootKey, CRLURL: "https://ca.example/crl", CRLLifetime: time.Hour})
	w.check(err)
	t.Cleanup(func() {
		if err := errors.Join(auth.Close(), w.led.Close()); err != nil {
			t.Error(err)
		}
	})
	const day = 24 * time.Hour
	w.desk = issue.New(issue.Config{Authority: auth, Ledger: w.led, Directory: w.dir, Sources: true, GroupKey: secret.New([]byte("0123456789abcdef0123456789abcdef")), Profile: twincert.Paper,
		CRLURL: "https://ca.example/crl", Patience: time.Second, Now: func() time.Time { return w.now },
		Terms: issue.Terms{Router: 90 * day, User: 30 * day, TLS: 90 * day, Grace: 30 * day, CRL: time.Hour}})
	w.Door = New(Config{Desk: w.desk, Ledger: w.led, Sources: append([]source.Source{w.corp}, more...), Vouch: w.dir.Vouch, Refused: w.dir.Refused, Lockout: lockout.Default(),
		Now: func() time.Time { return w.now }, Log: slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Params: func() (keybundle.Params, error) { // the cheapest that is allowed, under a salt of its own
			p := keybundle.Params{Salt: make([]byte, keybundle.SaltLen), Time: 1, MemoryKiB: 8 << 10, Threads: 1}
			_, err := rand.Read(p.Salt)
			return p, err
		}})
	w.floor = 0 // but for the test that is about it
	w.corp.set("alice", "spring", "staff")
	return w
}

func (w *world) check(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// listening has the door listen to its sources until the test ends, and returns whom corp tells.
func (w *world) listening() source.Orders {
	ctx, stop := context.WithCancel(w.Context())
	var wg sync.WaitGroup
	wg.Go(func() { w.Door.Run(ctx) })
	w.Cleanup(func() { stop(); wg.Wait() })
	return <-w.corp.orders
}

// in logs in at berlin.
func (w *world) in(uid, password string) (Admission, error) {
	return w.Login(w.Context(), w.berlin, uid, []byte(password))
}

// mustIn demands that the login succeeds, that what it leads to opens with the password, and that berlin was vouched for last.
func (w *world) mustIn(uid, password, group string) client.BundleRecord {
	w.Helper()
	a, err := w.in(uid, password)
	if err != nil {
		w.Fatalf("login of %s: %v\n%s", uid, err, w.log)
	}
	w.dir.mu.Lock()
	defer w.dir.mu.Unlock()
	u, b := w.dir.users[uid], w.dir.bundles[uid]
	proof, err := keybundle.Derive([]byte(password), a.Params)
	w.check(err)
	if !bytes.Equal(keybundle.Verifier(proof.Auth.Bytes()), u.Verifier) || !bytes.Equal(a.Params.Salt, u.Params.Salt) {
		w.Errorf("what the router was told does not prove the password of %s", uid)
	}
	c, err := twincert.Parse(w.dir.certs[b.ID])
	w.check(err)
	keys, err := keybundle.Open(b.Sealed, proof.Seal, c.Raw)
	if err != nil {
		w.Errorf("keys of %s: %v", uid, err)
	}
	if s, ok := w.dir.successors[uid]; ok {
		c, err = twincert.Parse(w.dir.certs[s.ID])
		w.check(err)
		if _, err := keybundle.OpenControl(s.Sealed, keys.Data, c.Raw); err != nil {
			w.Errorf("successor of %s: %v", uid, err)
		}
		b.ID = s.ID
	}
	if c.Name != uid || c.Group != group || u.Group != group || u.Source != "corp" || u.Disabled {
		w.Errorf("certificate of %s in group %q; %+v", c.Name, c.Group, u)
	}
	if v := w.dir.vouches[len(w.dir.vouches)-1]; v != (client.Vouch{UID: uid, Router: "berlin", Source: "corp", ID: b.ID}) {
		w.Errorf("vouched: %+v", v)
	}
	if _, ok := w.dir.revoked[b.ID]; ok {
		w.Errorf("the certificate of %s is revoked", uid)
	}
	return b
}

// mustNot demands a refusal that tells nothing, and that log and directory are told why.
func (w *world) mustNot(uid, password, cause string) {
	w.Helper()
	w.log.Reset()
	if a, err := w.in(uid, password); !errors.Is(err, ErrDenied) || err.Error() != ErrDenied.Error() || a.Params.Salt != nil {
		w.Errorf("login of %s: %v", uid, err)
	}
	if !strings.Contains(w.log.String(), cause) {
		w.Errorf("the log does not say %q:\n%s", cause, w.log)
	}
	w.dir.mu.Lock()
	if n := len(w.dir.refused); n == 0 || w.dir.refused[n-1].UID != uid || w.dir.refused[n-1].Router != "berlin" || !strings.Contains(w.dir.refused[n-1].Cause, strings.ReplaceAll(cause, `\"`, `"`)) {
		w.Errorf("the directory was not told %q: %+v", cause, w.dir.refused)
	}
	w.dir.mu.Unlock()
	for _, p := range []string{"spring", "summer", "guess"} {
		if strings.Contains(w.log.String(), p) {
			w.Errorf("a password stands in the log:\n%s", w.log)
		}
	}
}

func (w *world) user(uid string) (u ledger.User) {
	w.Helper()
	w.check(w.desk.View(func(tx *ledger.Tx) (err error) {
		u, _, err = tx.User(uid)
		return err
	}))
	return u
}

func (w *world) reasonOf(id twincert.ID) string {
	w.dir.mu.Lock()
	defer w.dir.mu.Unlock()
	r, ok := w.dir.revoked[id]
	if !ok {
		return "not revoked"
	}
	return r.Reason
}

func (w *world) vouches() int {
	w.dir.mu.Lock()
	defer w.dir.mu.Unlock()
	return len(w.dir.vouches)
}
