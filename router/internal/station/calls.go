package station

import (
	"context"
	"fmt"
	"time"

	"twinkey/router/internal/engine"
	"twinkey/router/internal/links"
)

// record says what becomes of calls; in the control loop.
func (r *run) record(v engine.CallEvent) {
	switch {
	case v.Up:
		r.s.say("call to %s is up (%s): %v", v.Call.Peer, v.Suite, v.Call.Bounds().Remote)
	default:
		r.s.say("call to %s ended: %s", v.Call.Peer, v.Reason)
	}
}

// callEnded takes what the engine says of a call that is wanted no more; in the control loop.
func (r *run) callEnded(k links.Key, reason string) {
	select {
	case r.ended <- endedCall{k.Peer, reason}:
	default: // there are not so many routers
	}
}

// watchCalls ends the run when the last call has ended for good.
func (r *run) watchCalls(ctx context.Context) {
	for {
		select {
		case e := <-r.ended:
			r.mu.Lock()
			delete(r.wanted, e.peer)
			if e.reason != engine.LeftMap { // a router that comes back is called again
				r.over[e.peer] = e.reason
			}
			last := len(r.wanted) == 0 && len(r.over) > 0
			r.mu.Unlock()
			if last {
				r.stop(fmt.Errorf("%w: %s", ErrEnded, e.reason))
				return
			}
			if err := r.retell(ctx, time.Now()); err != nil && ctx.Err() == nil {
				r.s.log.Warn("what no call carries any more is not withheld yet", "error", err)
			}
		case <-ctx.Done():
			return
		}
	}
}
