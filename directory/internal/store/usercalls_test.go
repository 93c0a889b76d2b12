package store_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"twinkey/directory/client"
	"twinkey/directory/internal/store"
)

// office is a book with a router, users of two sources and a local one.
type office struct {
	*book
	seq uint64
}

func newOffice(t *testing.T) *office {
	t.Helper()
	o := &office{book: newBook(t)}
	o.apply(o.company.NewRouter("berlin", []string{"*"}, "10.1.0.0/16").Change())
	o.apply(o.company.NewUser("alice", "staff", "x").Of("corp").Change(), o.company.NewUser("bob", "staff", "x").Of("lab").Change(), o.company.NewUser("carol", "staff", "x").Change())
	return o
}

// tell has berlin tell of calls, each written as "event user" or, of a call that was placed elsewhere, "event user there".
func (o *office) tell(what ...string) {
	o.t.Helper()
	b := client.CallsBody{Run: "first"}
	for _, w := range what {
		o.seq++
		f := strings.Fields(w)
		b.Records = append(b.Records, client.CallRecord{Seq: o.seq, Time: time.Unix(1_800_000_000, 0).UTC(), Event: f[0], Call: o.seq, User: f[1], Peer: "paris",
			Initiator: len(f) == 2, TxBytes: o.seq, Reason: strings.Repeat("x", 1000), Cause: client.CauseIdle})
	}
	if err := o.RecordCalls(o.t.Context(), "twinkey://router/berlin", "berlin", b, trust); err != nil {
		o.t.Fatal(err)
	}
}

func (o *office) calls(source string, after uint64) (out []string, newest uint64) {
	o.t.Helper()
	got, err := o.UserCalls(o.t.Context(), "twinkey://ca", source, after)
	if err != nil {
		o.t.Fatal(err)
	}
	for _, c := range got.Calls {
		if c.Router != "berlin" || c.Run != "first" || c.Record.Cause != client.CauseIdle || len(c.Record.Reason) > 300 {
			o.t.Errorf("%+v", c)
		}
		out = append(out, fmt.Sprintf("%d %s %s", c.Seq, c.Record.Event, c.Record.User))
	}
	return out, got.Newest
}

// Each source gets what concerns its users where they logged in, in order, until the CA says that it has it.
func TestUserCalls(t *testing.T) {
	o := newOffice(t)
	before := o.revision()
	o.tell("up alice", "up bob", "up carol", "up alice there", "interim alice", "interim carol", "down alice", "down bob")
	want := []string{"1 up alice", "2 interim alice", "3 down alice"}
	for range 2 { // until it has said so
		if got, newest := o.calls("corp", 0); !slices.Equal(got, want) || newest != 3 {
			t.Errorf("%q, newest %d", got, newest)
		}
	}
	if got, _ := o.calls("corp", 2); !slices.Equal(got, want[2:]) {
		t.Errorf("after the second: %q", got)
	}
	if got, newest := o.calls("corp", 0); !slices.Equal(got, want[2:]) || newest != 3 {
		t.Errorf("what was dealt with is there again: %q", got)
	}
	if got, _ := o.calls("lab", 0); !slices.Equal(got, []string{"1 up bob", "2 down bob"}) {
		t.Errorf("of another source: %q", got)
	}
	if got, newest := o.calls("co", 0); got != nil || newest != 0 {
		t.Errorf("of a source whose name begins alike: %q, newest %d", got, newest)
	}
	// A copy that is older than what the CA remembers says so, and loses nothing.
	if got, newest := o.calls("corp", 100); got != nil || newest != 3 {
		t.Errorf("beyond the newest: %q, newest %d", got, newest)
	}
	if got, _ := o.calls("corp", 0); !slices.Equal(got, want[2:]) {
		t.Errorf("and after it: %q", got)
	}
	if o.revision() != before {
		t.Error("an account made a revision")
	}
	if _, err := o.UserCalls(t.Context(), "twinkey://ca", "no/name", 0); !errors.Is(err, client.ErrInvalid) {
		t.Errorf("a source that is none: %v", err)
	}
	n := 0
	o.read(func(r *store.Reader) error {
		for a, err := range r.Audit(store.AuditQuery{Kind: store.AuditCall}) {
			if err != nil {
				return err
			}
			if n++; strings.Contains(a.Detail, "interim") {
				t.Errorf("an interim stands in the audit records, where it stays: %s", a.Detail)
			}
		}
		return nil
	})
	if n != 6 {
		t.Errorf("%d audit records of calls, want 6", n)
	}
}

func TestUserCallsComeInBatches(t *testing.T) {
	o := newOffice(t)
	for range 3 {
		o.tell(slices.Repeat([]string{"interim alice"}, client.MaxCalls-50)...)
	}
	after, n := uint64(0), 0
	for {
		got, err := o.UserCalls(t.Context(), "twinkey://ca", "corp", after)
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Calls) == 0 {
			break
		}
		if len(got.Calls) > client.MaxCalls || got.Calls[0].Seq != after+1 {
			t.Fatalf("%d records from %d on, after %d", len(got.Calls), got.Calls[0].Seq, after)
		}
		after, n = got.Calls[len(got.Calls)-1].Seq, n+len(got.Calls)
	}
	if n != 3*(client.MaxCalls-50) {
		t.Errorf("%d records", n)
	}
}

// A CA that stays away costs the oldest records, not the disk.
func TestUserCallsAreBounded(t *testing.T) {
	o := newOffice(t)
	o.tell("up alice", "down alice", "up bob")
	if err := o.Write(t.Context(), "test", func(w *store.Writer) error { return w.SkipUserCalls("corp", store.MaxUserCalls) }); err != nil {
		t.Fatal(err)
	}
	o.tell("up alice")
	want := []string{"2 down alice", fmt.Sprintf("%d up alice", store.MaxUserCalls+1)}
	if got, _ := o.calls("corp", 0); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got, _ := o.calls("lab", 0); !slices.Equal(got, []string{"1 up bob"}) {
		t.Errorf("of another source: %q", got)
	}
}

// A router tells of calls of users in its scope. That one ended it may tell even so: the user was in another group when it began.
func TestUserCallsOutOfScope(t *testing.T) {
	o := newOffice(t)
	o.apply(o.company.NewRouter("rome", []string{"user:alice", "group:sales"}, "10.2.0.0/16").Change())
	o.apply(o.company.NewUser("dave", "sales", "x").Of("corp").Change(), o.company.NewUser("erin", "staff", "x").Of("corp").Change())
	b := client.CallsBody{Run: "first"}
	for _, uid := range []string{"alice", "dave", "erin"} {
		for _, event := range []string{client.CallUp, client.CallInterim, client.CallDown} {
			b.Records = append(b.Records, client.CallRecord{Seq: uint64(len(b.Records) + 1), Time: time.Unix(1_800_000_000, 0).UTC(), Event: event, Call: 1, User: uid, Peer: "berlin", Initiator: true})
		}
	}
	if err := o.RecordCalls(t.Context(), "twinkey://router/rome", "rome", b, trust); err != nil {
		t.Fatal(err)
	}
	got, err := o.UserCalls(t.Context(), "twinkey://ca", "corp", 0)
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	for _, c := range got.Calls {
		told = append(told, c.Router+" "+c.Record.Event+" "+c.Record.User)
	}
	if want := []string{"rome up alice", "rome interim alice", "rome down alice", "rome up dave", "rome interim dave", "rome down dave", "rome down erin"}; !slices.Equal(told, want) {
		t.Errorf("%q, want %q", told, want)
	}
}
