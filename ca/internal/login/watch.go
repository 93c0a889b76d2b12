package login

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"twinkey/ca/internal/ledger"
	"twinkey/ca/internal/source"
)

// watch is what became of listening to the sources. The zero value is ready.
type watch struct {
	mu       sync.Mutex
	problems []string
}

// Run has the sources that can tell of accounts that end or change do so, until ctx ends. Whoever is told of loses the certificate,
// and with it the calls, or goes on with another one. Login keys whose time is over go meanwhile.
func (d *Door) Run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { d.ring.run(ctx, d.cfg.Now) })
	for _, s := range d.cfg.Sources {
		w, ok := s.(source.Watcher)
		if !ok {
			continue
		}
		if f, ok := s.(source.Follower); ok {
			uids, err := d.usersOf(s.Name())
			if err != nil {
				d.problem("source %s is not told whom to look after: %v", s.Name(), err)
			}
			f.Follow(uids...)
		}
		wg.Go(func() {
			if err := w.Watch(ctx, &orders{d, s.Name()}); err != nil && ctx.Err() == nil {
				d.problem("source %s cannot tell of accounts that end, their calls go on until the certificate expires: %v", s.Name(), err)
			}
		})
	}
}

func (d *Door) problem(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	d.cfg.Log.Error("source not listened to", "problem", text)
	d.watch.mu.Lock()
	defer d.watch.mu.Unlock()
	d.watch.problems = append(d.watch.problems, text)
}

// Problems is what an operator has to do something about.
func (d *Door) Problems() []string {
	d.watch.mu.Lock()
	defer d.watch.mu.Unlock()
	return slices.Clone(d.watch.problems)
}

// usersOf are the users of a source who have a certificate.
func (d *Door) usersOf(name string) (uids []string, err error) {
	err = d.cfg.Ledger.View(func(tx *ledger.Tx) error {
		users, err := tx.Users()
		for _, u := range users {
			if u.Source == name && u.Active() {
				uids = append(uids, u.UID)
			}
		}
		return err
	})
	return uids, err
}

// cut makes what a source says a reason that CRL and audit records take.
func cut(s string) string {
	if len(s) > maxReason {
		s = s[:maxReason]
	}
	return strings.ToValidUTF8(s, "?")
}

// Gone lets the sources forget a user whom the operator has revoked.
func (d *Door) Gone(uid string) {
	for _, s := range d.cfg.Sources {
		if f, ok := s.(source.Follower); ok {
			f.Unfollow(uid)
		}
	}
}
