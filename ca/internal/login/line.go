package login

import (
	"context"
	"fmt"
	"sync"

	"golang.org/x/time/rate"
)

// How many may be at it.
const (
	maxInside   = 256 // in all
	maxOfRouter = 64
	maxOfUser   = 4 // the one who is at it, and those who wait for them
	// A site where everybody logs in at nine.
	routerRate  = 20 // a second
	routerBurst = 200
)

// line bounds who is at it, and lets the logins of a user in one by one. The zero value is empty.
type line struct {
	mu      sync.Mutex
	inside  int
	routers map[string]int
	users   map[string]*turn
	rates   map[string]*rate.Limiter // by router; there are as many as the CA enrolled
}

// turn is taken by whoever fills busy.
type turn struct {
	busy chan struct{}
	n    int // who has it and who waits
}

// enter waits until it is uid's turn; leave gives it back. It fails with ErrTooMany at once.
func (l *line) enter(ctx context.Context, router, uid string) (leave func(), err error) {
	if err := l.count(router, uid); err != nil {
		return nil, err
	}
	uncount := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.inside--
		if l.routers[router]--; l.routers[router] == 0 {
			delete(l.routers, router)
		}
	}
	done, err := l.wait(ctx, uid)
	if err != nil {
		uncount()
		return nil, err
	}
	return func() { done(); uncount() }, nil
}

func (l *line) count(router, uid string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.routers == nil {
		l.routers, l.rates = make(map[string]int), make(map[string]*rate.Limiter)
	}
	r, ok := l.rates[router]
	if !ok {
		r = rate.NewLimiter(routerRate, routerBurst)
		l.rates[router] = r
	}
	switch {
	case l.inside >= maxInside, l.routers[router] >= maxOfRouter, !r.Allow():
		return ErrTooMany
	case l.users[uid] != nil && l.users[uid].n >= maxOfUser:
		return ErrTooMany
	}
	l.inside++
	l.routers[router]++
	return nil
}

// wait waits for uid's turn; done gives it back.
func (l *line) wait(ctx context.Context, uid string) (done func(), err error) {
	l.mu.Lock()
	if l.users == nil {
		l.users = make(map[string]*turn)
	}
	t := l.users[uid]
	if t == nil {
		t = &turn{busy: make(chan struct{}, 1)}
		l.users[uid] = t
	}
	t.n++
	l.mu.Unlock()
	drop := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if t.n--; t.n == 0 {
			delete(l.users, uid)
		}
	}
	select {
	case t.busy <- struct{}{}:
		return func() { <-t.busy; drop() }, nil
	case <-ctx.Done():
		drop()
		return nil, fmt.Errorf("waiting for another login of %s: %w", uid, ctx.Err())
	}
}
