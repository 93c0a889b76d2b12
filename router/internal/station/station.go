package station

import (
	"context"
	"crypto/ecdh"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"twinkey/directory/client"
	"twinkey/pkg/keybundle"
	"twinkey/pkg/keyfile"
	"twinkey/pkg/netcfg"
	"twinkey/pkg/sealedlogin"
	"twinkey/pkg/tun"
	"twinkey/proto/handshake"
	"twinkey/proto/secret"
	"twinkey/router/internal/admin"
	"twinkey/router/internal/appliance"
	"twinkey/router/internal/authn"
	"twinkey/router/internal/engine"
	"twinkey/router/internal/native"
	"twinkey/router/internal/settings"
	"twinkey/router/internal/trust"
	"twinkey/router/internal/voluntary"
)

// Options are what the command line says.
type Options struct {
	Version string
	User    string
	Local   netip.Addr // to speak to the router from; invalid: the machine's choice
	Peers   []string   // routers to call at once; empty: all that there are, when a packet asks
	Device  string     // name of the interface
	// Keys are the user's own; nil: the directory has some, sealed.
	Keys *keyfile.File
	// Password is asked for once the router has answered, or at once where it is for Keys alone.
	Password func() ([]byte, error)
	// Changed says that the password may be stretched in another way than at the last login.
	Changed bool
	// Say is told what the person in front of the machine may want to see. It must not wait.
	Say func(line string)
}

// How the end of a session is known.
var (
	// ErrEnded says that the session is over: the router in front, or the far end of all calls, has ended it.
	ErrEnded = errors.New("the session has ended")
	// ErrAgain says that there is to be another session, and that what is kept of the password does not do for it: a source of the company
	// wants to see the password itself.
	ErrAgain = errors.New("the router in front has forgotten the session, or sees this machine at another address, and the company asks for the password at each login")
	// errLogout ends a run at the user's wish.
	errLogout = errors.New("logged out")
	// ErrNoMap says that the router in front does not tell what it has to: nothing would go to the sites by a call, and somebody would believe that it does.
	ErrNoMap = errors.New("the router in front has not said which sites there are, with a current CRL, within " + mapTime.String())
	// errAnew says that address or certificate are others now.
	errAnew = errors.New("address or certificate have changed")
)

const (
	farewell = 2 * time.Second  // how long a logout may take
	mapTime  = 30 * time.Second // how long a client waits for a map
)

// Station is a user's own machine that is logged in. It implements admin.Router.
type Station struct {
	o     Options
	home  Home
	set   *settings.Settings
	log   *slog.Logger
	front *voluntary.Client
	proof keybundle.Proof   // of the password; to log in anew
	cost  *keybundle.Params // that the router told; nil: none
	since time.Time
	// patience is how long a run may be without a map.
	patience time.Duration
	dev      tun.Device // which outlasts runs, with the routes out of it
	// certified is what sites are certified for, or were. It is the run's, which has a lock for it, one after the other.
	certified map[netip.Prefix]bool

	again sync.Mutex // one login at a time

	mu      sync.Mutex // guards what follows
	adm     voluntary.Admission
	run     *run  // nil: none
	problem error // with the router in front
	stop    func(cause error)
}

// run is what stands on one address and one certificate.
type run struct {
	s     *Station
	trust *trust.Store
	ports []engine.Port
	eng   *engine.Engine
	asks  sync.WaitGroup // questions to the router in front that are under way
	ctx   context.Context
	stop  context.CancelCauseFunc
	ended chan endedCall

	maps   sync.Mutex    // one map at a time; guards what follows
	sites  []client.Site // that were told last
	unread bool          // they are not in the engine yet
	around *surroundings // in which the engine was told of them; nil: it was not

	mu      sync.Mutex
	cred    native.Credentials
	wanted  map[string]bool   // peers that the engine has
	over    map[string]string // peers whose calls have ended for good, and why
	vouched vouched
}

// endedCall is what the engine says of a call that is wanted no more.
type endedCall struct{ peer, reason string }

// New returns a station that is not logged in. h names router and root.
func New(h Home, o Options, log *slog.Logger) (*Station, error) {
	s, err := settings.Default()
	if err != nil {
		return nil, err
	}
	s.Tun.Name = o.Device
	return &Station{
		o: o, home: h, set: s, log: log, since: time.Now(), front: voluntary.NewClient(h.Router, o.Local, h.Root), patience: mapTime, certified: make(map[netip.Prefix]bool),
	}, nil
}

// Run logs in and stays until ctx ends, the user logs out, or the session is ended: ErrEnded.
func (s *Station) Run(ctx context.Context) (err error) {
	defer s.front.Close()
	l, err := admin.Listen(s.home.Socket())
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	s.stop = stop
	served := make(chan error, 1)
	serveCtx, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	go func() { served <- admin.Serve(serveCtx, l, s) }()
	defer func() {
		stopServing()
		err = errors.Join(err, <-served)
	}()
	seal, err := s.login(ctx)
	if err != nil {
		if errors.Is(context.Cause(ctx), errLogout) {
			return nil // before there was a session
		}
		return err
	}
	defer s.proof.Wipe()
	defer s.logout(ctx)
	if err := s.up(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.dev.Close()) }()
	for {
		err := s.once(ctx, seal)
		switch {
		case errors.Is(err, errAnew):
			s.say("address or certificate have changed: everything begins anew")
		case errors.Is(context.Cause(ctx), errLogout):
			return nil
		default:
			return err
		}
	}
}

func (s *Station) say(format string, a ...any) { s.o.Say(fmt.Sprintf(format, a...)) }

// login asks for the password and proves it, or by the keys that it opens.
func (s *Station) login(ctx context.Context) (seal secret.Key, err error) {
	t, err := s.terms(ctx)
	if err != nil {
		return seal, err
	}
	password, err := s.o.Password()
	if err != nil {
		return seal, err
	}
	defer clear(password)
	if err := s.derive(ctx, password, t); err != nil {
		return seal, err
	}
	var adm voluntary.Admission
	if t.ask {
		adm, err = s.ask(ctx, password, t)
	} else {
		adm, err = s.enter(ctx)
	}
	if err != nil {
		s.proof.Wipe()
		return seal, err
	}
	s.mu.Lock()
	s.adm = adm
	s.mu.Unlock()
	s.say("logged in as %s at router %s, address %s, until %s", s.o.User, adm.Router, adm.Address, adm.Until.Local().Format(time.DateTime))
	return s.proof.Seal, nil
}

// derive makes of the password what is kept of it, if it is known how.
func (s *Station) derive(ctx context.Context, password []byte, t terms) (err error) {
	s.proof.Wipe()
	s.proof = keybundle.Proof{}
	if t.blind {
		return nil
	}
	if s.proof, err = keybundle.NewGate().Derive(ctx, password, t.params); err != nil {
		return fmt.Errorf("deriving the proof of the password: %w", err)
	}
	return nil
}

// terms say what a login takes. Of a password that opens keys of the user's own nobody is asked.
func (s *Station) terms(ctx context.Context) (terms, error) {
	if s.o.Keys != nil {
		return terms{params: s.o.Keys.Params}, nil
	}
	return s.told(ctx)
}

// ask proves the password to whoever knows it, directory or source. A login key that the CA has let go of while the password was typed is
// replaced once; keys that the CA has sealed anew take another proof.
func (s *Station) ask(ctx context.Context, password []byte, t terms) (voluntary.Admission, error) {
	out, err := s.askOnce(ctx, password, t)
	if isCode(err, voluntary.CodeLoginKey) {
		if t, err = s.told(ctx); err != nil {
			return voluntary.Admission{}, err
		}
		if err = s.derive(ctx, password, t); err == nil {
			out, err = s.askOnce(ctx, password, t)
		}
	}
	switch {
	case err != nil:
		return voluntary.Admission{}, err
	case out.Params == nil && t.blind:
		return voluntary.Admission{}, sealedlogin.ErrAnswer // let in without a proof
	case out.Params == nil:
		return *out.Admission, nil
	}
	if err := s.derive(ctx, password, terms{params: *out.Params}); err != nil {
		return voluntary.Admission{}, err
	}
	return s.enter(ctx)
}

// askOnce seals the password and asks. How it is stretched from now on is the CA's word, if there is one.
func (s *Station) askOnce(ctx context.Context, password []byte, t terms) (out voluntary.Asked, err error) {
	var sealed []byte
	var answer secret.Key
	if t.key != nil {
		if sealed, answer, err = sealedlogin.Seal(*t.key, s.front.Router(), s.o.User, password); err != nil {
			return out, err
		}
		defer answer.Wipe()
	}
	var auth secret.Key
	if !t.blind {
		auth = s.proof.Auth
	}
	if out, err = s.front.Ask(ctx, s.o.User, auth, sealed); err == nil && out.Params != nil {
		err = s.confirmed(answer, out)
	}
	return out, err
}

// enter logs in with what is kept of the password: it is shown what proves that, or possession of the keys that it opens.
func (s *Station) enter(ctx context.Context) (voluntary.Admission, error) {
	if s.o.Keys == nil {
		return s.front.Login(ctx, s.o.User, s.proof.Auth)
	}
	k, err := s.o.Keys.Open(s.proof.Seal)
	if err != nil {
		return voluntary.Admission{}, fmt.Errorf("opening the keys of %s: %w", s.o.User, err)
	}
	defer k.Control.Wipe()
	defer k.Data.Wipe()
	control, err := ecdh.X25519().NewPrivateKey(k.Control.Bytes())
	if err != nil {
		return voluntary.Admission{}, fmt.Errorf("control key of %s: %w", s.o.User, err)
	}
	data, err := ecdh.X25519().NewPrivateKey(k.Data.Bytes())
	if err != nil {
		return voluntary.Admission{}, fmt.Errorf("data key of %s: %w", s.o.User, err)
	}
	return s.front.LoginOwn(ctx, s.o.Keys.Certificate, control, data)
}

// credentials opens the keys that adm is for, or those of the user's own.
func (s *Station) credentials(t *trust.Store, adm voluntary.Admission, seal secret.Key) (native.Credentials, error) {
	if s.o.Keys != nil {
		return authn.Own(time.Now(), t, s.o.Keys, seal)
	}
	return authn.Open(time.Now(), t, s.o.User, client.Release{Certificate: adm.Certificate, Sealed: adm.Sealed, Successor: adm.Successor}, seal)
}

// logout tells the router in front, which then vouches no more.
func (s *Station) logout(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
	defer cancel()
	if err := s.front.Logout(ctx, s.admission().Token); err != nil {
		if e, ok := errors.AsType[*voluntary.Error](err); !ok || e.Code != voluntary.CodeToken { // it was over already
			s.log.Warn("router not told of the logout", "error", err)
		}
	}
}

func (s *Station) admission() voluntary.Admission {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.adm
}

// once runs an interface and an engine for the admission that there is.
func (s *Station) once(ctx context.Context, seal secret.Key) (err error) {
	adm := s.admission()
	r := &run{s: s, trust: trust.New(s.set.Security.Staleness), ended: make(chan endedCall, 1024), wanted: make(map[string]bool), over: make(map[string]string)}
	if r.cred, err = s.credentials(r.believe(adm, time.Now()), adm, seal); err != nil {
		return err
	}
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.cred.Control.Private.Wipe()
		r.cred.Data.Private.Wipe()
	}()
	s.remember()
	if len(adm.Close) > 0 {
		if err := r.proveEnd(ctx, adm.Close); err != nil {
			return fmt.Errorf("proving the end of the session beforehand: %w", err)
		}
		s.say("this session's certificate is revoked when the session ends (revoke-on-close): the next login needs another one")
	}
	if err := r.open(adm); err != nil {
		return err
	}
	undo, err := netcfg.Apply(ctx, s.plan(adm.Address))
	if err != nil {
		return errors.Join(fmt.Errorf("setting up %s: %w", s.dev.Name(), err), engine.ClosePorts(r.ports))
	}
	err = r.carry(ctx)
	if left := undo(); left != nil {
		s.log.Warn("address not taken back", "address", adm.Address.String(), "error", left)
	}
	return err
}

// up makes the interface. It is there, with its routes, until the client ends, whatever begins anew: so nothing leaves in the clear in between.
func (s *Station) up(ctx context.Context) (err error) {
	if s.dev, err = appliance.OpenDevice(s.set); err != nil {
		return err
	}
	name := s.dev.Name()
	p := netcfg.Plan{Link: name, MTU: appliance.MTU(s.set), Queue: appliance.DeviceQueue, Up: true, Lasting: true}
	if _, err = netcfg.Apply(ctx, p); err != nil { // what it has done goes with the interface
		return errors.Join(fmt.Errorf("setting up %s: %w", name, err), s.dev.Close())
	}
	return nil
}

// lent is the interface for one engine, which closes what it has.
type lent struct{ tun.Device }

func (lent) Close() error { return nil }

// believe takes over the anchors that hang from our root, and returns a store for our own certificate, with which we have just been let in. Of
// others the run's store believes none before there is a CRL.
func (r *run) believe(adm voluntary.Admission, now time.Time) (own *trust.Store) {
	candidates := r.s.front.Chain()
	for _, der := range adm.Intermediates {
		if c, err := x509.ParseCertificate(der); err == nil {
			candidates = append(slices.Clip(candidates), c)
		}
	}
	roots := []*x509.Certificate{r.s.home.Root}
	inter := voluntary.Intermediates(r.s.home.Root, candidates, now)
	own = trust.New(r.s.set.Security.Staleness)
	own.SetAnchors(roots, inter)
	own.Heard(now)
	r.trust.SetAnchors(roots, inter)
	return own
}

// open makes sockets and engine.
func (r *run) open(adm voluntary.Admission) (err error) {
	dev := lent{r.s.dev}
	r.ports, err = engine.OpenPorts(dev.Queues(), netip.AddrPortFrom(netip.IPv6Unspecified(), 0)) // IPv4 too
	if err != nil {
		r.ports, err = engine.OpenPorts(dev.Queues(), netip.AddrPortFrom(netip.IPv4Unspecified(), 0)) // a kernel without IPv6
	}
	if err != nil {
		return err
	}
	r.eng, err = engine.New(engine.Config{
		Device: dev, Ports: r.ports, Trust: r.trust, Log: r.s.log, Name: r.s.o.User, Native: appliance.Native(r.s.set, dev),
		Install: func(remote, withheld []netip.Prefix) error { return r.install(remote, withheld, adm.Address) },
		Record:  r.record, Ended: r.callEnded,
	})
	if err != nil {
		return errors.Join(err, engine.ClosePorts(r.ports))
	}
	return nil
}

// plan gives the interface the user's address, unless the machine has it on another.
func (s *Station) plan(a netip.Addr) netcfg.Plan {
	p := netcfg.Plan{Link: s.dev.Name()}
	host := netip.PrefixFrom(a, a.BitLen())
	if own, err := netcfg.Within([]netip.Prefix{host}); err != nil || len(own) == 0 {
		p.Addresses = []netip.Prefix{host}
	}
	return p
}

// carry runs the engine, and follows the router in front, until one of them ends.
func (r *run) carry(outer context.Context) error {
	ctx, stop := context.WithCancelCause(outer)
	defer stop(nil)
	r.ctx, r.stop = ctx, stop
	engineCtx, stopEngine := context.WithCancel(context.WithoutCancel(outer))
	engineDone := make(chan error, 1)
	go func() {
		err := r.eng.Run(engineCtx)
		stop(err)
		engineDone <- err
	}()
	var wg sync.WaitGroup
	err := r.eng.SetSelf(ctx, native.Self{Signer: r})
	if err == nil {
		err = r.hold(ctx)
	}
	if err == nil {
		wg.Go(func() { stop(r.follow(ctx)) })
		wg.Go(func() { r.awaitMap(ctx) })
		wg.Go(func() { r.watchCalls(ctx) })
		wg.Go(func() { trust.NewWatch(r.trust, r.s.log).Run(ctx) })
		wg.Go(func() { r.renew(ctx) })
		wg.Go(func() { r.lookAround(ctx) })
		<-ctx.Done()
		err = context.Cause(ctx)
	}
	stop(err)
	wg.Wait()
	r.s.mu.Lock()
	r.s.run = nil
	r.s.mu.Unlock()
	_ = r.eng.Abandon(context.WithoutCancel(ctx), "logged out") // an engine that has failed has let go of everything
	stopEngine()
	failed := <-engineDone
	r.asks.Wait()
	if errors.Is(err, context.Canceled) {
		err = nil // told to stop
	}
	if failed != nil && !errors.Is(err, failed) {
		err = errors.Join(err, failed)
	}
	return err
}

// credentials are copies that the engine may wipe.
func (r *run) credentials() (native.Credentials, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := native.Credentials{Certificate: r.cred.Certificate}
	var err error
	if c.Control, err = handshake.NewKeyPair(secret.Copy(r.cred.Control.Private.Bytes())); err == nil {
		c.Data, err = handshake.NewKeyPair(secret.Copy(r.cred.Data.Private.Bytes()))
	}
	return c, err
}
