package engine

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"twinkey/pkg/tun"
	"twinkey/pkg/twincert"
	"twinkey/proto/esp"
	"twinkey/router/internal/calls"
	"twinkey/router/internal/links"
	"twinkey/router/internal/native"
	"twinkey/router/internal/policy"
	"twinkey/router/internal/trust"
)

// Lengths of the queues into the control loop. A full queue drops and counts: what is
// lost is repeated by L2TP or PPP, and the data path never waits for control.
const (
	controlQueue  = 4096
	strangerQueue = 512
	demandQueue   = 64
)

// ErrStopped says that the engine has ended.
var ErrStopped = errors.New("the router is stopping")

// Config is what an Engine works with.
type Config struct {
	Device tun.Device
	Ports  []Port // one for each worker; control messages leave through the first
	Trust  *trust.Store
	Log    *slog.Logger
	Name   string // of this router
	// Policy is what users may do at first; nil: nothing.
	Policy *policy.Policy
	// Native is passed on; Table, Epoch, Self, Peer, Local and Policy are the engine's to set.
	Native native.Config
	// Record is told when a call has come up or ended, in the control loop: it must not wait. Nil: nobody is.
	Record func(CallEvent)
	// Ended is told when a user's call that was wanted is wanted no more, in the control loop: it must not wait. Nil: nobody is.
	Ended func(k links.Key, reason string)
	// Closed is handed a user's credentials when the last login here that stands on their certificate is over and the
	// policy wants it revoked then. It runs in the control loop and must not wait; the keys are wiped when it returns.
	// Nil: nobody is told.
	Closed func(native.Credentials)
	// ClosedGuest is the same for a guest, who has proved the end beforehand. Nil: nobody is told.
	ClosedGuest func(Ending)
	// Install brings the kernel's routes into the TUN interface to these destinations: what peers are certified for, and what Map has
	// withheld.
	Install func(remote, withheld []netip.Prefix) error
}

// Engine runs a router. Its methods are safe for concurrent use while Run runs.
type Engine struct {
	c     Config
	epoch time.Time
	table *calls.Table
	drops Drops
	// withheld is that of the Map.
	withheld atomic.Pointer[[]netip.Prefix]

	control chan message
	// strangers is the queue of what anybody can send: it never displaces what an
	// association has authenticated.
	strangers chan message
	demand    chan netip.Addr
	tasks     chan func(now time.Time)
	stopped   chan struct{}

	// What follows belongs to the control loop.
	native *native.Endpoint
	links  *links.Set
	state  state
}

// state is what the control loop knows beside the machines.
type state struct {
	self     native.Self
	policy   *policy.Policy
	local    []netip.Prefix
	public   bool // peers can dial us
	demand   bool // open site links when a packet asks
	peers    map[string]native.Peer
	wanted   func(peer string) bool
	refused  []native.Refusal
	users    map[links.Key]native.Wish
	guests   map[netip.Addr]*Guest     // users whose own machines we vouch for
	open     map[twincert.ID]bool      // certificates of users that calls from here stood on: to be revoked on close?
	doubted  map[twincert.ID]time.Time // until when logins outlast their revoked certificates: see unheard and Cut
	waiting  map[links.Key][]func(*calls.Call, error)
	active   map[uint64]Active
	tunnels  map[uint16]native.TunnelUp
	retiring map[uint64]time.Time    // calls that end at a time, because another took over
	replace  map[links.Key]time.Time // calls that are to be replaced at a time
}

// Active is a call that is up.
type Active struct {
	Call      *calls.Call
	Key       links.Key
	Initiator bool
	Since     time.Time
}

// CallEvent is the beginning or the end of a call, or what it has carried in between.
type CallEvent struct {
	Active
	At     time.Time
	Up     bool
	Still  bool      // it goes on: see Interim
	Suite  esp.Suite // of one that came up
	Reason string    // of one that ended
	Cause  calls.Cause
}

// New returns an engine that is ready to Run.
func New(c Config) (*Engine, error) {
	e := &Engine{
		c: c, epoch: time.Now(), table: calls.NewTable(),
		control: make(chan message, controlQueue), strangers: make(chan message, strangerQueue), demand: make(chan netip.Addr, demandQueue),
		tasks: make(chan func(time.Time)), stopped: make(chan struct{}),
	}
	var seed [8]byte
	if _, err := rand.Read(seed[:]); err != nil {
		return nil, fmt.Errorf("seeding the back-off: %w", err)
	}
	e.links = links.New(binary.BigEndian.Uint64(seed[:]))
	e.state = state{
		peers: make(map[string]native.Peer), users: make(map[links.Key]native.Wish), guests: make(map[netip.Addr]*Guest),
		waiting: make(map[links.Key][]func(*calls.Call, error)), active: make(map[uint64]Active),
		open: make(map[twincert.ID]bool), doubted: make(map[twincert.ID]time.Time),
		tunnels: make(map[uint16]native.TunnelUp), retiring: make(map[uint64]time.Time), replace: make(map[links.Key]time.Time),
		wanted: func(string) bool { return true }, policy: c.Policy,
	}
	n := c.Native
	n.Table, n.Epoch, n.Trust = e.table, e.epoch, c.Trust
	n.Self = func() native.Self { return e.state.self }
	n.Peer = func(name string) (native.Peer, bool) { p, ok := e.state.peers[name]; return p, ok }
	n.Policy = func() *policy.Policy { return e.state.policy }
	n.Local = func() []netip.Prefix { return e.state.local }
	var err error
	e.native, err = native.New(n)
	return e, err
}

// Run carries packets until ctx ends or the interface or a socket fails. On the way
// out it tells every peer, and closes Device and Ports.
func (e *Engine) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	failed := make(chan error, len(e.c.Ports))
	for _, p := range e.c.Ports {
		w := newWorker(e, p)
		wg.Go(func() { failed <- w.run() })
	}
	err := e.loop(ctx, failed)
	e.closeAll()
	close(e.stopped)
	for _, p := range e.c.Ports {
		err = errors.Join(err, p.Wait.Close())
	}
	wg.Wait()
	for _, p := range e.c.Ports {
		err = errors.Join(err, p.Wait.Free(), p.Conn.Close())
	}
	return errors.Join(err, e.c.Device.Close())
}

// Do runs f in the control loop and waits for it.
func (e *Engine) Do(ctx context.Context, f func(now time.Time)) error {
	done := make(chan struct{})
	task := func(now time.Time) { defer close(done); f(now) }
	select {
	case e.tasks <- task:
		<-done
		return nil
	case <-e.stopped:
		return ErrStopped
	case <-ctx.Done():
		return ctx.Err()
	}
}

// SetSelf replaces who we are. Site links are made anew with the new keys before the
// old ones are let go of.
func (e *Engine) SetSelf(ctx context.Context, s native.Self) error {
	return e.Do(ctx, func(now time.Time) {
		old := e.state.self
		e.state.self = s
		if old.Certificate != nil && old.Certificate.ID() != s.Certificate.ID() {
			for name := range e.state.peers {
				e.native.Retire(name, old.Certificate.Keys.Control)
				e.replace(now, links.Key{Peer: name})
			}
		}
	})
}

// SetPolicy puts another policy on all calls. What it does not allow ends.
func (e *Engine) SetPolicy(ctx context.Context, p *policy.Policy) error {
	return e.Do(ctx, func(now time.Time) {
		e.state.policy = p
		for _, g := range e.state.guests {
			g.note(p)
		}
		for k, w := range e.state.users {
			e.noteOpen(w, false)
			if err := e.native.Allowed(w, 0); err != nil {
				e.forgetUser(now, k, err.Error())
			}
		}
		e.dismiss(e.unwelcome)
		e.native.PolicyChanged(now)
	})
}

// revoked is why a user's call or a guest has to go.
const revoked = "certificate revoked"

// Revoke ends at once what stands on the certificates.
func (e *Engine) Revoke(ctx context.Context, ids ...twincert.ID) error {
	e.c.Trust.Revoke(ids...)
	return e.Do(ctx, func(now time.Time) {
		e.revoked(now, ids)
		for k, w := range e.state.users {
			if slices.Contains(ids, w.Cred.Certificate.ID()) {
				e.forgetUser(now, k, revoked)
			}
		}
	})
}

// Cut ends calls and sessions that stand on revoked certificates, and leaves logins for Revoke to end: nobody who could say whether their users
// have newer certificates can be asked. Until then they have no calls.
func (e *Engine) Cut(ctx context.Context, ids ...twincert.ID) error {
	e.c.Trust.Revoke(ids...)
	return e.Do(ctx, func(now time.Time) {
		for _, w := range e.state.users {
			if id := w.Cred.Certificate.ID(); slices.Contains(ids, id) {
				e.state.doubted[id] = w.Cred.Certificate.NotAfter
			}
		}
		e.revoked(now, ids)
	})
}

// revoked ends what stands on certificates, but for logins.
func (e *Engine) revoked(now time.Time, ids []twincert.ID) {
	for _, id := range ids {
		e.native.Revoked(now, id)
	}
	e.dismiss(func(g *Guest) string {
		if slices.Contains(ids, g.Certificate.ID()) {
			return revoked
		}
		return ""
	})
}

// Drops counts packets that the data path let go of, by cause.
type Drops struct {
	UnknownSPI, NotESP, ControlFull, NoCall, Withheld, NotUp, BadPacket, TooBig, Exhausted, SendFailed, DeviceFailed, PathErrors counter
}
