package sitemap

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"twinkey/directory/client"
	"twinkey/pkg/twincert"
	"twinkey/router/internal/native"
	"twinkey/router/internal/trust"
)

// Limits of the back-off after the directory was lost. A router that was cut off wants to
// learn of revocations soon; hundreds of them must not return at once.
const (
	firstRetry = 500 * time.Millisecond
	lastRetry  = 15 * time.Second
	// silence is how long a stream may say nothing: heartbeats come every 5 seconds.
	silence = 20 * time.Second
	// refresh is how often the CRL is fetched, which carries us when the directory is gone.
	refresh = 10 * time.Minute
	// fallBackEvery is how often the CA is asked for its CRL while the directory is away: what it revokes then the routers learn from there.
	fallBackEvery = 20 * time.Second
)

var errSilent = errors.New("the watch stream fell silent")

// Sink takes what is learnt.
type Sink struct {
	Peers   func(ctx context.Context, peers []native.Peer, refused []native.Refusal) error
	Revoked func(ctx context.Context, ids ...twincert.ID) error
	// Cut is Revoked by the CA's CRL alone, while the directory is away, which would have said whether there are newer certificates: calls end
	// as well, logins are for Revoked to end.
	Cut func(ctx context.Context, ids ...twincert.ID) error
	// Sites and CRL take what Peers was made of and each CRL that was believed, for whoever wants to verify them
	// again. Nil: nobody does.
	Sites func([]client.Site)
	CRL   func(der []byte)
	// Certified says that a user has another certificate; empty: anybody may, since some of the news was missed. It must not wait.
	Certified func(uid string)
	// Overtake is told what is revoked before calls end for it: users of whom a certificate is among that may have a newer one, of which was
	// heard no sooner.
	Overtake func(ctx context.Context, revoked []twincert.ID)
}

// Follower keeps the picture. Run it on one goroutine; Problem may be asked from any.
type Follower struct {
	dir      *client.Client
	self     string
	trust    *trust.Store
	announce func() (endpoint string, prefixes []netip.Prefix)
	sink     Sink
	log      *slog.Logger
	// FromCA fetches the CRL from the CA itself, which is asked while the directory is away; nil: nobody is. Set it before Run.
	FromCA func(ctx context.Context) ([]byte, error)

	mu      sync.Mutex
	problem error

	sites    map[string]client.Site // belongs to Run
	fellBack fallBack               // belongs to Run
	kick     chan struct{}
}

// New returns a follower for the router called self; announce yields what it tells the
// others of itself.
func New(dir *client.Client, self string, t *trust.Store, announce func() (string, []netip.Prefix), sink Sink, log *slog.Logger) *Follower {
	return &Follower{dir: dir, self: self, trust: t, announce: announce, sink: sink, log: log, sites: make(map[string]client.Site), kick: make(chan struct{}, 1)}
}

// Again makes the follower announce and fetch anew: the configuration has changed.
func (f *Follower) Again() {
	select {
	case f.kick <- struct{}{}:
	default:
	}
}

// Problem is why the directory cannot be followed at the moment, or nil.
func (f *Follower) Problem() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.problem
}

// note remembers err and logs when it begins and when it is over.
func (f *Follower) note(err error) {
	f.mu.Lock()
	was := f.problem
	f.problem = err
	f.mu.Unlock()
	switch {
	case err != nil && (was == nil || was.Error() != err.Error()):
		f.log.Warn("directory lost", "error", err)
	case err == nil && was != nil:
		f.log.Info("directory found again")
	}
}

// Run follows until ctx ends.
func (f *Follower) Run(ctx context.Context) {
	wait := firstRetry
	for ctx.Err() == nil {
		began := time.Now()
		err := f.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			f.note(err)
			f.fallBack(ctx)
		}
		if time.Since(began) > lastRetry {
			wait = firstRetry
		}
		if err == nil { // asked to begin again
			continue
		}
		select {
		case <-time.After(wait + rand.N(wait/4)): //nolint:gosec // spreading load is no secret
		case <-f.kick:
		case <-ctx.Done():
		}
		wait = min(2*wait, lastRetry)
	}
}

// follow fetches the whole picture and then takes changes as they come. It returns nil
// when it was asked to begin again.
func (f *Follower) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	endpoint, prefixes := f.announce()
	if err := f.dir.Announce(ctx, endpoint, prefixes); err != nil {
		return fmt.Errorf("announcing ourselves to the directory: %w", err)
	}
	since, err := f.fetch(ctx)
	if err != nil {
		return err
	}
	f.note(nil)
	f.fellBack = fallBack{}
	quiet := time.AfterFunc(silence, func() { cancel(errSilent) })
	defer quiet.Stop()
	again := make(chan struct{})
	go func() { // ends with ctx
		select {
		case <-f.kick:
			close(again)
			cancel(nil)
		case <-ctx.Done():
		}
	}()
	lastCRL := time.Now()
	for ev, err := range f.dir.Watch(ctx, since) {
		if err != nil {
			break
		}
		quiet.Reset(silence)
		f.trust.Heard(time.Now())
		if err := f.event(ctx, ev); err != nil {
			return err
		}
		if time.Since(lastCRL) >= refresh {
			lastCRL = time.Now()
			f.crl(ctx)
		}
	}
	select {
	case <-again:
		return nil
	default:
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return errors.New("the directory ended the watch stream")
}

// fetch takes the whole picture and returns its revision.
func (f *Follower) fetch(ctx context.Context) (uint64, error) {
	revoked, err := f.dir.Revoked(ctx)
	if err != nil {
		return 0, fmt.Errorf("fetching revocations: %w", err)
	}
	ids := make([]twincert.ID, 0, len(revoked))
	for _, r := range revoked {
		ids = append(ids, r.ID)
	}
	f.trust.Revoke(ids...) // nothing of it is believed from here on
	f.trust.Heard(time.Now())
	f.sink.Certified("")
	f.sink.Overtake(ctx, ids)
	if err := f.sink.Revoked(ctx, ids...); err != nil {
		return 0, err
	}
	f.crl(ctx)
	sites, rev, err := f.dir.Sites(ctx)
	if err != nil {
		return 0, fmt.Errorf("fetching the site map: %w", err)
	}
	clear(f.sites)
	for _, s := range sites {
		f.sites[s.Name] = s
	}
	return rev, f.publish(ctx)
}

func (f *Follower) crl(ctx context.Context) {
	der, err := f.dir.CRL(ctx)
	if err == nil && len(der) > 0 {
		err = f.trust.SetCRL(der, time.Now())
		if err == nil && f.sink.CRL != nil {
			f.sink.CRL(der)
		}
	}
	if err != nil && ctx.Err() == nil {
		f.log.Warn("crl not taken", "error", err)
	}
}

func (f *Follower) event(ctx context.Context, ev client.Event) error {
	switch ev.Kind {
	case client.KindRevoked:
		if ev.Revoked == nil {
			return nil
		}
		f.log.Info("revocation heard", "certificate", ev.Revoked.ID.String(), "name", ev.Revoked.Name, "reason", ev.Revoked.Reason)
		f.trust.Revoke(ev.Revoked.ID) // it is not believed from here on
		f.sink.Overtake(ctx, []twincert.ID{ev.Revoked.ID})
		if err := f.sink.Revoked(ctx, ev.Revoked.ID); err != nil {
			return err
		}
		if s, ok := f.sites[ev.Revoked.Name]; ok && s.ID == ev.Revoked.ID {
			delete(f.sites, ev.Revoked.Name)
			return f.publish(ctx)
		}
		return nil
	case client.KindSite:
		if ev.Site == nil {
			return nil
		}
		f.sites[ev.Site.Name] = *ev.Site
		return f.publish(ctx)
	case client.KindCertificate:
		if n := ev.Certificate; n != nil && n.Role == twincert.User {
			f.sink.Certified(n.Name)
		}
	case client.KindCRL:
		f.crl(ctx)
	case client.KindSync:
		if ev.Reset {
			_, err := f.fetch(ctx)
			return err
		}
	default:
	}
	return nil
}

// publish turns the picture into peers, as far as certificates bear it out.
func (f *Follower) publish(ctx context.Context) error {
	others := make([]client.Site, 0, len(f.sites))
	for _, name := range slices.Sorted(maps.Keys(f.sites)) {
		if name != f.self {
			others = append(others, f.sites[name])
		}
	}
	if f.sink.Sites != nil {
		f.sink.Sites(others)
	}
	peers, refused := Believe(time.Now(), f.trust, others)
	return f.sink.Peers(ctx, peers, refused)
}

// Believe turns what is said of sites into peers, as far as their certificates bear it out; what they do not is refused.
func Believe(now time.Time, t *trust.Store, sites []client.Site) (peers []native.Peer, refused []native.Refusal) {
	for _, s := range sites {
		p, r, err := peer(now, t, s)
		refused = append(refused, r...)
		if err != nil {
			refused = append(refused, native.Refusal{Peer: s.Name, What: "site", Reason: err.Error()})
			continue
		}
		peers = append(peers, p)
	}
	return peers, refused
}

func peer(now time.Time, t *trust.Store, s client.Site) (p native.Peer, refused []native.Refusal, err error) {
	c, err := t.Twin(now, s.Certificate, twincert.Router)
	if err != nil {
		return p, nil, err
	}
	if c.Name != s.Name {
		return p, nil, fmt.Errorf("its certificate names %s", c.Name)
	}
	p = native.Peer{Name: s.Name, Certified: c.Prefixes, Scope: c.Scope, ID: c.ID()}
	if s.Endpoint != "" {
		if p.Endpoint, err = netip.ParseAddrPort(s.Endpoint); err != nil {
			refused = append(refused, native.Refusal{Peer: s.Name, What: s.Endpoint, Reason: "no address and port"})
		}
	}
	for _, prefix := range s.Prefixes {
		if !c.Covers(prefix) {
			refused = append(refused, native.Refusal{Peer: s.Name, What: prefix.String(), Reason: "no certificate covers it"})
			continue
		}
		p.Announced = append(p.Announced, prefix)
	}
	return p, refused, nil
}
