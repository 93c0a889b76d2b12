package accounts

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"twinkey/ca/internal/ledger"
	"twinkey/ca/internal/source"
	"twinkey/directory/client"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// office is a clerk between a directory and a source that the test plays.
type office struct {
	*testing.T
	*Clerk
	led *ledger.Ledger
	now time.Time

	mu    sync.Mutex
	queue []client.UserCall // what the directory has
	acked uint64
	err   error // of the directory
	told  []string
	away  error // of the source
}

func newOffice(t *testing.T) *office {
	t.Helper()
	o := &office{T: t, now: noon.Add(time.Hour)}
	var err error
	if o.led, err = ledger.Open(filepath.Join(t.TempDir(), "ledger.db")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := o.led.Close(); err != nil {
			t.Error(err)
		}
	})
	o.check(o.led.Update(func(tx *ledger.Tx) error {
		return errors.Join(tx.PutLogin(ledger.Login{UID: "alice", Router: "berlin", Source: "corp", State: []byte("class")}),
			tx.PutLogin(ledger.Login{UID: "alice", Router: "rome", Source: "corp"}),
			tx.PutLogin(ledger.Login{UID: "bob", Router: "berlin", Source: "lab", State: []byte("of another source")}))
	}))
	o.start()
	return o
}

// start makes a clerk: after a restart there is another one.
func (o *office) start() {
	o.Clerk = New(Config{Source: "corp", To: o, Read: o.read, Ledger: o.led, Now: func() time.Time { return o.now }})
}

func (o *office) check(err error) {
	o.Helper()
	if err != nil {
		o.Fatal(err)
	}
}

// Account is the source.
func (o *office) Account(_ context.Context, e source.Event) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.away != nil {
		return o.away
	}
	o.told = append(o.told, fmt.Sprintf("%d %s %s at %s of %s in %d out %d after %s cause %d state %s", e.What, e.Session, e.UID, e.Time.Format("15:04"), e.Router, e.BytesIn, e.BytesOut, e.Lasted, e.Cause, e.State))
	if e.Address.IsValid() != (e.UID == "alice") {
		o.Errorf("address %s of %s", e.Address, e.UID)
	}
	return nil
}

// read is the directory.
func (o *office) read(_ context.Context, src string, after uint64) (out client.UserCalls, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if src != "corp" {
		o.Errorf("asked for source %s", src)
	}
	if o.err != nil {
		return out, o.err
	}
	o.acked = after
	if n := len(o.queue); n > 0 {
		out.Newest = o.queue[n-1].Seq
	}
	if after > out.Newest {
		return out, nil
	}
	for _, c := range o.queue {
		if c.Seq > after && len(out.Calls) < 2 {
			out.Calls = append(out.Calls, c)
		}
	}
	return out, nil
}

// hears queues a record of alice's call 7, or of that of somebody else, made so many minutes after noon.
func (o *office) hears(event string, minutes int, change func(*client.UserCall)) {
	at := noon.Add(time.Duration(minutes) * time.Minute)
	c := client.UserCall{Router: "berlin", Run: "first", Record: client.CallRecord{Time: at, Event: event, Call: 7, User: "alice", Peer: "paris", Initiator: true, Address: netip.MustParseAddr("10.1.1.3")}}
	if event != client.CallUp {
		c.Record.Since, c.Record.TxBytes, c.Record.RxBytes = noon, uint64(100*minutes), uint64(1000*minutes) //nolint:gosec // a test
	}
	if change != nil {
		change(&c)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	c.Seq = 1
	if n := len(o.queue); n > 0 {
		c.Seq = o.queue[n-1].Seq + 1
	}
	o.queue = append(o.queue, c)
}

// rounds lets the clerk work until it has nothing more to do, and returns what the source was told meanwhile.
func (o *office) rounds() []string {
	o.Helper()
	o.mu.Lock()
	o.told = nil
	o.mu.Unlock()
	for more, n := true, 0; more; n++ {
		var err error
		if more, err = o.round(o.Context()); err != nil || n > 1000 {
			o.Fatalf("round %d: %v", n, err)
		}
	}
	return o.told
}

func (o *office) want(got []string, want ...string) {
	o.Helper()
	if !slices.Equal(got, want) {
		o.Errorf("told\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

func (o *office) open() (names []string) {
	o.Helper()
	o.check(o.led.View(func(tx *ledger.Tx) error {
		calls, err := tx.OpenCalls("corp", "")
		for _, c := range calls {
			names = append(names, c.Name)
		}
		return err
	}))
	return names
}

// Start, interim and stop, in order, with what the source said at the login that led to the call.
func TestACall(t *testing.T) {
	o := newOffice(t)
	o.hears(client.CallUp, 0, nil)
	o.hears(client.CallInterim, 5, nil)
	o.want(o.rounds(),
		"1 berlin/first/7 alice at 12:00 of berlin in 0 out 0 after 0s cause 0 state class",
		"2 berlin/first/7 alice at 12:05 of berlin in 500 out 5000 after 5m0s cause 0 state class")
	if o.acked != 2 {
		t.Errorf("the directory keeps what was told: up to %d it may forget", o.acked)
	}
	// Another login meanwhile, and a restart: the call's state stays what it was.
	o.check(o.led.Update(func(tx *ledger.Tx) error {
		return tx.PutLogin(ledger.Login{UID: "alice", Router: "berlin", Source: "corp", State: []byte("newer")})
	}))
	o.start()
	o.hears(client.CallDown, 9, func(c *client.UserCall) { c.Record.Cause = client.CauseIdle })
	o.want(o.rounds(), fmt.Sprintf("3 berlin/first/7 alice at 12:09 of berlin in 900 out 9000 after 9m0s cause %d state class", source.CauseIdle))
	o.want(o.rounds())
	o.want(o.open())
}

func TestCauses(t *testing.T) {
	for word, want := range map[string]source.Cause{
		"": source.CauseUnknown, "something newer": source.CauseUnknown, client.CauseLogout: source.CauseUser, client.CauseLost: source.CauseLost,
		client.CauseIdle: source.CauseIdle, client.CauseSession: source.CauseSession, client.CauseRevoked: source.CauseRevoked, client.CauseShutdown: source.CauseShutdown,
	} {
		if got := cause(word); got != want {
			t.Errorf("%q: %d, want %d", word, got, want)
		}
	}
}

// What is told of a call whose beginning nobody remembers, and of one that began when nobody told.
func TestWithoutABeginning(t *testing.T) {
	o := newOffice(t)
	o.hears(client.CallDown, 9, nil)
	o.hears(client.CallInterim, 10, func(c *client.UserCall) { c.Record.Call = 8 })
	o.hears("something newer", 11, nil)
	o.want(o.rounds(),
		"3 berlin/first/7 alice at 12:09 of berlin in 900 out 9000 after 9m0s cause 0 state class",
		"2 berlin/first/8 alice at 12:10 of berlin in 1000 out 10000 after 10m0s cause 0 state class")
	o.want(o.open(), "berlin/first/8")
	if o.acked != 3 {
		t.Errorf("the directory keeps what is passed over: up to %d it may forget", o.acked)
	}
}

// A router is believed of users whom this source has let in there, and of nobody else, whatever it numbers its calls. What
// is not believed is dealt with, and holds up nothing.
func TestInventedCalls(t *testing.T) {
	as := func(uid string, call uint64) func(*client.UserCall) {
		return func(c *client.UserCall) { c.Record.User, c.Record.Call, c.Record.Address = uid, call, netip.Addr{} }
	}
	o := newOffice(t)
	o.hears(client.CallUp, 1, as("bob", 8)) // another source let him in
	for _, event := range []string{client.CallUp, client.CallInterim, client.CallDown} {
		o.hears(event, 2, as("carol", 9))
		o.hears(event, 2, func(c *client.UserCall) { c.Router = "oslo" })
	}
	o.want(o.rounds())
	o.want(o.open())
	if o.acked != 7 {
		t.Errorf("up to %d the directory may forget", o.acked)
	}
	o.hears(client.CallUp, 3, nil)
	o.rounds()
	o.hears(client.CallDown, 4, as("carol", 7)) // alice's
	o.want(o.rounds())
	o.want(o.open(), "berlin/first/7")
}

// A router whose clock is ahead, or that says so, has no call up for ever.
func TestCallOfTheFuture(t *testing.T) {
	o := newOffice(t)
	o.hears(client.CallUp, 0, func(c *client.UserCall) { c.Record.Time = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC) })
	o.want(o.rounds(), "1 berlin/first/7 alice at 13:00 of berlin in 0 out 0 after 0s cause 0 state class")
	o.now = o.now.Add(unheard + sweepEvery)
	o.want(o.rounds(), fmt.Sprintf("3 berlin/first/7 alice at 13:00 of berlin in 0 out 0 after 0s cause %d state class", source.CauseLost))
	o.want(o.open())
}

// A call began no sooner than the login that it came of, whatever its router says; that of an earlier login that is known stays what it was.
func TestCallOlderThanItsLogin(t *testing.T) {
	o := newOffice(t)
	loggedIn := func(minutes int) {
		o.check(o.led.Update(func(tx *ledger.Tx) error {
			return tx.PutLogin(ledger.Login{UID: "alice", Router: "berlin", Source: "corp", State: []byte("class"), Time: noon.Add(time.Duration(minutes) * time.Minute)})
		}))
	}
	loggedIn(0)
	claims := func(at, since int) {
		o.hears(client.CallInterim, at, func(c *client.UserCall) { c.Record.Since = noon.Add(time.Duration(since) * time.Minute) })
	}
	claims(5, -24*60)
	o.want(o.rounds(), "2 berlin/first/7 alice at 12:05 of berlin in 500 out 5000 after 5m0s cause 0 state class")
	loggedIn(10)
	claims(15, -24*60)
	o.want(o.rounds(), "2 berlin/first/7 alice at 12:15 of berlin in 1500 out 15000 after 15m0s cause 0 state class")
	o.check(o.led.View(func(tx *ledger.Tx) error {
		c, ok, err := tx.OpenCall("corp", "berlin/first/7")
		if !ok || !c.Since.Equal(noon) || !c.Login.Equal(noon) {
			t.Errorf("%+v", c)
		}
		return err
	}))
	o.hears(client.CallInterim, 20, func(c *client.UserCall) { c.Record.Call, c.Record.Since = 8, noon.Add(12*time.Minute) })
	o.want(o.rounds(), "2 berlin/first/8 alice at 12:20 of berlin in 2000 out 20000 after 8m0s cause 0 state class")
}

// Nobody has more than so many calls at a router, over restarts too; one that ends makes room.
func TestOpenCallsAreBounded(t *testing.T) {
	o := newOffice(t)
	numbered := func(n int) func(*client.UserCall) {
		return func(c *client.UserCall) { c.Record.Call = uint64(n) } //nolint:gosec // a test
	}
	for n := range maxOpen + 5 {
		o.hears(client.CallUp, 0, numbered(n))
	}
	if got := o.rounds(); len(got) != maxOpen || len(o.open()) != maxOpen {
		t.Errorf("told of %d, %d open", len(got), len(o.open()))
	}
	o.start()
	o.hears(client.CallUp, 1, numbered(1000))
	o.want(o.rounds())
	o.hears(client.CallInterim, 2, numbered(3))
	o.hears(client.CallDown, 3, numbered(4))
	o.hears(client.CallUp, 4, numbered(1001))
	o.hears(client.CallUp, 5, numbered(1002))
	o.hears(client.CallUp, 6, func(c *client.UserCall) { c.Router = "rome" })
	if got := o.rounds(); len(got) != 4 || !strings.Contains(got[2], "berlin/first/1001") || !strings.Contains(got[3], "rome/first/7") {
		t.Errorf("%q", got)
	}
}

// What is open at a router is looked through when its run is another one, not at each record; and once more for calls that
// the new run's first record could not end.
func TestWhatIsOpenIsSeldomLookedThrough(t *testing.T) {
	o := newOffice(t)
	o.rounds() // it sweeps
	o.hears(client.CallUp, 10, nil)
	o.rounds()
	o.check(o.led.Update(func(tx *ledger.Tx) error {
		return tx.PutOpenCall(ledger.OpenCall{Source: "corp", Name: "berlin/other/1", UID: "alice", Router: "berlin", Run: "other", Address: netip.MustParseAddr("10.1.1.3"), Since: noon, Heard: noon})
	}))
	o.hears(client.CallInterim, 11, nil)
	o.rounds()
	o.want(o.open(), "berlin/first/7", "berlin/other/1")
	run := func(c *client.UserCall) { c.Run, c.Record.Call = "second", 1 }
	o.hears(client.CallUp, 5, run) // its clock went back
	o.rounds()
	o.want(o.open(), "berlin/first/7", "berlin/second/1")
	o.hears(client.CallInterim, 11, run)
	o.rounds()
	o.want(o.open(), "berlin/second/1")
}

// A source that is away is told later, once, in order; what it will never take holds up nothing.
func TestSourceAway(t *testing.T) {
	o := newOffice(t)
	o.hears(client.CallUp, 0, nil)
	o.hears(client.CallDown, 9, nil)
	o.away = fmt.Errorf("no answer: %w", source.ErrUnavailable)
	for range 3 {
		if _, err := o.round(t.Context()); !errors.Is(err, source.ErrUnavailable) {
			t.Fatalf("%v", err)
		}
	}
	if o.acked != 0 {
		t.Error("the directory may forget what was not told")
	}
	o.away = nil
	if got := o.rounds(); len(got) != 2 || !strings.HasPrefix(got[0], "1 ") || !strings.HasPrefix(got[1], "3 ") {
		t.Errorf("%q", got)
	}
	o.hears(client.CallUp, 20, nil)
	o.away = errors.New("malformed")
	o.want(o.rounds())
	o.away = nil
	o.want(o.rounds())
}

// A router that runs anew had its calls end; those of others go on.
func TestRouterRunsAnew(t *testing.T) {
	o := newOffice(t)
	o.hears(client.CallUp, 0, nil)
	o.hears(client.CallInterim, 5, nil)
	o.hears(client.CallUp, 6, func(c *client.UserCall) { c.Router = "rome" })
	o.rounds()
	o.hears(client.CallUp, 30, func(c *client.UserCall) { c.Run, c.Record.Call = "second", 1 })
	o.want(o.rounds(),
		fmt.Sprintf("3 berlin/first/7 alice at 12:05 of berlin in 500 out 5000 after 5m0s cause %d state class", source.CauseLost),
		"1 berlin/second/1 alice at 12:30 of berlin in 0 out 0 after 0s cause 0 state class")
	o.want(o.open(), "berlin/second/1", "rome/first/7")
}

// A call that is not heard of for a day has ended when it was last heard of.
func TestUnheardCall(t *testing.T) {
	o := newOffice(t)
	o.hears(client.CallUp, 0, nil)
	o.hears(client.CallInterim, 5, nil)
	o.rounds()
	o.now = noon.Add(unheard)
	o.want(o.rounds())
	o.now = o.now.Add(sweepEvery)
	o.want(o.rounds(), fmt.Sprintf("3 berlin/first/7 alice at 12:05 of berlin in 500 out 5000 after 5m0s cause %d state class", source.CauseLost))
	o.want(o.open())
}

// A directory that was restored from an older copy counts from less: everything that it has is told, again if need be.
func TestDirectoryRestored(t *testing.T) {
	o := newOffice(t)
	for i := range 5 {
		o.hears(client.CallUp, i, func(c *client.UserCall) { c.Record.Call = uint64(i) }) //nolint:gosec // a test
	}
	o.rounds()
	o.queue = o.queue[:2]
	if got := o.rounds(); len(got) != 2 {
		t.Errorf("%q", got)
	}
	o.hears(client.CallUp, 9, nil)
	if got := o.rounds(); len(got) != 1 {
		t.Errorf("%q", got)
	}
	o.queue = nil // a new one
	o.rounds()
	o.hears(client.CallUp, 9, nil)
	if got := o.rounds(); len(got) != 1 {
		t.Errorf("after a new directory: %q", got)
	}
}

// A directory that counts backwards is not followed for ever.
func TestDirectoryThatRepeatsItself(t *testing.T) {
	o := newOffice(t)
	o.hears(client.CallUp, 0, nil)
	o.queue = append(o.queue, o.queue[0])
	o.cfg.Read = func(context.Context, string, uint64) (client.UserCalls, error) {
		return client.UserCalls{Newest: 1, Calls: o.queue}, nil
	}
	if _, err := o.round(t.Context()); err == nil || !strings.Contains(err.Error(), "record 1 after 1") {
		t.Errorf("%v", err)
	}
}

func TestLongNames(t *testing.T) {
	long := client.UserCall{Router: "berlin", Run: strings.Repeat("r", 128), Record: client.CallRecord{Call: 1}}
	other := long
	other.Record.Call = 2
	if a, b := callName(long), callName(other); len(a) > maxName || a == b || !strings.HasPrefix(a, callsOf("berlin")) {
		t.Errorf("%q and %q", a, b)
	}
}

// The clerk looks every few seconds, more seldom while something is away, and stops when it is told to.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t)
		var looks []time.Duration
		began := time.Now()
		o.cfg.Read = func(ctx context.Context, src string, after uint64) (client.UserCalls, error) {
			o.mu.Lock()
			looks = append(looks, time.Since(began))
			o.mu.Unlock()
			return o.read(ctx, src, after)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); o.Clerk.Run(ctx) }()
		time.Sleep(11 * time.Second)
		o.mu.Lock()
		o.err = &client.Error{Code: client.CodeUnavailable}
		o.mu.Unlock()
		time.Sleep(5 * time.Minute)
		o.mu.Lock()
		if len(looks) < 8 || len(looks) > 14 || looks[1] != every || looks[2] != 2*every {
			t.Errorf("looked after %v", looks)
		}
		o.err = nil
		o.mu.Unlock()
		o.hears(client.CallUp, 0, nil)
		time.Sleep(lastRetry + time.Second)
		stop()
		<-done
		if len(o.told) != 1 {
			t.Errorf("told %q", o.told)
		}
	})
}
