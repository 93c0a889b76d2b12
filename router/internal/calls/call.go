package calls

import (
	"net/netip"
	"sync/atomic"
	"time"

	"twinkey/pkg/twincert"
	"twinkey/proto/esp"
	"twinkey/router/internal/policy"
)

// Kind says what a call carries.
type Kind uint8

// The kinds of calls.
const (
	SiteLink Kind = iota // the routers' own call: whole prefixes at both ends
	User                 // one user: one bound address at the initiating end
)

func (k Kind) String() string {
	if k == User {
		return "user"
	}
	return "site"
}

// Capabilities are ways of sending data that both ends of a call must know of.
type Capabilities uint32

// The capabilities.
const (
	Bare       Capabilities = 1 << iota // IP packets without inner UDP, L2TP and PPP around them
	Checksums                           // transport checksums that are left to the receiver
	ImplicitIV                          // suites that have such a form leave the IV out (RFC 8750)
	ShortIPv4                           // bare IPv4 packets come in their short form (package ip)
)

// Has says whether c holds all of d.
func (c Capabilities) Has(d Capabilities) bool { return c&d == d }

// Outbound is everything that sealing one data packet of a call needs. It is immutable:
// a rekey or a peer that moved publishes a new one.
type Outbound struct {
	SA *esp.Outbound
	To netip.AddrPort
	// Prefix4 and Prefix6 stand in front of an IPv4 or IPv6 packet: inner UDP header
	// (its length field is filled in per packet), L2TP data header, PPP protocol.
	// Empty: this family is not up in PPP.
	Prefix4, Prefix6 []byte
	// MTU is the largest private packet in bytes that leaves in one datagram on this path
	// with this suite; 0: not known, whatever the interface lets through.
	MTU int
	// ShortMTU is the same for IPv4 packets that have a short form; MTU where the peer does not take it.
	ShortMTU int
	// Short says that the peer takes bare IPv4 packets in their short form.
	Short bool
	// Bare says that the peer takes IP packets without inner UDP, L2TP and PPP around them.
	// The prefixes still say which family is up.
	Bare bool
	// LeaveChecksums says that the peer completes transport checksums, so that the sum of
	// the pseudo-header may stay where the kernel left it.
	LeaveChecksums bool
	// Compress says that the peer expands compressed datagrams (RFC 1962). PrefixComp stands in front of one as the
	// other prefixes do of a packet.
	Compress   bool
	PrefixComp []byte
}

// Longest is the largest private packet, or one that has a short form; 0: not known.
func (o *Outbound) Longest(short bool) int {
	if short {
		return o.ShortMTU
	}
	return o.MTU
}

// Counters of one call, all since it came up.
type Counters struct {
	RxPackets, RxBytes, TxPackets, TxBytes atomic.Uint64
	// ForeignSource counts packets that came in the call with a source address that
	// is not bound to it, or were to leave in it with one.
	ForeignSource atomic.Uint64
	// Denied counts packets that the policy does not let through.
	Denied atomic.Uint64
	// Malformed counts payloads that were authentic but made no sense.
	Malformed atomic.Uint64
	// RxPacked and TxPacked count packets that came or went compressed, RxSaved and TxSaved the bytes
	// that this spared.
	RxPacked, RxSaved, TxPacked, TxSaved atomic.Uint64
}

// Call is one L2TP session as the data path sees it.
type Call struct {
	ID   uint64 // unique in the life of the process
	Kind Kind
	Peer string      // the router at the other end
	User string      // UID, or empty for a site link
	Held bool        // at the terminating end: the user's own machine places it, and a router vouches for it
	Cert twincert.ID // the certificate that the call stands and falls with, at the initiating end
	// PeerCert is the certificate whose data key the other end proved.
	PeerCert twincert.ID

	LocalTunnel, LocalSession uint16 // IDs that the peer writes into data headers
	PeerTunnel, PeerSession   uint16 // IDs that we write

	// Takes is what we have told the peer that it may send in this call.
	Takes Capabilities
	// Expands says that we have offered the peer to expand what it compresses.
	Expands bool

	Counters

	bounds atomic.Pointer[Bounds]
	filter atomic.Pointer[policy.Filter]
	out    atomic.Pointer[Outbound]
	lastRx atomic.Int64
}

// Bounds are the addresses that may stand in a call. It is immutable.
type Bounds struct {
	Local  []netip.Prefix // sources that may enter the call at this end
	Remote []netip.Prefix // sources that may come out of it at this end
}

// New returns a call that is not up: Publish makes it carry packets.
func New(id uint64, kind Kind, b Bounds) *Call {
	c := &Call{ID: id, Kind: kind}
	c.bounds.Store(&b)
	return c
}

// Bounds are what holds now.
func (c *Call) Bounds() *Bounds { return c.bounds.Load() }

// SetBounds swaps what may stand in the call. The caller swaps the routes that lead to it too.
func (c *Call) SetBounds(b Bounds) { c.bounds.Store(&b) }

// Filter is what the policy lets through; nil: everything.
func (c *Call) Filter() *policy.Filter { return c.filter.Load() }

// SetFilter swaps it.
func (c *Call) SetFilter(f *policy.Filter) { c.filter.Store(f) }

// Out is what seals for this call now; nil: the call is not up, or is down again.
func (c *Call) Out() *Outbound { return c.out.Load() }

// Publish swaps what seals for this call; nil stops it.
func (c *Call) Publish(o *Outbound) { c.out.Store(o) }

// Heard notes that an authentic data packet came, d after the engine's start.
func (c *Call) Heard(d time.Duration) { c.lastRx.Store(int64(d)) }

// LastHeard is what Heard noted last, or 0.
func (c *Call) LastHeard() time.Duration { return time.Duration(c.lastRx.Load()) }

// MaySend says whether a packet from src may enter the call at this end.
func (c *Call) MaySend(src netip.Addr) bool { return within(c.bounds.Load().Local, src) }

// MayReceive says whether a packet from src may come out of the call at this end.
func (c *Call) MayReceive(src netip.Addr) bool { return within(c.bounds.Load().Remote, src) }

func within(ps []netip.Prefix, a netip.Addr) bool {
	for _, p := range ps {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
