package native_test

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"fmt"
	"math/big"
	"net/netip"
	"net/url"
	"testing"
	"time"

	"twinkey/pkg/twincert"
	"twinkey/proto/esp"
	"twinkey/proto/handshake"
	"twinkey/proto/l2tp"
	"twinkey/proto/ppp"
	"twinkey/proto/secret"
	"twinkey/router/internal/calls"
	"twinkey/router/internal/links"
	"twinkey/router/internal/native"
	"twinkey/router/internal/policy"
	"twinkey/router/internal/trust"
)

// world is a company in memory: an authority and routers whose datagrams pass by hand,
// under a clock that is moved by hand.
type world struct {
	t      testing.TB
	now    time.Time
	issuer *x509.Certificate
	key    *ecdsa.PrivateKey
	root   *x509.Certificate
	serial int64
	boxes  map[string]*box
	byAddr map[netip.AddrPort]*box
	// weather decides what becomes of a datagram: how many copies arrive.
	weather func(from *box, d []byte) int
	wire    []datagram
}

type datagram struct {
	from, to netip.AddrPort
	data     []byte
}

// box is one router.
type box struct {
	w      *world
	name   string
	addr   netip.AddrPort
	trust  *trust.Store
	table  *calls.Table
	self   native.Self
	peer   native.Peer
	e      *native.Endpoint
	events []native.Event
	got    map[uint64][]string // packets by call
	unread int
	policy *policy.Policy
	older  bool // it does not know path MTU probes
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, now: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC), boxes: map[string]*box{}, byAddr: map[netip.AddrPort]*box{}}
	w.weather = func(*box, []byte) int { return 1 }
	rootKey, root := w.ca("root", nil, nil)
	w.root = root
	w.key, w.issuer = w.ca("intermediate", root, rootKey)
	return w
}

func (w *world) ca(cn string, parent *x509.Certificate, signer *ecdsa.PrivateKey) (*ecdsa.PrivateKey, *x509.Certificate) {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	w.serial++
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(w.serial), Subject: pkix.Name{CommonName: cn}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: w.now.AddDate(-1, 0, 0), NotAfter: w.now.AddDate(9, 0, 0), KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	if parent == nil {
		parent, signer = tmpl, key
	}
	return key, must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), signer))))
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func newPair() handshake.KeyPair {
	return must(handshake.NewKeyPair(secret.New(must(ecdh.X25519().GenerateKey(rand.Reader)).Bytes())))
}

// credentials has the authority certify new data keys, and control keys if none is given.
func (w *world) credentials(tmpl twincert.Template, control *handshake.KeyPair) native.Credentials {
	c := native.Credentials{Control: newPair(), Data: newPair()}
	if control != nil {
		c.Control = *control
	}
	w.serial++
	tmpl.Profile, tmpl.Serial, tmpl.Keys = twincert.Paper, big.NewInt(w.serial), twincert.Keys{Control: c.Control.Public, Data: c.Data.Public}
	if tmpl.NotAfter.IsZero() {
		tmpl.NotBefore, tmpl.NotAfter = w.now.Add(-time.Hour), w.now.AddDate(0, 3, 0)
	}
	c.Certificate = must(twincert.Parse(must(twincert.Create(rand.Reader, &tmpl, w.issuer, w.key))))
	return c
}

func (w *world) user(uid, group string, control handshake.KeyPair) native.Credentials {
	return w.credentials(twincert.Template{Role: twincert.User, Name: uid, Group: group}, &control)
}

// router adds a box: site prefix 10.N.0.0/24, users from 10.N.1.0/24.
func (w *world) router(name string, n int) *box {
	announced := netip.MustParsePrefix(fmt.Sprintf("10.%d.0.0/24", n))
	certified := []netip.Prefix{announced, netip.MustParsePrefix(fmt.Sprintf("10.%d.1.0/24", n))}
	b := &box{w: w, name: name, addr: netip.MustParseAddrPort(fmt.Sprintf("198.18.0.%d:1701", n)), table: calls.NewTable(), trust: trust.New(time.Hour), got: map[uint64][]string{}}
	b.policy = must(policy.New([]policy.Rule{{Groups: []string{policy.Everybody}}}))
	b.trust.SetAnchors([]*x509.Certificate{w.root}, []*x509.Certificate{w.issuer})
	b.trust.Heard(w.now)
	tlsKey := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	w.serial++
	tlsDER := must(x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(w.serial), Subject: pkix.Name{CommonName: name}, URIs: []*url.URL{must(url.Parse("twinkey://router/" + name))},
		NotBefore: w.now.Add(-time.Hour), NotAfter: w.now.AddDate(0, 3, 0), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, w.issuer, tlsKey.Public(), w.key))
	b.self = native.Self{
		Credentials: w.credentials(twincert.Template{Role: twincert.Router, Name: name, Scope: []string{"group:staff"}, Prefixes: certified}, nil),
		Signer:      native.LocalSigner{Router: tlsDER, By: func(digest []byte) ([]byte, error) { return twincert.SignLowS(rand.Reader, tlsKey, digest) }},
	}
	cert := b.self.Certificate
	b.peer = native.Peer{Name: name, Endpoint: b.addr, Announced: []netip.Prefix{announced}, Certified: cert.Prefixes, Scope: cert.Scope, ID: cert.ID()}
	w.boxes[name], w.byAddr[b.addr] = b, b
	b.start(nil)
	return b
}

// start makes the box's endpoint; change adjusts its configuration first.
func (b *box) start(change func(*native.Config)) {
	c := native.Config{
		Rand: rand.Reader, Epoch: b.w.now, Table: b.table, Trust: b.trust,
		Self: func() native.Self { return b.self },
		Peer: func(name string) (native.Peer, bool) {
			if p := b.w.boxes[name]; p != nil {
				return p.peer, true
			}
			return native.Peer{}, false
		},
		Local:  func() []netip.Prefix { return b.peer.Announced },
		Policy: func() *policy.Policy { return b.policy },
		Suites: []esp.Suite{esp.AES256GCM, esp.ChaCha20Poly1305}, Hybrid: true, MRU: 1420,
		Hello: 15 * time.Second, Echo: 30 * time.Second, RekeyTime: time.Hour, RekeyGrace: 30 * time.Second,
	}
	if change != nil {
		change(&c)
	}
	b.e = must(native.New(c))
}

// flush puts what a box has to say on the wire and keeps its events.
func (b *box) flush() {
	for {
		o, ok := b.e.Poll()
		if !ok {
			return
		}
		switch {
		case o.Event != nil:
			b.events = append(b.events, o.Event)
			switch v := o.Event.(type) {
			case native.CallUp:
				b.table.SetRoutes(b.table.Routes().With(v.Call, v.Initiator))
			case native.CallDown:
				if v.Call != nil {
					b.table.SetRoutes(b.table.Routes().Without(v.Call, v.Initiator))
				}
			}
		case o.SA != nil:
			b.transmit(o.To, b.seal(o.SA, o.Payload, o.Next))
		case len(o.Payload) == 0:
			b.transmit(o.To, esp.AppendKeepalive(nil))
		default:
			b.transmit(o.To, append(esp.AppendMarker(nil), o.Payload...))
		}
	}
}

func (b *box) seal(sa *esp.Outbound, payload []byte, next uint8) []byte {
	buf := append(make([]byte, 64), payload...)
	return must(sa.Seal(append(buf, make([]byte, 64)...), 64, len(payload), next))
}

func (b *box) transmit(to netip.AddrPort, d []byte) {
	for range b.w.weather(b, d) {
		b.w.wire = append(b.w.wire, datagram{b.addr, to, append([]byte(nil), d...)})
	}
}

// receive takes a datagram as the engine's data path would.
func (b *box) receive(from netip.AddrPort, d []byte) {
	switch esp.Classify(d) {
	case esp.Control:
		b.e.Clear(b.w.now, from, d[esp.MarkerLen:])
	case esp.Packet:
		b.packet(from, d)
	default:
	}
}

func (b *box) packet(from netip.AddrPort, d []byte) {
	in := b.table.Inbound(binary.BigEndian.Uint32(d))
	if in == nil {
		b.unread++
		return
	}
	payload, next, err := in.SA.Open(d)
	if err != nil {
		b.unread++
		return
	}
	if in.FirstUse() {
		b.e.Used(b.w.now, in)
	}
	if in.Call == nil {
		switch {
		case next == esp.NextUDP:
			b.e.Control(b.w.now, from, in, payload)
		case next == native.NextPath && !b.older:
			b.e.PathProbe(b.w.now, from, in, payload)
		}
		return
	}
	h, frame, err := l2tp.ParseData(payload[8:])
	if err != nil || h.SessionID != in.Call.LocalSession {
		b.w.t.Errorf("%s: data for session %d in the SA of call %d: %v", b.name, h.SessionID, in.Call.ID, err)
		return
	}
	proto, pkt, err := ppp.ParseFrame(frame)
	if err != nil {
		b.w.t.Errorf("%s: %v", b.name, err)
	} else if proto != ppp.ProtoIPv4 {
		b.e.PPP(b.w.now, in.Call, frame)
	} else {
		b.got[in.Call.ID] = append(b.got[in.Call.ID], string(pkt))
	}
}

// settle passes datagrams until nobody has more to say.
func (w *world) settle() {
	for range 10_000 {
		for _, b := range w.boxes {
			b.flush()
		}
		if len(w.wire) == 0 {
			return
		}
		d := w.wire[0]
		w.wire = w.wire[1:]
		if to := w.byAddr[d.to]; to != nil {
			to.receive(d.from, d.data)
		}
	}
	w.t.Fatal("the boxes talk without end")
}

// pass lets time go by in steps, everybody doing what is due.
func (w *world) pass(d time.Duration) {
	end := w.now.Add(d)
	for w.now.Before(end) {
		w.now = w.now.Add(min(500*time.Millisecond, end.Sub(w.now)))
		for _, b := range w.boxes {
			b.trust.Heard(w.now)
			b.e.Advance(w.now)
		}
		w.settle()
	}
}

// link places the site link from a to b and waits for it.
func (w *world) link(a, b *box) *calls.Call {
	w.t.Helper()
	return w.place(a, native.Wish{Key: links.Key{Peer: b.name}, Cred: a.self.Credentials})
}

func (w *world) place(a *box, wish native.Wish) *calls.Call {
	w.t.Helper()
	if err := a.e.PlaceCall(w.now, wish); err != nil {
		w.t.Fatalf("placing %s: %v", wish.Key, err)
	}
	w.settle()
	w.pass(5 * time.Second)
	c := a.up(wish.Key)
	if c == nil {
		for _, b := range w.boxes {
			w.t.Logf("%s: %+v %+v", b.name, b.events, b.e.Counters)
		}
		w.t.Fatalf("call %s is not up", wish.Key)
	}
	return c
}

// up returns the call of a key that came up last and is not down.
func (b *box) up(k links.Key) (c *calls.Call) {
	for _, ev := range b.events {
		switch v := ev.(type) {
		case native.CallUp:
			if v.Key == k {
				c = v.Call
			}
		case native.CallDown:
			if v.Call != nil && v.Call == c {
				c = nil
			}
		}
	}
	return c
}

// say sends a text as if it were an IPv4 packet in a call; false: nothing seals for it.
func (b *box) say(c *calls.Call, text string) bool {
	o := c.Out()
	if o == nil || len(o.Prefix4) == 0 {
		return false
	}
	p := append(append([]byte(nil), o.Prefix4...), text...)
	binary.BigEndian.PutUint16(p[4:], uint16(len(p)))
	b.transmit(o.To, b.seal(o.SA, p, esp.NextUDP))
	return true
}

// find returns events of one kind.
func find[E native.Event](b *box) (all []E) {
	for _, ev := range b.events {
		if v, ok := ev.(E); ok {
			all = append(all, v)
		}
	}
	return all
}
