package watch_test

import (
	"context"
	"errors"
	"iter"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"twinkey/directory/client"
	"twinkey/directory/internal/store"
	"twinkey/directory/internal/store/boltstore"
	"twinkey/directory/internal/store/storetest"
	"twinkey/directory/internal/watch"
	"twinkey/pkg/twincert"
)

const beat = 50 * time.Millisecond

type world struct {
	t       *testing.T
	reg     *store.Register
	hub     *watch.Hub
	company *storetest.Company
	n       int
}

func newWorld(t *testing.T, watchers int) *world {
	t.Helper()
	db, err := boltstore.Open(filepath.Join(t.TempDir(), "directory.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	reg, err := store.Open(t.Context(), db, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return &world{t: t, reg: reg, hub: watch.New(reg, beat, watchers), company: storetest.NewCompany(t, time.Now())}
}

// crl makes one revision with one event.
func (w *world) crl() {
	w.t.Helper()
	w.n++
	if _, err := w.reg.Apply(context.Background(), "twinkey://ca", client.Change{ChangeID: strconv.Itoa(w.n), CRL: w.company.CRL()}); err != nil {
		w.t.Error(err)
	}
}

func everything(context.Context) (func(client.Event) bool, error) {
	return func(client.Event) bool { return true }, nil
}

// eyes reads one stream event by event.
type eyes struct {
	t    *testing.T
	next func() (client.Event, error, bool)
}

func (w *world) watch(since client.Revision, admit watch.Admit) *eyes {
	w.t.Helper()
	next, stop := iter.Pull2(w.hub.Stream(w.t.Context(), since, admit))
	w.t.Cleanup(stop)
	return &eyes{t: w.t, next: next}
}

// sees passes over heartbeats, unless it wants one.
func (e *eyes) sees(kind client.EventKind, rev client.Revision) client.Event {
	e.t.Helper()
	for {
		ev, err, ok := e.next()
		if !ok || err != nil {
			e.t.Fatalf("the stream ended: %v", err)
		}
		if ev.Kind == client.KindHeartbeat && kind != client.KindHeartbeat {
			continue
		}
		if ev.Kind != kind || ev.Revision != rev {
			e.t.Fatalf("saw %s of revision %d, want %s of %d", ev.Kind, ev.Revision, kind, rev)
		}
		return ev
	}
}

func (e *eyes) ends(want error) {
	e.t.Helper()
	for {
		ev, err, ok := e.next()
		if !ok {
			e.t.Fatal("the stream ended without a word")
		}
		if err == nil {
			if ev.Kind != client.KindHeartbeat {
				e.t.Fatalf("saw %+v", ev)
			}
			continue
		}
		if !errors.Is(err, want) {
			e.t.Errorf("ended by %v, want %v", err, want)
		}
		return
	}
}

func TestReplayThenNews(t *testing.T) {
	w := newWorld(t, 0)
	for range 3 {
		w.crl()
	}
	e := w.watch(1, everything)
	if s := e.sees(client.KindSync, 1); s.Reset || s.Current != 3 {
		t.Errorf("sync %+v", s)
	}
	e.sees(client.KindCRL, 2)
	e.sees(client.KindCRL, 3)
	e.sees(client.KindHeartbeat, 3)
	w.crl()
	e.sees(client.KindCRL, 4)
}

func TestWhoKnowsNothingFetchesAll(t *testing.T) {
	w := newWorld(t, 0)
	w.crl()
	w.crl()
	for name, since := range map[string]client.Revision{"nothing seen yet": 0, "a future, before a restore": 99} {
		e := w.watch(since, everything)
		if s := e.sees(client.KindSync, 2); !s.Reset {
			t.Errorf("%s: %+v", name, s)
		}
		e.sees(client.KindHeartbeat, 2)
	}
}

func TestFallingBehindInTheMiddle(t *testing.T) {
	w := newWorld(t, 0)
	w.crl()
	e := w.watch(1, everything)
	e.sees(client.KindSync, 1)
	// While nobody reads, the register is restored from a copy: its log begins anew.
	if _, err := w.reg.Supersede(t.Context(), "operator", nil); err != nil {
		t.Fatal(err)
	}
	if s := e.sees(client.KindSync, 1<<20+2); !s.Reset {
		t.Errorf("%+v", s)
	}
	w.crl()
	e.sees(client.KindCRL, 1<<20+3)
}

func TestEveryWatcherSeesTheSameOrder(t *testing.T) {
	const writers, each, watchers = 3, 10, 4
	w := newWorld(t, 0)
	w.crl()
	var all sync.WaitGroup
	for range watchers {
		all.Go(func() {
			last := client.Revision(1)
			for e, err := range w.hub.Stream(context.Background(), 1, everything) {
				if err != nil {
					t.Error(err)
					return
				}
				if e.Kind == client.KindCertificate {
					if e.Revision != last+1 {
						t.Errorf("revision %d after %d", e.Revision, last)
					}
					if last = e.Revision; last == 1+writers*each {
						return
					}
				}
			}
		})
	}
	var changes []client.Change
	for range writers * each {
		u := w.company.NewUser("u"+strconv.Itoa(len(changes)), "g", "x")
		c := u.Change()
		changes = append(changes, c)
	}
	var writing sync.WaitGroup
	for i := range writers {
		writing.Go(func() {
			for _, c := range changes[i*each : (i+1)*each] {
				if _, err := w.reg.Apply(context.Background(), "twinkey://ca", c); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writing.Wait()
	all.Wait()
	if n := w.hub.Watchers(); n != 0 {
		t.Errorf("%d watchers are left", n)
	}
}

func TestOneWatcherTooMany(t *testing.T) {
	w := newWorld(t, 2)
	w.crl()
	a, b := w.watch(0, everything), w.watch(0, everything)
	a.sees(client.KindSync, 1)
	b.sees(client.KindSync, 1)
	w.watch(0, everything).ends(client.ErrTooMany)
	a.sees(client.KindHeartbeat, 1)
}

func TestWhoMayNoLongerWatchIsCut(t *testing.T) {
	w := newWorld(t, 0)
	w.crl()
	may := true
	e := w.watch(0, func(ctx context.Context) (func(client.Event) bool, error) {
		if !may {
			return nil, client.ErrDenied
		}
		return everything(ctx)
	})
	e.sees(client.KindSync, 1)
	may = false
	e.ends(client.ErrDenied)
}

// What a watcher may not see leaves no gap in the revisions that it resumes from.
func TestHiddenEvents(t *testing.T) {
	w := newWorld(t, 0)
	w.crl()
	e := w.watch(1, func(context.Context) (func(client.Event) bool, error) {
		return func(e client.Event) bool { return e.Certificate == nil || e.Certificate.Role == twincert.Router }, nil
	})
	e.sees(client.KindSync, 1)
	r := w.company.NewRouter("berlin", nil, "10.0.0.0/8").Change()
	u := w.company.NewUser("alice", "staff", "x").Change()
	r.Certificates = append(r.Certificates, u.Certificates...)
	if _, err := w.reg.Apply(t.Context(), "twinkey://ca", r); err != nil {
		t.Fatal(err)
	}
	if ev := e.sees(client.KindCertificate, 2); !ev.More {
		t.Error("more was to come")
	}
	if ev := e.sees(client.KindSite, 2); ev.More {
		t.Error("nothing was to come")
	}
	if _, err := w.reg.Apply(t.Context(), "twinkey://ca", u); err != nil {
		t.Fatal(err)
	}
	e.sees(client.KindHeartbeat, 3)
}

func TestStop(t *testing.T) {
	w := newWorld(t, 0)
	w.crl()
	e := w.watch(0, everything)
	e.sees(client.KindSync, 1)
	w.hub.Stop()
	w.hub.Stop()
	_, err, _ := e.next()
	if err == nil {
		t.Error("the stream goes on")
	}
}
