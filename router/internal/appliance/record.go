package appliance

import (
	"twinkey/directory/client"
	"twinkey/router/internal/calls"
	"twinkey/router/internal/engine"
)

// record queues what the directory is told of a call.
func (a *Appliance) record(v engine.CallEvent) {
	a.lull.Reset(lullAfter)
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
	} else {
		// A peer's words may be among them.
		r.Since, r.Reason = v.Since.UTC(), client.CutReason(v.Reason)
		r.RxBytes, r.TxBytes, r.RxPackets, r.TxPackets = c.RxBytes.Load(), c.TxBytes.Load(), c.RxPackets.Load(), c.TxPackets.Load()
	}
	a.calls.Add(r)
}
