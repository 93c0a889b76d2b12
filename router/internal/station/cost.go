package station

import (
	"context"
	"errors"
	"fmt"

	"twinkey/pkg/keybundle"
)

// Errors about how a password is stretched. The router in front says it, and learns what comes of it: one that somebody has taken over
// would have it cheap, or under a salt for which it has a table.
var (
	ErrCheap   = errors.New("the router asks for the password to be stretched too little")
	ErrAnother = errors.New("the router asks for the password to be stretched in another way than at the last login from here")
)

// least is the cheapest that keys were ever sealed at by a CA, a router or a directory. Should the default rise, this one stays where it is
// as long as there are keys from before.
var least = keybundle.Params{Time: keybundle.DefaultTime, MemoryKiB: keybundle.DefaultMemoryKiB}

// told asks the router how the user's password is stretched, and believes what neither costs too little nor has changed unless the user
// has said that it may.
func (s *Station) told(ctx context.Context) (keybundle.Params, error) {
	p, err := s.front.Params(ctx, s.o.User)
	if err != nil {
		return p, err
	}
	if p.Weaker(least) {
		return p, fmt.Errorf("%w: time %d and %d KiB, not %d and %d KiB", ErrCheap, p.Time, p.MemoryKiB, least.Time, least.MemoryKiB)
	}
	if before, ok := s.home.Passwords[s.o.User]; ok && !before.Equal(p) {
		if !s.o.Changed {
			return p, fmt.Errorf("%w: %s", ErrAnother, difference(before, p))
		}
		s.say("the password of %s is stretched in another way than at the last login from here (%s)", s.o.User, difference(before, p))
	}
	s.cost = &p
	return p, nil
}

// difference says what is another.
func difference(a, b keybundle.Params) string {
	if a.Time == b.Time && a.MemoryKiB == b.MemoryKiB && a.Threads == b.Threads {
		return "another salt"
	}
	return fmt.Sprintf("time %d, %d KiB, %d threads; before %d, %d KiB, %d threads", b.Time, b.MemoryKiB, b.Threads, a.Time, a.MemoryKiB, a.Threads)
}

// remember keeps what was told, now that it has opened the user's keys: nobody can make that up who has not got them.
func (s *Station) remember() {
	if s.cost == nil {
		return
	}
	if before, ok := s.home.Passwords[s.o.User]; ok && before.Equal(*s.cost) {
		return
	}
	if err := s.home.Remember(s.o.User, *s.cost); err != nil {
		s.log.Warn("how the password is stretched was not remembered", "error", err)
	}
}
