package boltstore

import (
	"context"
	"errors"
	"fmt"
	"sync"

	bolt "go.etcd.io/bbolt"

	"twinkey/directory/internal/store"
)

// maxGroup bounds how many updates share a commit, and with it how long one of them waits for the others.
const maxGroup = 64

// group has updates that come at the same time share a commit, since what a commit takes is the disk's sync: whoever comes while
// none is under way commits at once, alone; whoever comes meanwhile waits, and the first of those commits for all of
// them. The zero value is ready.
type group struct {
	mu      sync.Mutex
	busy    bool // somebody commits
	waiting []*job
}

// job is one update. It belongs to whoever commits, from when it is taken out of waiting until done is closed.
type job struct {
	ctx  context.Context
	f    func(store.Tx) error
	lead chan struct{} // closed: commit for those who wait, this one among them
	done chan struct{} // closed: err is there
	err  error
}

// errNothing spares a disk's sync that would be for nothing.
var errNothing = errors.New("nothing has changed")

// Update implements store.Store.
func (s *Store) Update(ctx context.Context, f func(store.Tx) error) error {
	j := &job{ctx: ctx, f: f, lead: make(chan struct{}), done: make(chan struct{})}
	g := &s.group
	g.mu.Lock()
	g.waiting = append(g.waiting, j)
	if !g.busy {
		g.busy = true
		close(j.lead)
	}
	g.mu.Unlock()
	select {
	case <-j.done:
	case <-j.lead:
		s.commit(g.take())
	}
	return j.err
}

// take is who goes into the next commit: those who have waited longest.
func (g *group) take() []*job {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := min(len(g.waiting), maxGroup)
	jobs := g.waiting[:n:n]
	g.waiting = g.waiting[n:]
	return jobs
}

// pass has the next of those who wait commit.
func (g *group) pass() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.busy = len(g.waiting) > 0; g.busy {
		close(g.waiting[0].lead)
	}
}

// commit does jobs one after the other, in one transaction. Whose function fails has changed nothing.
func (s *Store) commit(jobs []*job) {
	whole := fmt.Errorf("%w: whoever committed for this one has failed", store.ErrWrite) // in case a function panics
	var refused []error
	first := len(jobs) // that changes something: what those behind it say, they may say because of what they saw of it
	defer func() {
		for i, j := range jobs {
			if j.err = whole; i < len(refused) && refused[i] != nil && (whole == nil || i < first) {
				j.err = refused[i]
			}
			close(j.done)
		}
		s.group.pass()
	}()
	err := s.db.Update(func(tx *bolt.Tx) error {
		for i, j := range jobs {
			d := draft{under: boltTx{tx}}
			// Asked here, after the wait for those before us.
			err := j.ctx.Err()
			if err == nil {
				err = j.f(&d)
			}
			refused = append(refused, err)
			if err == nil && d.changed != nil {
				first = min(first, i)
				if err := d.apply(); err != nil {
					return err
				}
			}
		}
		if first == len(jobs) {
			return errNothing
		}
		return nil
	})
	switch {
	case err == nil, errors.Is(err, errNothing):
		whole = nil
	default:
		whole = fmt.Errorf("%w: %w", store.ErrWrite, err)
	}
}
