package login

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"twinkey/ca/internal/issue"
	"twinkey/ca/internal/ledger"
	"twinkey/ca/internal/source"
	"twinkey/directory/client"
	"twinkey/pkg/keybundle"
)

// The first login brings keys and a certificate, the next ones find them.
func TestFirstLoginIssues(t *testing.T) {
	w := newWorld(t)
	w.corp.session, w.corp.state = 8*time.Hour, []byte("class")
	first := w.mustIn("alice", "spring", "staff")
	again := w.mustIn("alice", "spring", "staff")
	if first.ID != again.ID {
		t.Error("the second login brought another certificate")
	}
	if a, err := w.in("alice", "spring"); err != nil || a.Session != 8*time.Hour {
		t.Errorf("session %s, %v", a.Session, err)
	}
	if u := w.user("alice"); u.Source != "corp" || !u.Active() {
		t.Errorf("in the ledger: %+v", u)
	}
	w.check(w.led.View(func(tx *ledger.Tx) error {
		l, ok, err := tx.Login("alice", "berlin")
		if !ok || string(l.State) != "class" || l.Source != "corp" {
			t.Errorf("what the source wants back: %+v", l)
		}
		return err
	}))
}

// Whoever is not let in hears the same, and the directory nothing.
func TestRefusalsAreAlike(t *testing.T) {
	w := newWorld(t)
	w.corp.set("bob", "spring", "sales") // out of berlin's scope
	w.corp.set("carol", "spring", "Not A Group")
	w.corp.set("dave", "spring", "")
	w.corp.accounts["erin"] = account{password: "spring", group: "staff", disabled: true}
	w.corp.set("local", "spring", "staff")
	w.check(second(w.desk.AddUser(t.Context(), "operator:test", w.local("local"))))
	w.mustIn("alice", "spring", "staff")
	vouched := w.vouches()
	for uid, c := range map[string]struct{ password, cause string }{
		"nobody": {"spring", "no source accepts"},
		"alice":  {"guess", "no source accepts"},
		"bob":    {"spring", "group sales is not in the router's scope"},
		"carol":  {"spring", "Not A Group"},
		"dave":   {"spring", `into group \"\"`},
		"erin":   {"spring", "no source accepts"},
		"local":  {"spring", "a local user"},
		"frank":  {"", "a password of 0 bytes"},
		"grace":  {strings.Repeat("g", keybundle.MaxPassword+1), "a password of 257 bytes"},
		"judy":   {strings.Repeat("g", keybundle.MaxPassword), "no source accepts"},
	} {
		w.mustNot(uid, c.password, c.cause)
	}
	if w.vouches() != vouched {
		t.Error("somebody was vouched for")
	}
	for _, uid := range []string{"bob", "carol", "dave", "erin", "nobody"} {
		if u := w.user(uid); u.UID != "" {
			t.Errorf("something was issued to %s", uid)
		}
	}
	if got := strings.Join(w.corp.asked, " "); strings.Contains(got, "local") || strings.Contains(got, "frank") || strings.Contains(got, "grace") {
		t.Errorf("the source was asked about %s", got)
	}
	if _, err := w.in("No Name", "spring"); !errors.Is(err, issue.ErrInvalid) {
		t.Errorf("a name that is none: %v", err)
	}
}

func second[A any](_ A, err error) error { return err }

// local is a user whom the operator adds.
func (w *world) local(uid string) issue.UserRequest {
	w.Helper()
	p, err := w.cfg.Params()
	w.check(err)
	proof, err := keybundle.Derive([]byte("password of "+uid), p)
	w.check(err)
	return issue.UserRequest{UID: uid, Group: "staff", Params: p, Verifier: keybundle.Verifier(proof.Auth.Bytes()), Seal: proof.Seal}
}

// Refusals go out at moments that do not depend on how long it took to find out: a server that takes a second for each rejection
// tells a router by its haste neither that the password of whom it may not have is right, nor who is local.
func TestRefusalsTakeTheSameTime(t *testing.T) {
	w := newWorld(t)
	w.floor, w.corp.delay = refuseAfter, 1300*time.Millisecond
	w.corp.set("bob", "spring", "sales") // out of berlin's scope
	w.corp.set("erin", "spring", "staff")
	w.check(second(w.desk.AddUser(t.Context(), "operator:test", w.local("local"))))
	w.mustIn("erin", "spring", "staff")
	w.check(second(w.desk.RevokeUser(t.Context(), "operator:test", "erin", "left")))
	synctest.Test(t, func(t *testing.T) {
		for uid, password := range map[string]string{"nobody": "spring", "alice": "guess", "local": "guess", "bob": "spring", "carol": "guess", "erin": "spring"} {
			began := time.Now()
			_, err := w.Login(t.Context(), w.berlin, uid, []byte(password))
			if took := time.Since(began); !errors.Is(err, ErrDenied) || took != 3*time.Second {
				t.Errorf("%s: %v after %s", uid, err, took)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(2*time.Second, cancel)
		began := time.Now()
		if _, err := w.Login(ctx, w.berlin, "nobody", []byte("x")); !errors.Is(err, ErrDenied) || time.Since(began) != 2*time.Second {
			t.Errorf("given up: %v after %s", err, time.Since(began))
		}
	})
}

// Another password than the keys are sealed under: new keys, and what stood on the old certificate ends.
func TestChangedPasswordReseals(t *testing.T) {
	w := newWorld(t)
	old := w.mustIn("alice", "spring", "staff")
	w.corp.set("alice", "summer", "staff")
	w.mustNot("alice", "spring", "no source accepts")
	if got := w.reasonOf(old.ID); got != "not revoked" {
		t.Errorf("a wrong password withdrew the certificate: %s", got)
	}
	fresh := w.mustIn("alice", "summer", "staff")
	if fresh.ID == old.ID || w.reasonOf(old.ID) != "the password was changed" {
		t.Errorf("the old certificate: %s", w.reasonOf(old.ID))
	}
}

func TestAnotherGroup(t *testing.T) {
	w := newWorld(t)
	old := w.mustIn("alice", "spring", "staff")
	w.corp.set("alice", "spring", "sales") // which berlin does not serve
	w.mustNot("alice", "spring", "group sales is not in the router's scope")
	if _, err := w.Login(t.Context(), w.paris, "alice", []byte("spring")); err != nil {
		t.Fatal(err)
	}
	if got := w.reasonOf(old.ID); got != "the source has put the user into group sales" {
		t.Errorf("the old certificate: %s", got)
	}
	if u := w.user("alice"); u.Group != "sales" {
		t.Errorf("%+v", u)
	}
	// And back, at a router that does not serve the group that the CA knows of.
	w.corp.set("alice", "spring", "staff")
	w.mustIn("alice", "spring", "staff")
}

// A certificate that ends soon is renewed by logging in, and calls that stand on the old one go on.
func TestLoginRenews(t *testing.T) {
	w := newWorld(t)
	first := w.mustIn("alice", "spring", "staff")
	w.now = w.now.Add(19 * 24 * time.Hour)
	if got := w.mustIn("alice", "spring", "staff"); got.ID != first.ID {
		t.Error("renewed with a third of its life left")
	}
	w.now = w.now.Add(2 * 24 * time.Hour)
	second := w.mustIn("alice", "spring", "staff")
	if second.ID == first.ID || w.reasonOf(first.ID) != "not revoked" {
		t.Errorf("not renewed, or the old one: %s", w.reasonOf(first.ID))
	}
	w.now = w.now.Add(31 * 24 * time.Hour)
	if third := w.mustIn("alice", "spring", "staff"); third.ID == second.ID {
		t.Error("an expired certificate was not renewed")
	}
}

// The source's silence says nothing of the user: nobody is let in, nobody locked, nothing withdrawn.
func TestSourceAway(t *testing.T) {
	for name, away := range map[string]error{"silent": source.ErrUnavailable, "something else": errors.New("bug of ours")} {
		w := newWorld(t)
		alice := w.mustIn("alice", "spring", "staff")
		w.corp.away = away
		for range 20 {
			for _, uid := range []string{"alice", "nobody"} {
				_, err := w.in(uid, "spring")
				s, ok := errors.AsType[*SourceError](err)
				if !ok || !errors.Is(err, ErrSource) || s.Name != "corp" || s.Error() != "a source of users cannot be asked: corp" {
					t.Fatalf("%s, %s: %v", name, uid, err)
				}
			}
		}
		if got := w.reasonOf(alice.ID); got != "not revoked" {
			t.Errorf("%s: %s", name, got)
		}
		w.corp.away = nil
		if got := w.mustIn("alice", "spring", "staff"); got.ID != alice.ID {
			t.Error("it brought another certificate")
		}
	}
}

// Sources are asked in their order; none takes a name that one before it might know, and a user stays with the first.
func TestSourcesInOrder(t *testing.T) {
	lab := newCorp("lab")
	w := newWorld(t, lab)
	lab.set("alice", "spring", "guests")
	lab.set("bob", "spring", "staff")
	w.mustIn("alice", "spring", "staff")
	if lab.timesAsked() != 0 {
		t.Error("the second was asked about whom the first knows")
	}
	if _, err := w.in("bob", "spring"); err != nil || w.user("bob").Source != "lab" {
		t.Errorf("bob: %v, %+v", err, w.user("bob"))
	}
	asked := w.corp.timesAsked()
	if _, err := w.in("bob", "spring"); err != nil || w.corp.timesAsked() != asked {
		t.Errorf("bob again: %v; the first was asked about a user of the second", err)
	}
	// Alice's password at another source is not hers.
	lab.set("alice", "summer", "staff")
	w.mustNot("alice", "summer", "no source accepts")
	w.corp.away = source.ErrUnavailable
	lab.set("carol", "spring", "staff")
	if _, err := w.in("carol", "spring"); !errors.Is(err, ErrSource) || w.user("carol").UID != "" {
		t.Errorf("a name that the silent source might know: %v", err)
	}
	if _, err := w.in("bob", "spring"); err != nil {
		t.Errorf("a user of the source that answers: %v", err)
	}
	// A source that is no longer configured has users, and nobody to ask.
	w.corp.away, w.cfg.Sources = nil, w.cfg.Sources[:1]
	if _, err := w.in("bob", "spring"); !errors.Is(err, ErrSource) || !strings.Contains(err.Error(), "lab") {
		t.Errorf("a source that is gone: %v", err)
	}
}

// Revoked by the operator is revoked, whatever the source says, until the operator says otherwise.
func TestRevokedByTheOperator(t *testing.T) {
	w := newWorld(t)
	old := w.mustIn("alice", "spring", "staff")
	w.check(second(w.desk.RevokeUser(t.Context(), "operator:test", "alice", "left")))
	w.mustNot("alice", "spring", "the operator has revoked the user")
	if err := second(w.desk.RevokeUser(t.Context(), "operator:test", "alice", "left")); !errors.Is(err, issue.ErrRevoked) {
		t.Errorf("revoked twice: %v", err)
	}
	w.check(w.desk.AllowUser("operator:test", "alice"))
	if fresh := w.mustIn("alice", "spring", "staff"); fresh.ID == old.ID {
		t.Error("the revoked certificate is back")
	}
	for uid, want := range map[string]error{"alice": issue.ErrInvalid, "nobody": issue.ErrUnknown} { // alice is not barred any more
		if err := w.desk.AllowUser("operator:test", uid); !errors.Is(err, want) {
			t.Errorf("allowing %s: %v", uid, err)
		}
	}
}

// What the source ended can be barred as well; and barring beats an issue that is under way.
func TestBarredWhileEnded(t *testing.T) {
	w := newWorld(t)
	w.mustIn("alice", "spring", "staff")
	w.check(second(w.desk.EndUser(t.Context(), "corp", "alice", "disabled")))
	w.check(second(w.desk.RevokeUser(t.Context(), "operator:test", "alice", "left")))
	w.mustNot("alice", "spring", "the operator has revoked the user")
	r := w.local("alice")
	r.Source = "corp"
	if err := second(w.desk.AddUser(t.Context(), "source:corp", r)); !errors.Is(err, issue.ErrRevoked) {
		t.Errorf("a login that had looked before: %v", err)
	}
	r.Source = "lab"
	w.check(w.desk.AllowUser("operator:test", "alice"))
	if err := second(w.desk.AddUser(t.Context(), "source:lab", r)); !errors.Is(err, issue.ErrExists) {
		t.Errorf("another source took her name: %v", err)
	}
}

// meddler is a source beside which somebody else changes the user, in the middle of a login.
type meddler struct {
	*corp
	meanwhile func()
}

func (m *meddler) Check(ctx context.Context, uid string, password []byte) (source.Answer, error) {
	a, err := m.corp.Check(ctx, uid, password)
	m.meanwhile()
	return a, err
}

// What the operator does while the source is asked counts, and shows in no other answer.
func TestOperatorIsQuicker(t *testing.T) {
	w := newWorld(t)
	w.mustIn("alice", "spring", "staff")
	m := &meddler{corp: w.corp}
	w.cfg.Sources = []source.Source{m}
	for _, cause := range []string{"is not known", "is revoked"} { // her keys would be sealed anew; then, since she is let in again, issued
		w.corp.set("alice", "another "+cause, "staff")
		m.meanwhile = func() { w.check(second(w.desk.RevokeUser(t.Context(), "operator:test", "alice", ""))) }
		w.mustNot("alice", "another "+cause, cause)
		if u := w.user("alice"); u.Active() || !u.Barred {
			t.Errorf("%+v", u)
		}
		w.check(w.desk.AllowUser("operator:test", "alice"))
	}
	w.corp.set("bob", "spring", "staff")
	m.meanwhile = func() {
		_, err := w.desk.AddUser(t.Context(), "operator:test", w.local("bob"))
		w.check(err)
	}
	w.mustNot("bob", "spring", "exists already")
	if u := w.user("bob"); u.Source != "" {
		t.Errorf("the operator's bob is %+v", u)
	}
}

// Local users and users of sources are two things, whoever tries.
func TestLocalUsersStayLocal(t *testing.T) {
	w := newWorld(t)
	w.mustIn("alice", "spring", "staff")
	r := w.local("alice")
	if err := second(w.desk.AddUser(t.Context(), "operator:test", r)); !errors.Is(err, issue.ErrExists) {
		t.Errorf("adding: %v", err)
	}
	if err := second(w.desk.RenewUser(t.Context(), "operator:test", r)); !errors.Is(err, issue.ErrInvalid) {
		t.Errorf("renewing: %v", err)
	}
	w.check(second(w.desk.AddUser(t.Context(), "operator:test", w.local("carol"))))
	w.check(second(w.desk.RevokeUser(t.Context(), "operator:test", "carol", "")))
	w.corp.set("carol", "spring", "staff")
	w.mustNot("carol", "spring", "a local user")
	if err := second(w.desk.EndUser(t.Context(), "corp", "carol", "")); !errors.Is(err, issue.ErrUnknown) {
		t.Errorf("a source ended a local user: %v", err)
	}
	if err := w.desk.AllowUser("operator:test", "carol"); !errors.Is(err, issue.ErrInvalid) || !strings.Contains(err.Error(), "is of no source") {
		t.Errorf("allowing a local user: %v", err)
	}
}

func (w *world) lockedFor(r ledger.Router, uid string, want time.Duration) {
	w.Helper()
	_, err := w.Login(w.Context(), r, uid, []byte("spring"))
	l, ok := errors.AsType[*LockedError](err)
	if !ok || !errors.Is(err, ErrLocked) || l.RetryAfter != want {
		w.Errorf("%s at %s: %v, want locked for %s", uid, r.Name, err, want)
	}
}

func (w *world) wrong(n int, r ledger.Router, uid string) {
	w.Helper()
	for range n {
		if _, err := w.Login(w.Context(), r, uid, []byte("guess")); !errors.Is(err, ErrDenied) {
			w.Fatalf("a guess at %s: %v", uid, err)
		}
	}
}

func TestLockout(t *testing.T) {
	w := newWorld(t)
	w.mustIn("alice", "spring", "staff")
	w.wrong(10, w.berlin, "alice")
	w.lockedFor(w.berlin, "alice", time.Minute)
	w.lockedFor(w.paris, "alice", time.Minute) // whichever router asks
	asked := w.corp.timesAsked()
	w.lockedFor(w.berlin, "alice", time.Minute)
	if w.corp.timesAsked() != asked {
		t.Error("the source was asked about a user who is locked")
	}
	w.now = w.now.Add(time.Minute)
	w.mustIn("alice", "spring", "staff")
	w.wrong(10, w.berlin, "alice")
	w.lockedFor(w.berlin, "alice", time.Minute) // the right password had cleared the count and the doubling
	// A clock that goes back does not make it longer.
	w.now = w.now.Add(-2 * time.Minute)
	w.lockedFor(w.berlin, "alice", time.Minute)
	w.now = w.now.Add(3 * time.Minute)

	// Of whom nothing is known every guess counts, at routers that may have everybody.
	rome := ledger.Router{Name: "rome", Scope: []string{"*"}}
	w.wrong(5, rome, "nobody")
	w.wrong(5, w.paris, "nobody")
	w.lockedFor(rome, "nobody", time.Minute)
}

// A router locks nobody out whom it may not have, known or not.
func TestLockoutOfStrangers(t *testing.T) {
	w := newWorld(t)
	w.corp.set("bob", "spring", "sales")
	w.corp.set("carol", "spring", "sales")
	if _, err := w.Login(t.Context(), w.paris, "bob", []byte("spring")); err != nil {
		t.Fatal(err)
	}
	for _, uid := range []string{"bob", "carol"} { // carol has never logged in; both are locked alike
		w.wrong(10, w.berlin, uid)
		w.lockedFor(w.berlin, uid, time.Minute)
		if _, err := w.Login(t.Context(), w.paris, uid, []byte("spring")); err != nil {
			t.Errorf("%s at a router that serves them: %v", uid, err)
		}
	}
}

// A source that locks after five failures within half an hour is not made to by a router whose user it is not, and whoever asks does not notice.
func TestSourceIsSparedStrangers(t *testing.T) {
	w := newWorld(t)
	w.corp.set("bob", "spring", "sales")
	if _, err := w.Login(t.Context(), w.paris, "bob", []byte("spring")); err != nil {
		t.Fatal(err)
	}
	var tries []time.Time
	for range 12 * 12 {
		w.now = w.now.Add(5 * time.Minute)
		before := w.corp.timesAsked()
		if _, err := w.in("bob", "guess"); !errors.Is(err, ErrDenied) {
			t.Fatal(err)
		}
		if w.corp.timesAsked() > before {
			tries = append(tries, w.now)
		}
	}
	for i := 4; i < len(tries); i++ {
		if tries[i].Sub(tries[i-4]) < 30*time.Minute {
			t.Errorf("five tries in %s", tries[i].Sub(tries[i-4]))
		}
	}
	if len(tries) < 5 {
		t.Errorf("the source was asked %d times in half a day", len(tries))
	}
	w.mustNot("bob", "spring", "asked too often")
	// The right router is not concerned, nor is the wrong one when it is the right one.
	if _, err := w.Login(t.Context(), w.paris, "bob", []byte("spring")); err != nil {
		t.Error(err)
	}
	w.now = w.now.Add(time.Hour)
	w.corp.set("bob", "spring", "staff")
	w.mustIn("bob", "spring", "staff")
}

func TestARouterThatGuessesManyUsersLocks(t *testing.T) {
	w := newWorld(t)
	for i := range 100 {
		w.wrong(1, w.berlin, "guess"+strings.Repeat("x", i%10)+string(rune('a'+i/10)))
	}
	w.lockedFor(w.berlin, "alice", time.Minute)
	if _, err := w.Login(t.Context(), w.paris, "alice", []byte("spring")); err != nil {
		t.Errorf("elsewhere: %v", err)
	}
}

// Tries of one user come one after the other: ten are answered, however many are made at once.
func TestManyTriesAtOnceGiveNoMore(t *testing.T) {
	w := newWorld(t)
	w.mustIn("alice", "spring", "staff")
	asked := w.corp.timesAsked()
	var denied, others atomic.Int32
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 25 {
				_, err := w.in("alice", "guess")
				switch {
				case errors.Is(err, ErrDenied):
					denied.Add(1)
				case errors.Is(err, ErrLocked):
				default:
					others.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if denied.Load() != 10 || others.Load() != 0 || w.corp.timesAsked() != asked+10 {
		t.Errorf("%d tries were answered, the source was asked %d times, %d other errors", denied.Load(), w.corp.timesAsked()-asked, others.Load())
	}
}

// A slow source holds up nobody but those who ask it for the same user, and too many of those are told at once.
func TestLine(t *testing.T) {
	slow := newCorp("slow")
	slow.slow = make(chan struct{})
	w := newWorld(t, slow)
	w.mustIn("alice", "spring", "staff")
	done := make(chan error, maxOfUser+1)
	for range maxOfUser {
		go func() { done <- second(w.in("bob", "spring")) }() // corp rejects him, slow takes its time
	}
	for waiting := 0; waiting < maxOfUser; time.Sleep(time.Millisecond) {
		w.line.mu.Lock()
		if turn := w.line.users["bob"]; turn != nil {
			waiting = turn.n
		}
		w.line.mu.Unlock()
	}
	if _, err := w.in("bob", "spring"); !errors.Is(err, ErrTooMany) {
		t.Errorf("one more: %v", err)
	}
	w.mustIn("alice", "spring", "staff")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := w.line.wait(ctx, "bob"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("given up: %v", err)
	}
	slow.set("bob", "spring", "staff")
	close(slow.slow)
	for range maxOfUser {
		<-done
	}
	w.line.mu.Lock()
	if w.line.inside != 0 || len(w.line.users) != 0 || len(w.line.routers) != 0 {
		t.Errorf("left in the line: %d, %v, %v", w.line.inside, w.line.users, w.line.routers)
	}
	w.line.mu.Unlock()

	for range maxOfRouter {
		if _, err := w.line.enter(t.Context(), "rome", time.Now().String()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.line.enter(t.Context(), "rome", "x"); !errors.Is(err, ErrTooMany) {
		t.Errorf("too many of one router: %v", err)
	}
	w.mustIn("alice", "spring", "staff")
	for n := 0; ; n++ {
		leave, err := w.line.enter(t.Context(), "madrid", "x")
		if errors.Is(err, ErrTooMany) && n >= routerBurst && n < 2*routerBurst {
			break // more a second than a router may
		}
		if err != nil || n > 10*routerBurst {
			t.Fatalf("%d logins of a router in no time: %v", n, err)
		}
		leave()
	}
}

// Nothing is half done: without the directory nobody is let in, and afterwards everybody.
func TestDirectoryAway(t *testing.T) {
	w := newWorld(t)
	old := w.mustIn("alice", "spring", "staff")
	w.dir.down = true
	for _, uid := range []string{"alice", "bob"} {
		w.corp.set(uid, "spring", "staff")
		if _, err := w.in(uid, "spring"); !errors.Is(err, client.ErrUnavailable) || errors.Is(err, ErrSource) {
			t.Errorf("%s: %v", uid, err)
		}
	}
	w.corp.set("alice", "summer", "staff")
	if _, err := w.in("alice", "summer"); !errors.Is(err, client.ErrUnavailable) {
		t.Errorf("with another password: %v", err)
	}
	if _, err := w.in("alice", "guess"); !errors.Is(err, ErrDenied) || !strings.Contains(w.log.String(), "refusal not noted by the directory") {
		t.Errorf("with a wrong one, of which the directory cannot be told: %v", err)
	}
	w.dir.down = false
	if fresh := w.mustIn("alice", "summer", "staff"); fresh.ID == old.ID || w.reasonOf(old.ID) != "the password was changed" {
		t.Errorf("the old certificate: %s", w.reasonOf(old.ID))
	}
	w.mustIn("bob", "spring", "staff")
}

// A directory that was restored from an older copy lacks users: they get new keys by logging in.
func TestDirectoryRestored(t *testing.T) {
	w := newWorld(t)
	old := w.mustIn("alice", "spring", "staff")
	w.dir.forget("alice")
	if fresh := w.mustIn("alice", "spring", "staff"); fresh.ID == old.ID || w.reasonOf(old.ID) != "the directory did not have the keys" {
		t.Errorf("the old certificate: %s", w.reasonOf(old.ID))
	}
}

// What a source tells of an account counts at once, waits for a login that is under way, and ends when the
// source lets the user in again.
func TestAccountEnds(t *testing.T) {
	w := newWorld(t)
	old := w.mustIn("alice", "spring", "staff")
	w.corp.Unfollow("alice")
	ended := w.listening().End
	if !w.corp.following("alice") {
		t.Error("the source was not told whom to look after")
	}
	for uid, want := range map[string]error{"nobody": source.ErrNotThere, "No Name": source.ErrNotThere, "alice": nil} {
		if err := ended(t.Context(), uid, source.Word{Why: "disabled\xff" + strings.Repeat("!", 1000)}); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", uid, err, want)
		}
	}
	if got := w.reasonOf(old.ID); !strings.HasPrefix(got, "source corp: disabled?!!") || len(got) > maxReason {
		t.Errorf("reason %q", got)
	}
	if u := w.user("alice"); u.Active() || u.Barred || u.RevokedBy != "source:corp" {
		t.Errorf("%+v", u)
	}
	if err := ended(t.Context(), "alice", source.Word{Why: "again"}); !errors.Is(err, source.ErrNotThere) {
		t.Errorf("twice: %v", err)
	}
	if fresh := w.mustIn("alice", "spring", "staff"); fresh.ID == old.ID {
		t.Error("the withdrawn certificate is back")
	}

	// A login that the source has accepted already, and an account that ends before it is through.
	slow := make(chan struct{})
	w.corp.mu.Lock()
	w.corp.slow = slow
	w.corp.mu.Unlock()
	asked := w.corp.timesAsked()
	in := make(chan error, 1)
	go func() { in <- second(w.in("alice", "spring")) }()
	for w.corp.timesAsked() == asked {
		time.Sleep(time.Millisecond)
	}
	gone := make(chan error, 1)
	go func() { gone <- ended(t.Context(), "alice", source.Word{Why: "disabled"}) }()
	time.Sleep(20 * time.Millisecond) // it would be through by now if it did not wait
	close(slow)
	if err := errors.Join(<-in, <-gone); err != nil {
		t.Fatal(err)
	}
	if u := w.user("alice"); u.Active() {
		t.Error("the login overtook what the source had told")
	}
	w.Gone("alice")
	if w.corp.following("alice") {
		t.Error("the source still looks after a user whom the operator revoked")
	}
}

// deafSource cannot watch.
type deafSource struct{ *corp }

func (deafSource) Watch(context.Context, source.Orders) error {
	return errors.New("port 3799 is taken")
}

func TestSourceThatCannotWatch(t *testing.T) {
	w := newWorld(t, deafSource{newCorp("deaf")})
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { w.Door.Run(ctx) })
	defer wg.Wait()
	defer stop()
	for end := time.Now().Add(10 * time.Second); len(w.Problems()) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("nobody is told")
		}
	}
	if got := strings.Join(w.Problems(), ""); !strings.Contains(got, "source deaf cannot tell of accounts that end") || !strings.Contains(got, "port 3799") {
		t.Errorf("%q", got)
	}
}

// The directory is told with the CRL whether there are sources, once there were any.
func TestDirectoryIsToldOfSources(t *testing.T) {
	w := newWorld(t)
	w.check(w.desk.PublishCRL(t.Context()))
	if w.dir.sources == nil || !*w.dir.sources {
		t.Error("it was not told")
	}
}

// A successor of the certificate that is made in the middle of a login is no reason to withdraw anything.
func TestRotationIsQuicker(t *testing.T) {
	for _, when := range []string{"while the source is asked", "while the source is asked, and the old one revoked", "before the CA vouches"} {
		t.Run(when, func(t *testing.T) {
			w := newWorld(t)
			old := w.mustIn("alice", "spring", "staff")
			rotate := sync.OnceFunc(func() {
				p := w.user("alice").Accepted.Params
				proof, err := keybundle.Derive([]byte("spring"), p)
				w.check(err)
				w.check(second(w.desk.RenewUser(t.Context(), "source:corp", issue.UserRequest{UID: "alice", Group: "staff", Source: "corp", Params: p, Verifier: keybundle.Verifier(proof.Auth.Bytes()), Seal: proof.Seal})))
				if strings.HasSuffix(when, "revoked") {
					w.check(w.led.Update(func(tx *ledger.Tx) error {
						c, _, err := tx.Cert(old.ID.Serial)
						c.Revoked = w.now
						return errors.Join(err, tx.Take(ledger.Effects{Certs: []ledger.Cert{c}}))
					}))
				}
			})
			if when == "before the CA vouches" {
				w.cfg.Vouch = func(ctx context.Context, v client.Vouch) error { rotate(); return w.dir.Vouch(ctx, v) }
			} else {
				w.cfg.Sources = []source.Source{&meddler{corp: w.corp, meanwhile: rotate}}
			}
			fresh := w.mustIn("alice", "spring", "staff")
			if w.dir.mu.Lock(); fresh.ID == old.ID || len(w.dir.revoked) > 0 {
				t.Errorf("the same certificate, or revoked: %+v", w.dir.revoked)
			}
			w.dir.mu.Unlock()
		})
	}
}

// What a session's end has revoked is gone; the user is not, and the next login brings another certificate.
func TestAfterASessionWhoseEndRevoked(t *testing.T) {
	w := newWorld(t)
	first := w.mustIn("alice", "spring", "staff")
	w.check(w.led.Update(func(tx *ledger.Tx) error {
		c, _, err := tx.Cert(first.ID.Serial)
		c.Revoked = w.now
		return errors.Join(err, tx.Take(ledger.Effects{Certs: []ledger.Cert{c}}))
	}))
	if fresh := w.mustIn("alice", "spring", "staff"); fresh.ID == first.ID {
		t.Error("the revoked certificate is vouched for")
	}
}
