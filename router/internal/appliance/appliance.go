package appliance

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	caclient "twinkey/ca/client"
	"twinkey/directory/client"
	"twinkey/pkg/identity"
	"twinkey/pkg/keybundle"
	"twinkey/pkg/limit"
	"twinkey/pkg/netcfg"
	"twinkey/pkg/tun"
	"twinkey/proto/esp"
	"twinkey/proto/handshake"
	"twinkey/proto/secret"
	"twinkey/router/internal/accounting"
	"twinkey/router/internal/admin"
	"twinkey/router/internal/authn"
	"twinkey/router/internal/calls"
	"twinkey/router/internal/closing"
	"twinkey/router/internal/engine"
	"twinkey/router/internal/keylog"
	"twinkey/router/internal/native"
	"twinkey/router/internal/renewal"
	"twinkey/router/internal/settings"
	"twinkey/router/internal/sitemap"
	"twinkey/router/internal/succession"
	"twinkey/router/internal/trust"
	"twinkey/router/internal/voluntary"
)

// lullAfter is how long after the last call came or went the memory is given back that it took. What a thousand handshakes leave
// behind would otherwise stay with the process until the collector's next turn, minutes later.
const lullAfter = 10 * time.Second

// ErrUncovered says that the configuration announces what no certificate covers.
var ErrUncovered = errors.New("no certificate covers the prefix")

// Options are what the command line adds to the configuration.
type Options struct {
	Version string
	KeyLog  string // path; empty: no key log
	// Load reads the configuration again.
	Load func() (*settings.Settings, error)
}

// Appliance is a running router. It implements admin.Router.
type Appliance struct {
	o     Options
	log   *slog.Logger
	id    *identity.Identity
	ends  Endpoints
	trust *trust.Store
	gate  *keybundle.Gate
	asks  *semaphore.Weighted // of the CA, about passwords
	dir   *client.Client
	tries *limit.Failures // of passwords, at the portal and by clients
	dev   tun.Device
	ports []engine.Port
	eng   *engine.Engine
	sites *sitemap.Follower
	calls *accounting.Reporter
	desk  *voluntary.Server // of users' own machines; nil: this router serves none
	ended *closing.Queue
	users *succession.Keeper
	keys  *keylog.File
	lull  *time.Timer // gives memory back
	since time.Time
	web   *web // nil: no portal

	set atomic.Pointer[settings.Settings]

	reloading sync.Mutex // one at a time, so that what was read last is what holds

	mu      sync.Mutex // guards what the site map said last
	peers   []native.Peer
	refused []native.Refusal
}

// New opens everything that may fail and undoes it where something does.
func New(s *settings.Settings, o Options, log *slog.Logger) (a *Appliance, err error) {
	id, err := identity.Load(s.IdentityDir())
	if err != nil {
		return nil, err
	}
	if id.Role() != "router" {
		return nil, fmt.Errorf("the identity in %s is that of a %s, not of a router", s.IdentityDir(), id.Role())
	}
	ends, err := LoadEndpoints(s)
	if err != nil {
		return nil, err
	}
	a = &Appliance{o: o, log: log, id: id, ends: ends, gate: keybundle.NewGate(), asks: semaphore.NewWeighted(maxAsks), tries: newTries(), lull: time.AfterFunc(lullAfter, debug.FreeOSMemory), since: time.Now()}
	a.set.Store(s)
	if err := a.covered(s); err != nil {
		return nil, err
	}
	a.trust = trust.New(s.Security.Staleness)
	b := id.Bundle()
	a.trust.SetAnchors(b.Roots, b.Intermediates)
	if o.KeyLog != "" {
		if a.keys, err = keylog.Open(o.KeyLog); err != nil {
			return nil, err
		}
		log.Warn("key log is on: who reads the file reads the traffic", "file", o.KeyLog)
	}
	if a.ended, err = closing.Open(a.closingConfig(s)); err == nil {
		err = a.open(s)
	}
	if err != nil {
		return nil, errors.Join(err, a.close())
	}
	a.dir = client.New(ends.Directory, id.ClientTLS("twinkey://directory"))
	a.calls = accounting.New(a.dir.ReportCalls, rand.Text(), log)
	a.users = a.newUsers()
	sink := sitemap.Sink{Peers: a.takePeers, Revoked: a.eng.Revoke, Cut: a.eng.Cut, Certified: a.users.Heard, Overtake: a.users.Overtake}
	if s.Clients.Listen.IsValid() {
		a.desk = a.newDesk(s)
		sink.Sites, sink.CRL, sink.Revoked = a.desk.Sites, a.desk.CRL, a.revoke
	}
	a.sites = sitemap.New(a.dir, id.Name(), a.trust, a.announce, sink, log)
	a.sites.FromCA = func(ctx context.Context) ([]byte, error) { return caclient.FetchCRL(ctx, ends.CA, id) }
	return a, nil
}

// open makes interface, sockets and engine.
func (a *Appliance) open(s *settings.Settings) (err error) {
	if a.dev, err = OpenDevice(s); err != nil {
		return err
	}
	if a.ports, err = engine.OpenPorts(a.dev.Queues(), s.Listen); err != nil {
		return err
	}
	n := Native(s, a.dev)
	n.KeyLog = a.keyLog
	a.eng, err = engine.New(engine.Config{
		Device: a.dev, Ports: a.ports, Trust: a.trust, Log: a.log, Name: a.id.Name(), Install: a.install, Policy: s.Policy, Record: a.record, Closed: a.ended.Add, Native: n,
		ClosedGuest: func(end engine.Ending) { a.ended.AddProved(end.Certificate, end.Proof) },
	})
	return err
}

// closingConfig is how the CA is told of ended sessions.
func (a *Appliance) closingConfig(s *settings.Settings) closing.Config {
	return closing.Config{
		Path: filepath.Join(s.State, "closing.json"), Router: a.id.Name(), Log: a.log,
		Wanted: func() bool { return a.set.Load().Policy.RevokesOnClose() },
		Key: func(ctx context.Context) (*ecdh.PublicKey, error) {
			return caclient.FetchCloseKey(ctx, a.ends.CA, a.id)
		},
		Tell: func(ctx context.Context, closed []caclient.Closed) ([]string, error) {
			return caclient.Close(ctx, a.ends.CA, a.id, closed)
		},
	}
}

// Native is what the configuration says of tunnels and calls over a device.
func Native(s *settings.Settings, dev tun.Device) native.Config {
	return native.Config{
		Rand:   rand.Reader,
		Suites: s.Suites, Hybrid: s.Security.PostQuantum, Capabilities: capabilities(s, dev), MRU: uint16(MTU(s)),
		Compression: s.Data.Compression == "lz4",
		Hello:       s.Keepalive.Hello, Echo: s.Keepalive.Echo, NAT: s.Keepalive.NAT,
		RekeyTime: s.Security.RekeyTime, RekeyBytes: s.Security.RekeyBytes, RekeyPackets: s.Security.RekeyPackets, RekeyGrace: s.Security.RekeyGrace,
	}
}

// OpenDevice makes the TUN interface as tun.device wants it.
func OpenDevice(s *settings.Settings) (tun.Device, error) {
	queues := s.Tun.Queues
	if queues == 0 {
		queues = runtime.NumCPU()
	}
	switch s.Tun.Device {
	case "water":
		return tun.OpenWater(s.Tun.Name)
	case "offload":
		return tun.OpenOffload(s.Tun.Name, queues)
	}
	return tun.Open(s.Tun.Name, queues)
}

// capabilities are what peers may send us. Only a device with virtio-net headers completes checksums.
func capabilities(s *settings.Settings, dev tun.Device) (c calls.Capabilities) {
	if s.Data.Headers == "compact" {
		c |= calls.Bare | calls.ImplicitIV | calls.ShortIPv4
	}
	if dev.Kind() == "offload" {
		c |= calls.Checksums
	}
	return c
}

func (a *Appliance) close() error {
	a.lull.Stop()
	errs := []error{engine.ClosePorts(a.ports)}
	if a.dev != nil {
		errs = append(errs, a.dev.Close())
	}
	return errors.Join(append(errs, a.keys.Close())...)
}

func (a *Appliance) keyLog(spi uint32, s esp.Suite, key secret.Key) {
	if err := a.keys.Log(spi, s, key); err != nil {
		a.log.Error("key log not written", "error", err)
	}
}

// covered refuses prefixes that our own certificate does not cover.
func (a *Appliance) covered(s *settings.Settings) error {
	twin := a.id.Bundle().Twin
	for key, a := range map[string]netip.AddrPort{"portal.listen": s.PortalListen, "portal.http": s.PortalHTTP} {
		if a.IsValid() && !twin.Covers(netip.PrefixFrom(a.Addr(), a.Addr().BitLen())) {
			return fmt.Errorf("%s: %w: %s (the portal is for the LAN: take an address that this box has there, within %v)", key, ErrUncovered, a.Addr(), twin.Prefixes)
		}
	}
	for _, p := range s.Prefixes {
		if !twin.Covers(p) {
			return fmt.Errorf("site.prefixes: %w: %s (the certificate of %s covers %v; have the CA enrol this router anew for more)", ErrUncovered, p, twin.Name, twin.Prefixes)
		}
	}
	return nil
}

// self is who we are now, as native wants it.
func (a *Appliance) self() (native.Self, error) {
	b := a.id.Bundle()
	control, err := handshake.NewKeyPair(b.Control)
	if err != nil {
		return native.Self{}, fmt.Errorf("reading the control key: %w", err)
	}
	data, err := handshake.NewKeyPair(b.Data)
	if err != nil {
		return native.Self{}, fmt.Errorf("reading the data key: %w", err)
	}
	return native.Self{
		Credentials: native.Credentials{Certificate: b.Twin, Control: control, Data: data},
		Signer:      native.LocalSigner{Router: b.TLS.Certificate[0], By: func(digest []byte) ([]byte, error) { return a.id.SignHandshake(rand.Reader, digest) }},
	}, nil
}

// announce is what the directory is told of us.
func (a *Appliance) announce() (string, []netip.Prefix) {
	s := a.set.Load()
	endpoint := ""
	if p := s.Public; p.IsValid() {
		endpoint = p.String()
	}
	return endpoint, s.Prefixes
}

// takePeers passes what the site map says to the engine.
func (a *Appliance) takePeers(ctx context.Context, peers []native.Peer, refused []native.Refusal) error {
	a.mu.Lock()
	a.peers, a.refused = peers, refused
	a.mu.Unlock()
	return a.pushMap(ctx)
}

func (a *Appliance) pushMap(ctx context.Context) error {
	s := a.set.Load()
	a.mu.Lock()
	m := engine.Map{Local: s.Prefixes, Public: s.Public.IsValid(), Demand: s.Site.Links == "demand", Wanted: s.WantsPeer, Peers: a.peers, Refused: a.refused}
	a.mu.Unlock()
	return a.eng.SetMap(ctx, m)
}

// install brings the kernel's routes in line with what peers are certified for. A router withholds nothing: what is beside its LAN is the
// operator's to say.
func (a *Appliance) install(remote, _ []netip.Prefix) error {
	var src4, src6 netip.Addr
	own, err := netcfg.Within(a.id.Bundle().Twin.Prefixes)
	if err != nil {
		return err
	}
	for _, addr := range own {
		if addr.Is4() && !src4.IsValid() {
			src4 = addr
		} else if addr.Is6() && !src6.IsValid() {
			src6 = addr
		}
	}
	routes := make([]netcfg.Route, 0, len(remote))
	for _, p := range remote {
		r := netcfg.Route{Dst: p, Src: src4}
		if p.Addr().Is6() {
			r.Src = src6
		}
		routes = append(routes, r)
	}
	return netcfg.Update(context.Background(), a.dev.Name(), routes)
}

// DeviceQueue is how many packets or trains may wait in each queue of the interface: 15 ms of 130,000 packets a second, for when a worker
// has to wait for a core. The kernel's own 500 are not enough for that.
const DeviceQueue = 2000

// Run runs the router until ctx ends or a part of it fails.
func (a *Appliance) Run(ctx context.Context) (err error) {
	s := a.set.Load()
	l, err := admin.Listen(s.Socket())
	if err != nil {
		return errors.Join(err, a.close())
	}
	var clients net.Listener
	if a.desk != nil {
		if clients, err = voluntary.Listen(s.Clients.Listen); err != nil {
			return errors.Join(err, l.Close(), a.close())
		}
	}
	unserved := func() error {
		if clients == nil {
			return a.web.close()
		}
		return errors.Join(a.web.close(), clients.Close())
	}
	if err := a.openPortal(ctx, s); err != nil {
		return errors.Join(err, l.Close(), unserved(), a.close())
	}
	undo, err := netcfg.Apply(ctx, netcfg.Plan{Link: a.dev.Name(), MTU: MTU(s), Queue: DeviceQueue, Up: true})
	if err != nil {
		return errors.Join(fmt.Errorf("setting up %s: %w", a.dev.Name(), err), l.Close(), unserved(), a.close())
	}
	a.warnForwarding()
	undo = a.joinTrains(s, undo)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	// The engine ends after the others: they speak to it to their last word.
	engineCtx, stopEngine := context.WithCancel(context.WithoutCancel(ctx))
	engineDone := make(chan error, 1)
	// Records of calls are delivered, and sessions said to have ended, after the engine's last word.
	tellCtx, stopTelling := context.WithCancel(context.WithoutCancel(ctx))
	var telling sync.WaitGroup
	telling.Go(func() { a.calls.Run(tellCtx) })
	telling.Go(func() { a.ended.Run(tellCtx) })
	go func() {
		err := a.eng.Run(engineCtx)
		cancel(err)
		engineDone <- err
	}()
	defer func() {
		wg.Wait()
		stopEngine()
		if failed := <-engineDone; !errors.Is(err, failed) {
			err = errors.Join(err, failed)
		}
		stopTelling()
		telling.Wait()
		err = errors.Join(err, undo(), a.keys.Close())
	}()
	if err := a.pushSelf(ctx); err != nil {
		cancel(err)
		return errors.Join(err, unserved())
	}
	wg.Go(func() { a.sites.Run(ctx) })
	wg.Go(func() { trust.NewWatch(a.trust, a.log).Run(ctx) })
	wg.Go(func() { a.keeper().Run(ctx) })
	if clients != nil {
		wg.Go(func() {
			if err := a.desk.Serve(ctx, clients, a.id.ServerTLS()); err != nil {
				cancel(err)
			}
		})
	}
	if a.web != nil {
		wg.Go(func() {
			if err := a.web.run(ctx); err != nil {
				cancel(err)
			}
		})
	}
	wg.Go(func() { a.keepInterim(ctx) })
	wg.Go(func() { a.users.Run(ctx) })
	wg.Go(func() {
		if err := admin.Serve(ctx, l, a); err != nil {
			cancel(err)
		}
	})
	a.log.Info("router up", "name", a.id.Name(), "version", a.o.Version, "listen", a.ports[0].Conn.LocalAddr().String(), "device", a.dev.Name(), "kind", a.dev.Kind(), "mtu", MTU(s))
	<-ctx.Done()
	a.log.Info("router stops")
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause // a part of it failed
	}
	return nil
}

func (a *Appliance) pushSelf(ctx context.Context) error {
	self, err := a.self()
	if err != nil {
		return err
	}
	return a.eng.SetSelf(ctx, self)
}

func (a *Appliance) warnForwarding() {
	if v4, _, err := netcfg.Forwarding(); err == nil && !v4 {
		a.log.Warn("this box does not forward packets: only its own reach the other sites", "hint", "sysctl -w net.ipv4.ip_forward=1")
	}
}

// joinTrains has the LAN's interfaces join what they receive, and adds to undo. A LAN without is slower, no more.
func (a *Appliance) joinTrains(s *settings.Settings, undo func() error) func() error {
	if !s.Lan.Offload {
		return undo
	}
	links, back, err := netcfg.JoinTrains(s.Prefixes)
	if err != nil {
		a.log.Warn("receive offloads of the LAN stay off", "error", err, "hint", "set lan.offload to false to leave them alone")
	}
	if len(links) > 0 {
		a.log.Info("receive offloads of the LAN switched on", "interfaces", links)
	}
	return func() error { return errors.Join(undo(), back()) }
}

func (a *Appliance) keeper() *renewal.Keeper {
	return &renewal.Keeper{
		ID:   a.id,
		Log:  a.log,
		At:   func() float64 { return a.set.Load().Renewal.At },
		Warn: func() time.Duration { return a.set.Load().Renewal.Warn },
		Renew: func(ctx context.Context) (identity.Bundle, error) {
			return caclient.Renew(ctx, a.ends.CA, a.id, caclient.Options{})
		},
		Renewed: func(ctx context.Context) error {
			b := a.id.Bundle()
			a.trust.SetAnchors(b.Roots, b.Intermediates)
			a.dir.CloseIdle()
			return a.pushSelf(ctx)
		},
	}
}

// newUsers makes what keeps the certificates of users who are logged in.
func (a *Appliance) newUsers() *succession.Keeper {
	return succession.New(succession.Config{
		Users: a.eng.Users,
		Ask:   a.dir.Successors,
		Succeed: func(ctx context.Context, u engine.User, s client.Successor) error {
			if u.Guest != nil {
				return a.desk.Succeed(ctx, u, s) // there are no guests without a desk
			}
			return a.eng.Succeed(ctx, u, func(data secret.Key) (native.Credentials, error) {
				return authn.Succeed(time.Now(), a.trust, u.Key.User, data, s)
			})
		},
		Warn: func() time.Duration { return a.set.Load().Renewal.Users },
		Log:  a.log,
	})
}

// Reload reads the configuration again and takes over what can change while calls are up.
func (a *Appliance) Reload(ctx context.Context) error {
	a.reloading.Lock()
	defer a.reloading.Unlock()
	s, err := a.o.Load()
	if err == nil {
		err = a.covered(s)
	}
	if err == nil {
		err = settings.Reloadable(a.set.Load(), s)
	}
	if err != nil {
		a.log.Error("configuration not reloaded", "error", err)
		return &admin.Error{Kind: admin.KindConfig, What: err.Error(), Hint: "the router goes on with the configuration that it had"}
	}
	a.set.Store(s)
	a.trust.SetBound(s.Security.Staleness)
	a.sites.Again()
	a.ended.Again()
	if err := a.eng.SetPolicy(ctx, s.Policy); err != nil {
		return err
	}
	if a.desk != nil {
		a.desk.Policy(s.Policy)
	}
	a.log.Info("configuration reloaded")
	return a.pushMap(ctx)
}

var _ admin.Router = (*Appliance)(nil)
