package watch

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync/atomic"
	"time"

	"twinkey/directory/client"
	"twinkey/directory/internal/store"
)

const (
	// DefaultHeartbeat leaves a watcher three tries within client.SilenceLimit.
	DefaultHeartbeat = 4 * time.Second
	// DefaultWatchers is some thousand routers with a second stream each while they
	// reconnect.
	DefaultWatchers = 4096
	batch           = 256 // events read at once
)

// ErrTooMany says that no more watchers are taken.
var ErrTooMany = fmt.Errorf("%w: every place for a watcher is taken", client.ErrTooMany)

// errShutdown is why streams end when the directory stops.
var errShutdown = errors.New("the directory is stopping")

// Hub hands out places for watchers. Safe for concurrent use.
type Hub struct {
	reg       *store.Register
	heartbeat time.Duration
	limit     int64
	watchers  atomic.Int64
	stop      chan struct{}
	stopped   atomic.Bool
}

// New returns a hub over reg; zero values are the defaults.
func New(reg *store.Register, heartbeat time.Duration, watchers int) *Hub {
	h := &Hub{reg: reg, heartbeat: heartbeat, limit: int64(watchers), stop: make(chan struct{})}
	if h.heartbeat <= 0 {
		h.heartbeat = DefaultHeartbeat
	}
	if h.limit <= 0 {
		h.limit = DefaultWatchers
	}
	return h
}

// Watchers is how many there are now.
func (h *Hub) Watchers() int { return int(h.watchers.Load()) }

// Stop ends all streams.
func (h *Hub) Stop() {
	if h.stopped.CompareAndSwap(false, true) {
		close(h.stop)
	}
}

// Admit says whether the watcher may see more, and which events. It is asked before
// every batch and every heartbeat.
type Admit func(context.Context) (visible func(client.Event) bool, err error)

// Stream yields what a watcher at since is told, a heartbeat when nothing happens, and at
// last the error that ended it: admit's, ctx's, the register's, or that the hub stopped.
func (h *Hub) Stream(ctx context.Context, since client.Revision, admit Admit) iter.Seq2[client.Event, error] {
	return func(yield func(client.Event, error) bool) {
		if h.watchers.Add(1) > h.limit {
			h.watchers.Add(-1)
			yield(client.Event{}, ErrTooMany)
			return
		}
		defer h.watchers.Add(-1)
		w := watcher{hub: h, ctx: ctx, admit: admit, at: since, yield: yield}
		if err := w.run(); err != nil {
			yield(client.Event{}, err)
		}
	}
}

type watcher struct {
	hub    *Hub
	ctx    context.Context //nolint:containedctx // lives as long as one stream
	admit  Admit
	at     client.Revision
	synced bool
	yield  func(client.Event, error) bool
}

// errLeft says that whoever reads the stream has had enough.
var errLeft = errors.New("left")

func (w *watcher) run() error {
	beat := time.NewTicker(w.hub.heartbeat)
	defer beat.Stop()
	for idle := false; ; {
		changed := w.hub.reg.Changed()
		err := w.step(idle)
		if errors.Is(err, errLeft) {
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case <-changed:
			idle = false
		case <-beat.C:
			idle = true
		case <-w.ctx.Done():
			return w.ctx.Err()
		case <-w.hub.stop:
			return errShutdown
		}
	}
}

// step tells all that there is to tell; if that is nothing and idle, that we live.
func (w *watcher) step(idle bool) error {
	for {
		visible, err := w.admit(w.ctx)
		if err != nil {
			return err
		}
		events, next, known, newest, err := w.read()
		if err != nil {
			return err
		}
		if err := w.sync(known, newest); err != nil {
			return err
		}
		if !known {
			continue
		}
		if events = filter(events, visible); len(events) > 0 {
			idle = false
		}
		for _, e := range events {
			if !w.yield(e, nil) {
				return errLeft
			}
		}
		w.at = next
		if next == newest {
			break
		}
	}
	if idle && !w.yield(client.Event{Revision: w.at, Time: w.hub.reg.Now(), Kind: client.KindHeartbeat}, nil) {
		return errLeft
	}
	return nil
}

// read is known false for a place in the log that is no more; since 0 is such a place:
// whoever is there knows nothing.
func (w *watcher) read() (events []client.Event, next client.Revision, known bool, newest client.Revision, err error) {
	err = w.hub.reg.Read(w.ctx, func(r *store.Reader) (err error) {
		if newest, err = r.Revision(); err != nil {
			return err
		}
		events, next, known, err = r.Events(w.at, batch)
		return err
	})
	if !w.synced && w.at == 0 {
		known = false
	}
	return events, next, known, newest, err
}

// sync says where the stream begins, or begins anew.
func (w *watcher) sync(known bool, newest client.Revision) error {
	if w.synced && known {
		return nil
	}
	if !known {
		w.at = newest
	}
	w.synced = true
	if !w.yield(client.Event{Revision: w.at, Current: newest, Time: w.hub.reg.Now(), Kind: client.KindSync, Reset: !known}, nil) {
		return errLeft
	}
	return nil
}

// filter drops what is not visible and keeps More true of what is left: the last event of
// each revision has none.
func filter(events []client.Event, visible func(client.Event) bool) []client.Event {
	out := events[:0]
	for _, e := range events {
		if visible(e) {
			out = append(out, e)
		}
	}
	for i := range out {
		out[i].More = i+1 < len(out) && out[i+1].Revision == out[i].Revision
	}
	return out
}
