package login

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"twinkey/ca/internal/ledger"
	"twinkey/ca/internal/source"
	"twinkey/directory/client"
	"twinkey/pkg/twincert"
)

// certificate is alice's of now, as the directory has it.
func (w *world) certificate() *twincert.Certificate {
	w.Helper()
	w.dir.mu.Lock()
	defer w.dir.mu.Unlock()
	c, err := twincert.Parse(w.dir.certs[w.dir.present("alice")])
	w.check(err)
	if _, gone := w.dir.revoked[c.ID()]; gone {
		w.Error("the present certificate is revoked")
	}
	return c
}

// coa is what a source says of a change, if it cannot be out of turn.
var coa = source.Word{Why: "CoA-Request"}

// onCall notes that a call of alice has been up at a router since then, after a login.
func (w *world) onCall(router string, since time.Time) {
	w.Helper()
	w.check(w.led.Update(func(tx *ledger.Tx) error {
		return tx.PutOpenCall(ledger.OpenCall{Source: "corp", Name: router + "/1/" + since.String(), UID: "alice", Router: router, Address: netip.MustParseAddr("10.1.1.3"), Since: since, Login: since, Heard: since})
	}))
}

// Another group: the keys stay, and what was certified before is gone. The next login is measured by what the source says then.
func TestChangeOfGroup(t *testing.T) {
	w := newWorld(t)
	o := w.listening()
	first := w.mustIn("alice", "spring", "staff")
	was := w.certificate()
	w.check(w.desk.AddGroup(t.Context(), "operator:test", "admins"))
	w.check(o.Change(t.Context(), "alice", source.Change{Group: "admins"}, coa))
	c := w.certificate()
	if c.Group != "admins" || c.Keys.Data != was.Keys.Data || c.Keys.Control == was.Keys.Control || !c.NotAfter.Equal(was.NotAfter) {
		t.Errorf("%+v after %+v", c, was)
	}
	if got := w.reasonOf(first.ID); got != "source corp: CoA-Request" {
		t.Errorf("the certificate before: %s", got)
	}
	if u := w.user("alice"); u.Group != "admins" || !u.Active() || !u.Bound.IsZero() {
		t.Errorf("%+v", u)
	}

	// With the same password, in the group in which the source has them by now, what they have is what opens.
	w.corp.set("alice", "spring", "admins")
	w.berlin.Scope = []string{"group:admins"}
	if again := w.mustIn("alice", "spring", "admins"); again.ID != c.ID() {
		t.Error("the login brought another certificate")
	}
	// Told again, nothing happens.
	w.check(o.Change(t.Context(), "alice", source.Change{Group: "admins"}, coa))
	if w.certificate().ID() != c.ID() {
		t.Error("the same group brought another certificate")
	}
	// Another password, and a source that has them where they were.
	w.corp.set("alice", "summer", "admins")
	if fresh := w.mustIn("alice", "summer", "admins"); fresh.ID == c.ID() || w.reasonOf(c.ID()) != "the password was changed" {
		t.Errorf("after another password: %s", w.reasonOf(c.ID()))
	}
	w.check(o.Change(t.Context(), "alice", source.Change{Group: "staff"}, coa))
	moved := w.certificate()
	if w.mustIn("alice", "summer", "admins"); w.reasonOf(moved.ID()) != "the source has put the user into group admins" {
		t.Errorf("the source says what it said before: %s", w.reasonOf(moved.ID()))
	}
}

// A session's time is counted from its beginning, ends the certificate, and is not for the next session.
func TestChangeOfTime(t *testing.T) {
	for name, later := range map[string]time.Duration{"while it is good": 20 * time.Minute, "when it has ended": 2 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			o := w.listening()
			w.mustIn("alice", "spring", "staff")
			began, was := w.now, w.certificate()
			w.now = w.now.Add(10 * time.Minute)
			w.check(o.Change(t.Context(), "alice", source.Change{Session: time.Hour}, coa))
			c := w.certificate()
			if left := c.NotAfter.Sub(began); left > time.Hour || left <= time.Hour-time.Second || c.Keys != was.Keys || c.Group != "staff" {
				t.Errorf("it ends %s after the login: %+v", left, c)
			}
			if got := w.reasonOf(was.ID()); got != "source corp: CoA-Request" {
				t.Errorf("the certificate before: %s", got)
			}
			if u := w.user("alice"); !u.Bound.Equal(c.NotAfter) {
				t.Errorf("%+v", u)
			}
			w.now = w.now.Add(later)
			fresh := w.mustIn("alice", "spring", "staff")
			next := w.certificate()
			if fresh.ID == c.ID() || next.NotAfter.Sub(w.now) < 29*24*time.Hour || next.Keys.Data == c.Keys.Data {
				t.Errorf("the next session has %+v", next)
			}
			if got := w.reasonOf(c.ID()); got != "not revoked" {
				t.Errorf("the session that goes on: %s", got)
			}
			if u := w.user("alice"); !u.Bound.IsZero() {
				t.Errorf("%+v", u)
			}
			if again := w.mustIn("alice", "spring", "staff"); again.ID != fresh.ID {
				t.Error("and one more login brought another certificate")
			}
		})
	}
}

// claimed notes a call of alice as it was noted when nobody asked whether a router can be right.
func (w *world) claimed(router string, since time.Time) {
	w.Helper()
	w.check(w.led.Update(func(tx *ledger.Tx) error {
		return tx.PutOpenCall(ledger.OpenCall{Source: "corp", Name: router + "/1/1", UID: "alice", Router: router, Since: since, Heard: since})
	}))
}

// From when on a time counts, and how late it may be.
func TestFromWhenATimeCounts(t *testing.T) {
	const hour = time.Hour
	for name, tt := range map[string]struct {
		granted time.Duration // at the login, an hour ago
		asked   time.Duration
		prepare func(w *world, login time.Time)
		want    time.Duration // from the login until the end; 0: ErrImpossible
		over    bool          // and it has passed
		gone    bool          // ErrNotThere
	}{
		"from the login":                                    {asked: 2 * hour, want: 2 * hour},
		"of a call that came up later":                      {asked: 2 * hour, prepare: func(w *world, login time.Time) { w.onCall("berlin", login.Add(30*time.Minute)) }, want: 2 * hour},
		"of a call of an earlier login":                     {asked: 3 * hour, prepare: func(w *world, login time.Time) { w.onCall("berlin", login.Add(-hour)) }, want: 2 * hour},
		"of a call at another router":                       {asked: 3 * hour, prepare: func(w *world, login time.Time) { w.wasAt("paris", login.Add(-hour), 0); w.onCall("paris", login) }, want: 2 * hour},
		"not of before the login, on a router's word alone": {asked: 2 * hour, want: 2 * hour, prepare: func(w *world, login time.Time) { w.claimed("berlin", login.Add(-24*hour)) }},
		"not of before the login, at another router": {asked: 2 * hour, want: 2 * hour, prepare: func(w *world, login time.Time) {
			w.wasAt("paris", login, 0)
			w.claimed("paris", login.Add(-24*hour))
		}},
		"not of a login long ago": {asked: 2 * hour, prepare: func(w *world, login time.Time) { w.wasAt("paris", login.Add(-24*hour), hour) }, want: 2 * hour},
		"not of one whose calls are over": {asked: 2 * hour, prepare: func(w *world, login time.Time) {
			w.wasAt("paris", login.Add(-24*hour), hour)
			w.onCall("berlin", login)
		}, want: 2 * hour},
		"over":                 {asked: 30 * time.Minute, over: true},
		"just over":            {asked: hour, over: true},
		"as granted":           {granted: 2 * hour, asked: 2 * hour, want: 2 * hour},
		"shorter than granted": {granted: 3 * hour, asked: 2 * hour, want: 2 * hour},
		"longer than granted":  {granted: 2 * hour, asked: 2*hour + time.Second},
		"longer than granted elsewhere": {asked: 3 * hour, prepare: func(w *world, login time.Time) {
			w.wasAt("paris", login, 2*hour)
			w.onCall("paris", login)
			w.onCall("berlin", login)
		}},
		"longer than granted before a change": {granted: 3 * hour, asked: 3*hour + time.Second, prepare: func(w *world, _ time.Time) {
			w.check((&orders{w.Door, "corp"}).Change(w.Context(), "alice", source.Change{Session: 2 * hour}, coa))
		}},
		"later than a change before": {granted: 3 * hour, asked: 150 * time.Minute, prepare: func(w *world, _ time.Time) {
			w.check((&orders{w.Door, "corp"}).Change(w.Context(), "alice", source.Change{Session: 2 * hour}, coa))
		}, want: 150 * time.Minute},
		"as long as a certificate now":        {asked: 30*24*hour + hour, want: 30*24*hour + hour},
		"longer than any certificate":         {asked: 30*24*hour + hour + time.Second},
		"of a login that nothing is known of": {asked: 2 * hour, gone: true, prepare: func(w *world, _ time.Time) { w.wasAt("berlin", time.Time{}, 0) }},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			o := w.listening()
			w.now = w.now.Truncate(time.Second)
			w.corp.session = tt.granted
			w.mustIn("alice", "spring", "staff")
			login := w.now
			w.now = w.now.Add(hour)
			if tt.prepare != nil {
				tt.prepare(w, login)
			}
			was := w.certificate()
			err := o.Change(t.Context(), "alice", source.Change{Session: tt.asked}, coa)
			switch {
			case tt.over:
				if u := w.user("alice"); err != nil || u.Active() || u.Reason != "source corp: CoA-Request: the session time is over" {
					t.Errorf("%v, %+v", err, u)
				}
			case tt.gone, tt.want == 0:
				want := source.ErrImpossible
				if tt.gone {
					want = source.ErrNotThere
				}
				if !errors.Is(err, want) || w.certificate().ID() != was.ID() {
					t.Errorf("%v, want %v", err, want)
				}
			default:
				if got := w.certificate().NotAfter.Sub(login); err != nil || got != tt.want {
					t.Errorf("%v, it ends %s after the login, want %s", err, got, tt.want)
				}
			}
		})
	}
}

// wasAt is a login of alice at a router, long as the source granted then; at no time: there was none.
func (w *world) wasAt(router string, at time.Time, granted time.Duration) {
	w.Helper()
	w.check(w.led.Update(func(tx *ledger.Tx) error {
		l := ledger.Login{UID: "alice", Router: router, Source: "corp", Session: granted, Time: at}
		if at.IsZero() {
			l.Source = "another"
		}
		return tx.PutLogin(l)
	}))
}

// Both at once; and what there is nobody or no group for.
func TestChangeRefused(t *testing.T) {
	w := newWorld(t)
	o := w.listening()
	w.mustIn("alice", "spring", "staff")
	was := w.certificate()
	other := &orders{w.Door, "other"}
	for name, tt := range map[string]struct {
		orders source.Orders
		uid    string
		change source.Change
		want   error
	}{
		"nobody":                    {o, "bob", source.Change{Group: "staff"}, source.ErrNotThere},
		"nobody, and a time":        {o, "bob", source.Change{Session: time.Hour}, source.ErrNotThere},
		"no name":                   {o, "No Name", source.Change{Group: "staff"}, source.ErrNotThere},
		"another source's":          {other, "alice", source.Change{Group: "staff"}, source.ErrNotThere},
		"another source's, a time":  {other, "alice", source.Change{Session: time.Hour}, source.ErrNotThere},
		"a group that there is not": {o, "alice", source.Change{Group: "admins"}, source.ErrImpossible},
		"and a time":                {o, "alice", source.Change{Group: "admins", Session: time.Hour}, source.ErrImpossible},
	} {
		if err := tt.orders.Change(t.Context(), tt.uid, tt.change, coa); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
	w.dir.down = true
	err := o.Change(t.Context(), "alice", source.Change{Session: time.Hour}, coa)
	if !errors.Is(err, client.ErrUnavailable) || errors.Is(err, source.ErrImpossible) || errors.Is(err, source.ErrNotThere) {
		t.Errorf("the directory is away: %v", err)
	}
	w.dir.down = false
	if w.certificate().ID() != was.ID() {
		t.Error("what was refused has brought another certificate")
	}
	w.check(w.desk.AddGroup(t.Context(), "operator:test", "admins"))
	w.check(o.Change(t.Context(), "alice", source.Change{Group: "admins", Session: time.Hour}, coa))
	if c := w.certificate(); c.Group != "admins" || c.NotAfter.Sub(w.now) > time.Hour {
		t.Errorf("%+v", c)
	}
	// Whom the operator has revoked nothing that a source says brings back.
	if _, err := w.desk.RevokeUser(t.Context(), "operator:test", "alice", ""); err != nil {
		t.Fatal(err)
	}
	if err := o.Change(t.Context(), "alice", source.Change{Group: "staff"}, coa); !errors.Is(err, source.ErrNotThere) || w.user("alice").Active() {
		t.Errorf("barred: %v", err)
	}
}

// told is an order as a source gives it so many seconds after another: a change of the group, or the end.
type told struct {
	second int
	id     string
	group  string // empty: the end
	down   bool   // the directory, meanwhile
	want   error
	after  string // alice's group then; empty: she has ended
}

func (w *world) tell(o source.Orders, now time.Time, s told) error {
	said := source.Word{Why: "said", Said: now.Add(time.Duration(s.second) * time.Second), ID: []byte(s.id)}
	if s.group == "" {
		return o.End(w.Context(), "alice", said)
	}
	return o.Change(w.Context(), "alice", source.Change{Group: s.group}, said)
}

// What was said before something that has come is not obeyed any more, however it is held back, whatever became of either, and
// whether the CA has run since without a break: nothing of it is in memory alone.
func TestOrdersOutOfTurn(t *testing.T) {
	late := source.ErrImpossible
	for name, steps := range map[string][]told{
		"recorded, and sent again":        {{0, "a", "admins", false, nil, "admins"}, {120, "b", "guests", false, nil, "guests"}, {0, "a", "admins", false, late, "guests"}, {120, "b", "guests", false, nil, "guests"}},
		"held back":                       {{120, "b", "guests", false, nil, "guests"}, {0, "a", "admins", false, late, "guests"}, {119, "c", "admins", false, late, "guests"}, {121, "d", "admins", false, nil, "admins"}},
		"failed, and overtaken":           {{0, "a", "admins", true, client.ErrUnavailable, "staff"}, {1, "b", "guests", false, nil, "guests"}, {0, "a", "admins", false, late, "guests"}},
		"failed, and tried again":         {{0, "a", "admins", true, client.ErrUnavailable, "staff"}, {0, "a", "admins", false, nil, "admins"}},
		"held back, the later one failed": {{1, "b", "guests", true, client.ErrUnavailable, "staff"}, {0, "a", "admins", false, late, "staff"}, {1, "b", "guests", false, nil, "guests"}},
		"what changes nothing counts":     {{1, "b", "staff", false, nil, "staff"}, {0, "a", "admins", false, late, "staff"}},
		"of one second":                   {{0, "a", "admins", false, nil, "admins"}, {0, "b", "guests", false, nil, "guests"}, {0, "a", "admins", false, late, "guests"}, {0, "b", "guests", false, nil, "guests"}},
		"of one second, the first failed": {{0, "a", "admins", true, client.ErrUnavailable, "staff"}, {0, "b", "guests", false, nil, "guests"}, {0, "a", "admins", false, late, "guests"}},
		"of one second, an end":           {{0, "a", "admins", false, nil, "admins"}, {0, "b", "", false, nil, ""}, {0, "a", "admins", false, late, ""}},
		"an end, held back":               {{1, "b", "guests", false, nil, "guests"}, {0, "a", "", false, late, "guests"}},
		"a change, before an end":         {{1, "b", "", false, nil, ""}, {0, "a", "admins", false, late, ""}},
		"refused for good":                {{0, "a", "nobodys", false, late, "staff"}, {0, "a", "nobodys", false, late, "staff"}, {0, "b", "admins", false, nil, "admins"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.mustIn("alice", "spring", "staff")
			for _, g := range []string{"admins", "guests"} {
				w.check(w.desk.AddGroup(t.Context(), "operator:test", g))
			}
			for i, s := range steps {
				w.dir.down = s.down
				if err := w.tell(&orders{w.Door, "corp"}, w.now, s); !errors.Is(err, s.want) || s.want == nil && err != nil {
					t.Errorf("step %d: %v, want %v", i, err, s.want)
				}
				if u := w.user("alice"); u.Active() != (s.after != "") || u.Active() && u.Group != s.after {
					t.Errorf("step %d: active %v, in group %s; want %q", i, u.Active(), u.Group, s.after)
				}
			}
		})
	}
}

// What was obeyed, or refused for good, is not done again after a login, which has asked the source anew.
func TestOrdersAgainAfterALogin(t *testing.T) {
	w := newWorld(t)
	w.berlin.Scope = []string{"*"}
	o := &orders{w.Door, "corp"}
	w.mustIn("alice", "spring", "staff")
	w.check(w.desk.AddGroup(t.Context(), "operator:test", "admins"))
	change, end, none := told{second: 0, id: "a", group: "admins"}, told{second: 1, id: "b"}, told{second: 2, id: "c"}
	w.check(w.tell(o, w.now, change))
	w.mustIn("alice", "spring", "staff") // as its source has her by now
	w.check(w.tell(o, w.now, change))
	if u := w.user("alice"); u.Group != "staff" {
		t.Errorf("a recording brought back group %s", u.Group)
	}
	w.check(w.tell(o, w.now, end))
	if err := w.tell(o, w.now, none); !errors.Is(err, source.ErrNotThere) {
		t.Errorf("ended already: %v", err)
	}
	w.mustIn("alice", "spring", "staff")
	for _, s := range []told{end, none} {
		if err := w.tell(o, w.now, s); !errors.Is(err, source.ErrImpossible) || !w.user("alice").Active() {
			t.Errorf("%+v again: %v", s, err)
		}
	}
}

// An order counts from when it comes, not from when it is its turn; of users whom the source does not have nothing is noted.
func TestOrderIsNotedWhenItComes(t *testing.T) {
	w := newWorld(t)
	o := &orders{w.Door, "corp"}
	w.mustIn("alice", "spring", "staff")
	for _, g := range []string{"admins", "guests"} {
		w.check(w.desk.AddGroup(t.Context(), "operator:test", g))
	}
	leave, err := w.line.wait(t.Context(), "alice")
	w.check(err)
	ctx, stop := context.WithCancel(t.Context())
	stop()
	said := source.Word{Said: w.now, ID: []byte("a")}
	if err := o.Change(ctx, "alice", source.Change{Group: "admins"}, said); !errors.Is(err, context.Canceled) {
		t.Errorf("in a line that does not move: %v", err)
	}
	leave()
	w.check(w.tell(o, w.now, told{id: "b", group: "guests"}))
	if err := o.Change(t.Context(), "alice", source.Change{Group: "admins"}, said); !errors.Is(err, source.ErrImpossible) || w.user("alice").Group != "guests" {
		t.Errorf("the first again: %v, group %s", err, w.user("alice").Group)
	}
	for _, src := range []string{"corp", "other"} {
		for _, uid := range []string{"bob", "alice"} {
			if src == "corp" && uid == "alice" {
				continue
			}
			if err := (&orders{w.Door, src}).End(t.Context(), uid, said); !errors.Is(err, source.ErrNotThere) {
				t.Errorf("%s of %s: %v", uid, src, err)
			}
			w.check(w.led.View(func(tx *ledger.Tx) error {
				if _, ok, err := tx.Order(src, uid); ok || err != nil {
					t.Errorf("noted of %s of %s: %v", uid, src, err)
				}
				return nil
			}))
		}
	}
}

// A login that the source has accepted in one group, and a change to another before it is through: the change comes after it.
func TestChangeWaitsForALogin(t *testing.T) {
	w := newWorld(t)
	o := w.listening()
	w.mustIn("alice", "spring", "staff")
	w.check(w.desk.AddGroup(t.Context(), "operator:test", "admins"))
	slow := make(chan struct{})
	w.corp.mu.Lock()
	w.corp.slow = slow
	w.corp.mu.Unlock()
	asked := w.corp.timesAsked()
	in, changed := make(chan error, 1), make(chan error, 1)
	go func() { in <- second(w.in("alice", "spring")) }()
	for w.corp.timesAsked() == asked {
		time.Sleep(time.Millisecond)
	}
	go func() {
		changed <- o.Change(t.Context(), "alice", source.Change{Group: "admins"}, coa)
	}()
	time.Sleep(20 * time.Millisecond) // it would be through by now if it did not wait
	if u := w.user("alice"); u.Group != "staff" {
		t.Error("the change did not wait")
	}
	close(slow)
	if err := errors.Join(<-in, <-changed); err != nil {
		t.Fatal(err)
	}
	if c := w.certificate(); c.Group != "admins" {
		t.Errorf("the login overtook what the source had told: group %s", c.Group)
	}
}

// A router that is still at it when the user is changed opens what the user has by then. Of a login a minute ago nothing is said again.
func TestChangeRightAfterALogin(t *testing.T) {
	w := newWorld(t)
	o := w.listening()
	w.mustIn("alice", "spring", "staff")
	w.check(second(w.Login(t.Context(), w.paris, "alice", []byte("spring"))))
	w.wasAt("rome", w.now.Add(-client.VouchLife), 0)
	w.check(w.desk.AddGroup(t.Context(), "operator:test", "admins"))
	before := w.vouches()
	for _, c := range []source.Change{{Group: "admins"}, {Group: "admins"}} { // the second changes nothing
		w.check(o.Change(t.Context(), "alice", c, coa))
	}
	at := map[string]bool{}
	for _, v := range w.dir.vouches[before:] {
		if at[v.Router] = true; v.ID != w.certificate().ID() || v.UID != "alice" || v.Source != "corp" {
			t.Errorf("vouched: %+v", v)
		}
	}
	if w.vouches() != before+2 || !at["berlin"] || !at["paris"] {
		t.Errorf("vouched for at %v", at)
	}
	w.now = w.now.Add(client.VouchLife)
	w.check(o.Change(t.Context(), "alice", source.Change{Group: "staff"}, coa))
	if w.vouches() != before+2 {
		t.Error("vouched for a login a minute ago")
	}
}
