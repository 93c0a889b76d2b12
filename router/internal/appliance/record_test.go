package appliance

import (
	"context"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"twinkey/directory/client"
	"twinkey/proto/esp"
	"twinkey/router/internal/accounting"
	"twinkey/router/internal/calls"
	"twinkey/router/internal/engine"
)

// What the directory is told of a user's call while it comes up, goes on and ends.
func TestRecords(t *testing.T) {
	told := make(chan []client.CallRecord, 1)
	a := &Appliance{lull: time.AfterFunc(time.Hour, func() {}), calls: accounting.New(func(_ context.Context, _ string, rs []client.CallRecord) error {
		told <- rs
		return nil
	}, "run", slog.New(slog.DiscardHandler))}
	c := calls.New(7, calls.User, calls.Bounds{Local: []netip.Prefix{netip.MustParsePrefix("10.1.1.3/32")}})
	c.User, c.Peer = "alice", "rb"
	c.TxBytes.Store(100)
	c.TxPackets.Store(1)
	c.RxBytes.Store(2000)
	c.RxPackets.Store(20)
	noon := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	call := engine.Active{Call: c, Initiator: true, Since: noon}
	a.record(engine.CallEvent{Active: call, At: noon, Up: true, Suite: esp.AES256GCM})
	a.record(engine.CallEvent{Active: call, At: noon.Add(time.Minute), Still: true})
	a.record(engine.CallEvent{Active: call, At: noon.Add(time.Hour), Reason: "bye\xff", Cause: calls.Idle})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); a.calls.Run(ctx) }()
	got := <-told
	stop()
	<-done
	who := client.CallRecord{Call: 7, User: "alice", Peer: "rb", Initiator: true, Address: netip.MustParseAddr("10.1.1.3")}
	up, still, down := who, who, who
	up.Seq, up.Time, up.Event, up.Suite = 1, noon, client.CallUp, "aes256-gcm"
	still.Seq, still.Time, still.Event = 2, noon.Add(time.Minute), client.CallInterim
	down.Seq, down.Time, down.Event, down.Reason, down.Cause = 3, noon.Add(time.Hour), client.CallDown, "bye?", client.CauseIdle
	for _, r := range []*client.CallRecord{&still, &down} {
		r.Since, r.RxBytes, r.RxPackets, r.TxBytes, r.TxPackets = noon, 2000, 20, 100, 1
	}
	if len(got) != 3 || got[0] != up || got[1] != still || got[2] != down {
		t.Errorf("told\n\t%+v\nwant\n\t%+v\n\t%+v\n\t%+v", got, up, still, down)
	}
}

// Each cause that a router tells apart has a word of its own for the directory.
func TestCausesHaveWords(t *testing.T) {
	seen := map[string]bool{}
	for c := calls.Logout; c <= calls.Shutdown; c++ {
		if causes[c] == "" || seen[causes[c]] {
			t.Errorf("cause %d: %q", c, causes[c])
		}
		seen[causes[c]] = true
	}
	if causes[calls.OtherCause] != "" {
		t.Error("no cause is a cause")
	}
}
