package native

import (
	"net/netip"
	"time"

	"twinkey/proto/esp"
	"twinkey/proto/pmtu"
)

// TunnelStatus is one tunnel as an operator sees it.
type TunnelStatus struct {
	ID            uint16
	PeerID        uint16
	Peer          string
	Certificate   string // whose control key the initiator used
	Group         string
	Initiator, Up bool
	To            netip.AddrPort
	Since         time.Time
	Calls         int
	PathMTU       int        // bytes of IP packet
	Path          pmtu.State // of the search for it
	Association
}

// CallStatus is what only the machines know of a call.
type CallStatus struct {
	NotAfter time.Time
	Ends     time.Time // by the policy's session time; zero: open
	Association
}

// Association is an SA pair as an operator sees it.
type Association struct {
	Suite         esp.Suite
	PostQuantum   bool
	SPIIn, SPIOut uint32
	Rekeys        uint64
	In            esp.Stats
}

func (a *association) status() Association {
	s := Association{Suite: a.suite, PostQuantum: a.hybrid, Rekeys: a.rekeys}
	if a.in != nil {
		s.SPIIn, s.In = a.in.SPI, a.in.SA.Stats()
	}
	if a.out != nil {
		s.SPIOut = a.out.SPI()
	}
	return s
}

// Tunnels returns all tunnels, in no order.
func (e *Endpoint) Tunnels() []TunnelStatus {
	all := make([]TunnelStatus, 0, len(e.tunnels))
	for _, t := range e.tunnels {
		s := TunnelStatus{
			PathMTU: t.path.MTU(), Path: t.path.state(),
			ID: t.id, PeerID: t.m.PeerID(), Peer: t.peer.Name, Initiator: t.initiator, Up: t.up, To: t.to,
			Since: t.since, Calls: len(t.sessions), Association: t.ctl.status(),
		}
		if t.cert != nil {
			s.Certificate, s.Group = t.cert.Name, t.cert.Group
		}
		all = append(all, s)
	}
	return all
}

// Call returns what the machines know of a call.
func (e *Endpoint) Call(id uint64) (CallStatus, bool) {
	s := e.byCall[id]
	if s == nil {
		return CallStatus{}, false
	}
	c := CallStatus{NotAfter: s.notAfter(), Association: s.data.status()}
	if s.terms.Session > 0 {
		c.Ends = s.since.Add(s.terms.Session)
	}
	return c, true
}

// Empty says whether no tunnel is left, not even one that waits for its last acknowledgement.
func (e *Endpoint) Empty() bool { return len(e.tunnels) == 0 }
