package appliance

import (
	"context"
	"time"

	"twinkey/directory/client"
	"twinkey/router/internal/calls"
	"twinkey/router/internal/engine"
)

// causes are why calls end, in the words of the directory.
var causes = map[calls.Cause]string{
	calls.Logout: client.CauseLogout, calls.Lost: client.CauseLost, calls.Idle: client.CauseIdle,
	calls.SessionOver: client.CauseSession, calls.Revoked: client.CauseRevoked, calls.Shutdown: client.CauseShutdown,
}

// record queues what the directory is told of a call.
func (a *Appliance) record(v engine.CallEvent) {
	if !v.Still {
		a.lull.Reset(lullAfter)
	}
	c := v.Call
	r := client.CallRecord{
		Time: v.At.UTC(), Event: client.CallDown, Call: c.ID, User: c.User, Peer: c.Peer, Initiator: v.Initiator, ID: c.Cert,
	}
	if b := c.Bounds(); c.Kind == calls.User {
		user := b.Remote
		if v.Initiator {
			user = b.Local
		}
		if len(user) == 1 {
			r.Address = user[0].Addr()
		}
	}
	if v.Up {
		r.Event, r.Suite = client.CallUp, suite(v.Suite)
		a.calls.Add(r)
		return
	}
	r.Since = v.Since.UTC()
	r.RxBytes, r.TxBytes, r.RxPackets, r.TxPackets = c.RxBytes.Load(), c.TxBytes.Load(), c.RxPackets.Load(), c.TxPackets.Load()
	if v.Still {
		r.Event = client.CallInterim
	} else {
		r.Reason, r.Cause = client.CutReason(v.Reason), causes[v.Cause] // a peer's words may be among them
	}
	a.calls.Add(r)
}

// keepInterim has records made of the calls that are up every now and then, until ctx ends: users' sources may want to know.
func (a *Appliance) keepInterim(ctx context.Context) {
	for {
		select {
		case <-time.After(a.set.Load().Accounting.Interim):
		case <-ctx.Done():
			return
		}
		if err := a.eng.Interim(ctx); err != nil && ctx.Err() == nil {
			a.log.Warn("calls not looked at for accounting", "error", err)
		}
	}
}
