package top

import (
	"cmp"
	"slices"
	"time"

	"twinkey/router/internal/admin"
)

// Row is one call and what goes through it.
type Row struct {
	admin.Call
	Rate
	Measured bool // it was there in the snapshot before, so that Rate says something
}

// Rate is traffic a second: bytes of private packets, and packets.
type Rate struct{ In, Out, InPackets, OutPackets float64 }

func (r Rate) bytes() float64 { return r.In + r.Out }

// Rates compares snapshots. The zero value has none.
type Rates struct {
	Status admin.Status
	Rows   []Row
	Total  Rate               // of all rows
	Drops  map[string]float64 // packets a second, causes that have any
	at     time.Time
}

// Next is r after another snapshot, taken at now. What has counted from zero again (another run of the router) has no rate.
func (r Rates) Next(st admin.Status, now time.Time) Rates {
	n := Rates{Status: st, at: now, Drops: map[string]float64{}}
	d := now.Sub(r.at).Seconds()
	same := !r.at.IsZero() && r.Status.Since.Equal(st.Since) && d > 0
	before := map[uint64]admin.Call{}
	if same {
		for _, c := range r.Status.Calls {
			before[c.ID] = c
		}
		for cause, v := range st.Drops {
			if was := r.Status.Drops[cause]; v > was {
				n.Drops[cause] = float64(v-was) / d
			}
		}
	}
	for _, c := range st.Calls {
		row := Row{Call: c}
		if b, ok := before[c.ID]; ok {
			row.Measured = true
			row.Rate = Rate{per(c.RxBytes, b.RxBytes, d), per(c.TxBytes, b.TxBytes, d), per(c.RxPackets, b.RxPackets, d), per(c.TxPackets, b.TxPackets, d)}
			n.Total.In += row.In
			n.Total.Out += row.Out
			n.Total.InPackets += row.InPackets
			n.Total.OutPackets += row.OutPackets
		}
		n.Rows = append(n.Rows, row)
	}
	return n
}

func per(now, before uint64, seconds float64) float64 {
	if now < before {
		return 0
	}
	return float64(now-before) / seconds
}

// Order is how rows are sorted.
type Order int

// The orders.
const (
	ByTraffic Order = iota // most bytes a second first
	ByUser                 // by name, site links first
	ByAge                  // newest first
)

const orders = 3

func (o Order) String() string { return [...]string{"traffic", "user", "newest"}[o] }

// Sorted are the rows in an order; equal ones by call.
func (r Rates) Sorted(o Order) []Row {
	rows := slices.Clone(r.Rows)
	slices.SortFunc(rows, func(a, b Row) int {
		first := 0
		switch o {
		case ByTraffic:
			first = cmp.Compare(b.bytes(), a.bytes())
		case ByUser:
			first = cmp.Or(cmp.Compare(a.User, b.User), cmp.Compare(a.Peer, b.Peer))
		case ByAge:
			first = b.Since.Compare(a.Since)
		}
		return cmp.Or(first, cmp.Compare(a.ID, b.ID))
	})
	return rows
}
