package esp

// Limits bound the use of one key. Packets are counted by sequence number, bytes as those
// that the cipher is applied to: payload, padding, two trailer octets (RFC 4301 section
// 4.4.2.1). A field that is 0 or above the suite's Bound takes the bound's value.
type Limits struct {
	SoftPackets uint64 // Soft reports true from here on: rekey
	HardPackets uint64 // the last sequence number that is sealed or opened
	SoftBytes   uint64
	HardBytes   uint64
}

// within fills in and cuts down l to the bound b; a soft limit never lies above the hard one.
func (l Limits) within(b Limits) Limits {
	cut := func(v, bound uint64) uint64 {
		if v == 0 {
			return bound
		}
		return min(v, bound)
	}
	l.HardPackets = cut(l.HardPackets, b.HardPackets)
	l.HardBytes = cut(l.HardBytes, b.HardBytes)
	l.SoftPackets = min(cut(l.SoftPackets, b.SoftPackets), l.HardPackets)
	l.SoftBytes = min(cut(l.SoftBytes, b.SoftBytes), l.HardBytes)
	return l
}

// Stats counts what one SA has done since it was made. The fields are read one by one, so
// they may be a packet apart while the SA is in use.
type Stats struct {
	Packets   uint64 // sealed or accepted
	Bytes     uint64 // the cipher was applied to, as Limits counts them
	Exhausted uint64 // refused with ErrExhausted

	// Of an Inbound only.
	Dummies   uint64 // accepted with next header 59; also among Packets
	Replayed  uint64 // seen before, or left of the window
	Forged    uint64 // integrity check failed
	Malformed uint64 // too short, wrong SPI, not aligned, or padding wrong behind a good ICV
}
