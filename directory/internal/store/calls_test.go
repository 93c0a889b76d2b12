package store_test

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"twinkey/directory/client"
	"twinkey/directory/internal/store"
	"twinkey/pkg/twincert"
)

func TestRecordCalls(t *testing.T) {
	b := newBook(t)
	berlin := b.company.NewRouter("berlin", []string{"*"}, "10.1.0.0/16")
	b.apply(berlin.Change())
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	up := client.CallRecord{Time: at, Event: client.CallUp, Call: 7, User: "alice", Peer: "paris", Initiator: true, Address: netip.MustParseAddr("10.1.1.3"), ID: berlin.Twin.ID(), Suite: "aes256-gcm"}
	down := up
	down.Time, down.Event, down.Suite = at.Add(90*time.Minute), client.CallDown, ""
	down.Since, down.RxBytes, down.RxPackets, down.TxBytes, down.TxPackets, down.Reason = at, 1000, 10, 2000, 20, "hung up by the operator"
	link := client.CallRecord{Time: at, Event: client.CallUp, Call: 8, Peer: "paris", ID: berlin.Twin.ID(), Suite: "aes256-gcm"}
	lost := client.CallRecord{Time: at, Event: client.CallsLost, Lost: 12}
	numbered := func(from uint64, rs ...client.CallRecord) []client.CallRecord {
		rs = slices.Clone(rs)
		for i := range rs {
			rs[i].Seq = from + uint64(i) //nolint:gosec // not negative
		}
		return rs
	}
	tell := func(run string, rs []client.CallRecord) error {
		return b.RecordCalls(t.Context(), "twinkey://router/berlin", "berlin", client.CallsBody{Run: run, Records: rs}, trust)
	}
	details := func() (out []string) {
		b.read(func(r *store.Reader) error {
			for a, err := range r.Audit(store.AuditQuery{Kind: store.AuditCall}) {
				if err != nil {
					return err
				}
				if a.Actor != "twinkey://router/berlin" {
					t.Errorf("told by %s", a.Actor)
				}
				out = append(out, a.Subject+": "+a.Detail)
			}
			return nil
		})
		return out
	}
	before := b.revision()
	for _, rs := range [][]client.CallRecord{numbered(1, up, link), numbered(1, up, link, down), numbered(2, link, down), numbered(3, down)} { // answers were lost
		if err := tell("first", rs); err != nil {
			t.Fatal(err)
		}
	}
	if err := tell("second", numbered(1, lost)); err != nil {
		t.Fatal(err)
	}
	id := berlin.Twin.ID().String()
	want := []string{
		"alice: call 7 to paris up at 2026-01-02T03:04:05Z, address 10.1.1.3, aes256-gcm, certificate " + id,
		"berlin: site link 8 from paris up at 2026-01-02T03:04:05Z, aes256-gcm, certificate " + id,
		"alice: call 7 to paris down at 2026-01-02T04:34:05Z, address 10.1.1.3 after 1h30m0s, in 1000 bytes 10 packets, out 2000 bytes 20 packets: hung up by the operator",
		"berlin: the router runs anew, and numbers its calls from 1: those whose end it has not told ended with the run before",
		"berlin: 12 records of calls were lost: the directory was away for too long",
	}
	if got := details(); !slices.Equal(got, want) {
		t.Errorf("noted\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
	if b.revision() != before {
		t.Error("an account made a revision")
	}

	change := func(f func(*client.CallRecord)) []client.CallRecord {
		r := up
		f(&r)
		return numbered(100, r)
	}
	for name, rs := range map[string][]client.CallRecord{
		"none":          {},
		"too many":      numbered(100, slices.Repeat([]client.CallRecord{lost}, client.MaxCalls+1)...),
		"backwards":     {numbered(101, up)[0], numbered(100, up)[0]},
		"number 0":      numbered(0, up),
		"another event": change(func(r *client.CallRecord) { r.Event = "sideways" }),
		"a user's name": change(func(r *client.CallRecord) { r.User = "al\nice" }),
		"no peer":       change(func(r *client.CallRecord) { r.Peer = "" }),
		"a suite":       change(func(r *client.CallRecord) { r.Suite = "\x1b[2J" }),
	} {
		if err := tell("second", rs); !errors.Is(err, client.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := tell("", numbered(100, up)); !errors.Is(err, client.ErrInvalid) {
		t.Errorf("a run without a name: %v", err)
	}
	denied := func(*twincert.Certificate, twincert.Role, func(twincert.ID) bool) error { return errors.New("revoked") }
	if err := b.RecordCalls(t.Context(), "x", "berlin", client.CallsBody{Run: "r", Records: numbered(1, up)}, denied); !errors.Is(err, client.ErrDenied) {
		t.Errorf("a router that is not to be believed: %v", err)
	}
	if got := details(); len(got) != len(want) {
		t.Errorf("%d records after what was refused", len(got))
	}
}
