package ldap

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/go-ldap/ldap/v3"

	"twinkey/ca/internal/source"
	"twinkey/pkg/twincert"
)

// errBase says that a server shows nothing at all where the users are. It has lost its data, or our account its rights: nothing
// follows from it about a user.
var errBase = errors.New("the server does not show the base of the users")

// endTime bounds how long ending one user may take; the next round tries again.
const endTime = 10 * time.Second

// Follow has Watch look after uids too.
func (s *Source) Follow(uids ...string) {
	s.followed.mu.Lock()
	defer s.followed.mu.Unlock()
	if s.followed.uids == nil {
		s.followed.uids = make(map[string]struct{})
	}
	for _, uid := range uids {
		if twincert.CheckName(uid) == nil && len(s.followed.uids) < maxFollowed {
			s.followed.uids[uid] = struct{}{}
		}
	}
}

// Unfollow has Watch forget them.
func (s *Source) Unfollow(uids ...string) {
	s.followed.mu.Lock()
	defer s.followed.mu.Unlock()
	for _, uid := range uids {
		delete(s.followed.uids, uid)
	}
}

func (f *followed) len() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.uids)
}

func (f *followed) list() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.uids))
}

// Watch looks each interval whether those who are followed still match the filter, until ctx ends.
func (s *Source) Watch(ctx context.Context, o source.Orders) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.life, cancel)()
	tick := time.NewTicker(s.cfg.Interval)
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		err := s.round(ctx, o)
		if ctx.Err() != nil {
			return nil
		}
		s.count.rounds.Add(1)
		switch {
		case err != nil:
			s.count.failed.Add(1)
			if !failing {
				s.log.Warn("nobody can be asked who is still to be let in; nobody is cut off", "error", err)
			}
		case failing:
			s.log.Info("it can be asked again who is still to be let in")
		}
		failing = err != nil
	}
}

// round looks after everybody once, at the first server that can be asked.
func (s *Source) round(ctx context.Context, o source.Orders) error {
	uids := s.followed.list()
	if len(uids) == 0 {
		return nil
	}
	var errs []error
	for _, server := range s.servers.Order(time.Now()) {
		err := s.roundAt(ctx, server, uids, o)
		if err == nil {
			s.servers.Answered(server)
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s.servers.Silent(server, time.Now())
		errs = append(errs, fmt.Errorf("%s: %w", server, err))
	}
	return errors.Join(errs...)
}

func (s *Source) roundAt(ctx context.Context, server string, uids []string, o source.Orders) error {
	c, err := s.service(ctx, server)
	if err != nil {
		return err
	}
	defer c.close()
	var gone []string
	for _, uid := range uids {
		found, err := s.search(c, s.cfg.Base, ldap.ScopeWholeSubtree, 1, fill(s.cfg.Filter, uid), noAttributes)
		if err != nil {
			return fmt.Errorf("searching %s: %w", s.cfg.Base, err)
		}
		if len(found) == 0 {
			gone = append(gone, uid)
		}
	}
	if len(gone) == 0 {
		return nil
	}
	// Asked last: whatever was lost in between is noticed.
	base, err := s.search(c, s.cfg.Base, ldap.ScopeBaseObject, 1, "(objectClass=*)", noAttributes)
	if err != nil {
		return fmt.Errorf("%w: %w", errBase, err)
	}
	if len(base) != 1 {
		return errBase
	}
	for _, uid := range gone {
		s.endOne(ctx, uid, o)
	}
	return nil
}

// endOne ends one user. Who cannot be ended now is found again in the next round.
func (s *Source) endOne(ctx context.Context, uid string, o source.Orders) {
	ctx, cancel := context.WithTimeout(ctx, endTime)
	defer cancel()
	err := o.End(ctx, uid, source.Word{Why: fmt.Sprintf("source %s no longer lets the user in", s.name)})
	switch {
	case err == nil:
		s.count.ended.Add(1)
		s.log.Info("a user is no longer let in", "user", uid)
	case errors.Is(err, source.ErrNotThere):
	default:
		s.log.Error("a user who is no longer let in could not be ended", "user", uid, "error", err)
		return
	}
	s.Unfollow(uid)
}
