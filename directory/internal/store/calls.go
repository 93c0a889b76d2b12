package store

import (
	"context"
	"fmt"
	"strings"
	"time"

	"twinkey/directory/client"
	"twinkey/pkg/twincert"
)

// callsMark is the last record of calls that a router has told.
type callsMark struct {
	Run string `json:"run"`
	Seq uint64 `json:"seq"`
}

const metaCalls = "calls/" // and the router's name

// RecordCalls notes in the audit records what router name tells of its calls, once. It fails with client.ErrInvalid for
// what no router may tell, and with client.ErrDenied for a router whose certificate verify does not pass.
func (r *Register) RecordCalls(ctx context.Context, actor, name string, b client.CallsBody, verify Verify) error {
	if err := checkCalls(b); err != nil {
		return err
	}
	return r.Write(ctx, actor, func(w *Writer) error {
		router, err := w.TrustedRouter(name, verify)
		if err != nil {
			return err
		}
		mark, known, err := get[callsMark](w.tx, Meta, metaCalls+name)
		if err != nil {
			return err
		}
		if known && mark.Run != b.Run {
			w.Audit(AuditCall, name, "the router runs anew, and numbers its calls from 1: those whose end it has not told ended with the run before")
		}
		if mark.Run != b.Run {
			mark = callsMark{Run: b.Run}
		}
		for _, c := range b.Records {
			if c.Seq <= mark.Seq {
				continue
			}
			mark.Seq = c.Seq
			if c.Event != client.CallInterim { // in the audit records, which stay for ever, beginning and end will do
				w.Audit(AuditCall, callSubject(name, c), callDetail(c))
			}
			if err := w.tellSource(router, b.Run, c); err != nil {
				return err
			}
		}
		return put(w.tx, Meta, metaCalls+name, mark)
	})
}

func checkCalls(b client.CallsBody) error {
	if !printable(b.Run, 1, maxChangeID) {
		return invalid("run must be 1 to %d printable ASCII characters", maxChangeID)
	}
	if len(b.Records) == 0 || len(b.Records) > client.MaxCalls {
		return invalid("%d records, 1 to %d are taken", len(b.Records), client.MaxCalls)
	}
	last := uint64(0)
	for _, c := range b.Records {
		if c.Seq <= last {
			return invalid("record %d comes after %d", c.Seq, last)
		}
		last = c.Seq
		if c.Event == client.CallsLost {
			continue
		}
		if c.Event != client.CallUp && c.Event != client.CallInterim && c.Event != client.CallDown {
			return invalid("record %d: event %q", c.Seq, c.Event)
		}
		if err := twincert.CheckName(c.Peer); err != nil {
			return invalid("record %d: peer %q: %w", c.Seq, c.Peer, err)
		}
		if err := twincert.CheckName(c.User); c.User != "" && err != nil {
			return invalid("record %d: user %q: %w", c.Seq, c.User, err)
		}
		if len(c.ID.String()) > maxID || !printable(c.Suite, 0, maxText) || !printable(c.Cause, 0, maxText) {
			return invalid("record %d: certificate, suite or cause too long or not printable", c.Seq)
		}
	}
	return nil
}

// callSubject is whom a record is about: the user, or of a site link the router that told of it.
func callSubject(router string, c client.CallRecord) string {
	if c.User != "" {
		return c.User
	}
	return router
}

// callDetail is a record in words.
func callDetail(c client.CallRecord) string {
	if c.Event == client.CallsLost {
		return fmt.Sprintf("%d records of calls were lost: the directory was away for too long", c.Lost)
	}
	way, what := "from", "site link"
	if c.Initiator {
		way = "to"
	}
	if c.User != "" {
		what = "call"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %d %s %s %s at %s", what, c.Call, way, c.Peer, c.Event, c.Time.UTC().Format(time.RFC3339))
	if c.Address.IsValid() {
		fmt.Fprintf(&b, ", address %s", c.Address)
	}
	if c.Event == client.CallUp {
		fmt.Fprintf(&b, ", %s, certificate %s", c.Suite, c.ID)
		return b.String()
	}
	fmt.Fprintf(&b, " after %s, in %d bytes %d packets, out %d bytes %d packets: %s",
		c.Time.Sub(c.Since).Round(time.Second), c.RxBytes, c.RxPackets, c.TxBytes, c.TxPackets, client.CutReason(c.Reason))
	return b.String()
}
