package storetest

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/netip"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"twinkey/directory/client"
	"twinkey/pkg/identity"
	"twinkey/pkg/keybundle"
	"twinkey/pkg/twincert"
	"twinkey/proto/secret"
)

// Company is a CA for tests: what it issues is real.
type Company struct {
	Root, Intermediate *x509.Certificate
	t                  testing.TB
	now                time.Time
	key                *ecdsa.PrivateKey // of the intermediate
	serial             int64
	crl                int64
	groups             map[string]*ecdh.PrivateKey
}

// NewCompany makes root and intermediate, valid for a year around now.
func NewCompany(t testing.TB, now time.Time) *Company {
	t.Helper()
	c := &Company{t: t, now: now, groups: make(map[string]*ecdh.PrivateKey)}
	rootKey := c.newKey()
	c.Root = c.sign(c.authority("Test Root"), nil, rootKey, rootKey)
	c.key = c.newKey()
	c.Intermediate = c.sign(c.authority("Test Intermediate"), c.Root, c.key, rootKey)
	return c
}

func (c *Company) newKey() *ecdsa.PrivateKey {
	c.t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	c.check(err)
	return k
}

func (c *Company) check(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *Company) next() *big.Int {
	c.serial++
	return big.NewInt(c.serial)
}

func (c *Company) authority(name string) *x509.Certificate {
	return &x509.Certificate{SerialNumber: c.next(), Subject: pkix.Name{CommonName: name}, NotBefore: c.now.Add(-time.Hour), NotAfter: c.now.Add(365 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SubjectKeyId: []byte(name)}
}

// sign signs template by signer, of parent; by itself if parent is nil.
func (c *Company) sign(template, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) *x509.Certificate {
	c.t.Helper()
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	c.check(err)
	cert, err := x509.ParseCertificate(der)
	c.check(err)
	return cert
}

// Anchors are root and intermediate as access.New wants them.
func (c *Company) Anchors() (roots, intermediates []*x509.Certificate) {
	return []*x509.Certificate{c.Root}, []*x509.Certificate{c.Intermediate}
}

// TLS issues a TLS certificate that names uri, good for both ends.
func (c *Company) TLS(uri string) tls.Certificate {
	c.t.Helper()
	u, err := url.Parse(uri)
	c.check(err)
	key := c.newKey()
	leaf := c.sign(&x509.Certificate{SerialNumber: c.next(), Subject: pkix.Name{CommonName: uri}, NotBefore: c.now.Add(-time.Minute), NotAfter: c.now.Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}, URIs: []*url.URL{u}}, c.Intermediate, key, c.key)
	return tls.Certificate{Certificate: [][]byte{leaf.Raw, c.Intermediate.Raw}, PrivateKey: key, Leaf: leaf}
}

// Identity issues a TLS certificate and makes an identity of it on disk; routers get a twin
// certificate as well, which ID names.
func (c *Company) Identity(uri string, twin *twincert.Certificate, control, data secret.Key) *identity.Identity {
	c.t.Helper()
	roots, inter := c.Anchors()
	id, err := identity.Create(filepath.Join(c.t.TempDir(), "identity"), identity.Bundle{Roots: roots, Intermediates: inter, TLS: c.TLS(uri), Twin: twin, Control: control, Data: data})
	c.check(err)
	return id
}

func (c *Company) x25519() *ecdh.PrivateKey {
	c.t.Helper()
	k, err := ecdh.X25519().GenerateKey(rand.Reader)
	c.check(err)
	return k
}

func (c *Company) twin(tp *twincert.Template, control, data *ecdh.PrivateKey) *twincert.Certificate {
	c.t.Helper()
	tp.Profile, tp.Serial = twincert.Paper, c.next()
	copy(tp.Keys.Control[:], control.PublicKey().Bytes())
	copy(tp.Keys.Data[:], data.PublicKey().Bytes())
	der, err := twincert.Create(rand.Reader, tp, c.Intermediate, c.key)
	c.check(err)
	cert, err := twincert.Parse(der)
	c.check(err)
	return cert
}

// Router is a router that the company enrolled.
type Router struct {
	Name          string
	Twin          *twincert.Certificate
	Control, Data secret.Key
}

// NewRouter issues a router's twin certificate, valid for a day.
func (c *Company) NewRouter(name string, scope []string, prefixes ...string) Router {
	c.t.Helper()
	control, data := c.x25519(), c.x25519()
	tp := &twincert.Template{Role: twincert.Router, Name: name, Scope: scope, NotBefore: c.now.Add(-time.Minute), NotAfter: c.now.Add(24 * time.Hour)}
	for _, p := range prefixes {
		tp.Prefixes = append(tp.Prefixes, netip.MustParsePrefix(p))
	}
	return Router{Name: name, Twin: c.twin(tp, control, data), Control: secret.New(control.Bytes()), Data: secret.New(data.Bytes())}
}

// Change is what the CA would send for r.
func (r Router) Change() client.Change {
	return client.Change{ChangeID: "router-" + r.Twin.ID().String()[:8] + r.Name + r.Twin.Serial.String(), Actor: "operator",
		Certificates: []client.CertRecord{{ID: r.Twin.ID(), DER: r.Twin.Raw, Kind: client.KindTwin}},
		Routers:      []client.RouterRecord{{Name: r.Name, ID: r.Twin.ID()}}}
}

// User is a user whom the company enrolled.
type User struct {
	UID, Group string
	Password   []byte
	Twin       *twincert.Certificate
	Params     keybundle.Params
	Auth       secret.Key // proof of Password
	record     client.UserRecord
	bundle     client.BundleRecord
	control    []byte
	data       *ecdh.PrivateKey
}

// NewUser issues a user's twin certificate and seals its keys under password.
func (c *Company) NewUser(uid, group, password string) User {
	c.t.Helper()
	return c.NewUserUntil(uid, group, password, c.now.Add(12*time.Hour))
}

// NewUserUntil is NewUser with an end.
func (c *Company) NewUserUntil(uid, group, password string, until time.Time) User {
	c.t.Helper()
	if c.groups[group] == nil {
		c.groups[group] = c.x25519()
	}
	control, data := c.groups[group], c.x25519()
	twin := c.twin(&twincert.Template{Role: twincert.User, Name: uid, Group: group, NotBefore: c.now.Add(-time.Minute), NotAfter: until}, control, data)
	salt := sha256.Sum256([]byte("salt of " + uid))
	// The cheapest that is allowed: the tests are not about Argon2id.
	u := User{UID: uid, Group: group, Password: []byte(password), Twin: twin, Params: keybundle.Params{Salt: salt[:16], Time: 1, MemoryKiB: 8 << 10, Threads: 1}, control: control.PublicKey().Bytes(), data: data}
	proof, err := keybundle.Derive(u.Password, u.Params)
	c.check(err)
	sealed, err := keybundle.Seal(rand.Reader, keybundle.Private{Control: secret.New(control.Bytes()), Data: secret.New(data.Bytes())}, proof.Seal, twin.Raw)
	c.check(err)
	u.Auth = proof.Auth
	u.record = client.UserRecord{UID: uid, Group: group, Params: u.Params, Verifier: keybundle.Verifier(proof.Auth.Bytes())}
	u.bundle = client.BundleRecord{UID: uid, ID: twin.ID(), Sealed: sealed}
	return u
}

// Change is what the CA would send for u.
func (u User) Change() client.Change {
	return client.Change{ChangeID: "user-" + u.UID + u.Twin.Serial.String(), Actor: "operator",
		Certificates: []client.CertRecord{{ID: u.Twin.ID(), DER: u.Twin.Raw, Kind: client.KindTwin}},
		Groups:       []client.GroupRecord{{Name: u.Group, Control: u.control}},
		Users:        []client.UserRecord{u.record}, Bundles: []client.BundleRecord{u.bundle}}
}

// Of is u as a user of a source.
func (u User) Of(source string) User {
	u.record.Source = source
	return u
}

// Data is the user's private data key.
func (u User) Data() secret.Key { return secret.New(u.data.Bytes()) }

// Rotate makes another control key for a group: users who are issued anything from now on get it.
func (c *Company) Rotate(group string) {
	c.t.Helper()
	c.groups[group] = c.x25519()
}

// Succeed issues another certificate over u's data key and the control key that the group has now, valid until then, and returns it with
// what the CA would send for it.
func (c *Company) Succeed(u User, until time.Time) (*twincert.Certificate, client.Change) {
	c.t.Helper()
	control := c.groups[u.Group]
	twin := c.twin(&twincert.Template{Role: twincert.User, Name: u.UID, Group: u.Group, NotBefore: c.now.Add(-time.Minute), NotAfter: until}, control, u.data)
	sealed, err := keybundle.SealControl(secret.New(control.Bytes()), twin.Keys.Data, twin.Raw)
	c.check(err)
	return twin, client.Change{ChangeID: "successor-" + u.UID + twin.Serial.String(), Actor: "operator",
		Certificates: []client.CertRecord{{ID: twin.ID(), DER: twin.Raw, Kind: client.KindTwin}},
		Groups:       []client.GroupRecord{{Name: u.Group, Control: control.PublicKey().Bytes()}},
		Successors:   []client.SuccessorRecord{{UID: u.UID, ID: twin.ID(), Sealed: sealed}}}
}

// Move is Succeed in another group, with what the CA would send besides: the user's record, and the end of the certificates of before.
func (c *Company) Move(u User, group string, until time.Time, before ...twincert.ID) (*twincert.Certificate, client.Change) {
	c.t.Helper()
	if c.groups[group] == nil {
		c.groups[group] = c.x25519()
	}
	u.Group, u.record.Group = group, group
	twin, change := c.Succeed(u, until)
	change.Users, change.Revocations = []client.UserRecord{u.record}, c.Revoke(u.UID, twincert.User, before...).Revocations
	return twin, change
}

// Revoke is what the CA would send to withdraw certificates, without a CRL.
func (c *Company) Revoke(name string, role twincert.Role, ids ...twincert.ID) client.Change {
	ch := client.Change{ChangeID: "revoke-" + c.next().String(), Actor: "operator"}
	for _, id := range ids {
		ch.Revocations = append(ch.Revocations, client.Revocation{ID: id, Name: name, Role: role, Time: c.now.UTC(), Reason: "keyCompromise"})
	}
	return ch
}

// CRL issues the next CRL.
func (c *Company) CRL(serials ...*big.Int) []byte {
	c.t.Helper()
	c.crl++
	l := &x509.RevocationList{Number: big.NewInt(c.crl), ThisUpdate: c.now.Add(-time.Minute), NextUpdate: c.now.Add(time.Hour)}
	for _, s := range serials {
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: s, RevocationTime: c.now})
	}
	der, err := x509.CreateRevocationList(rand.Reader, l, c.Intermediate, c.key)
	c.check(err)
	return der
}
