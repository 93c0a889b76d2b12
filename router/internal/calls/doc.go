// Package calls is what the data path looks at: which call a packet belongs to, in
// both directions, and nothing else.
//
//	WAN -> LAN   SPI ──────────────► slot (one atomic pointer) ──► Inbound ──► Call
//	LAN -> WAN   source, destination ─► Routes (immutable trie, swapped whole) ─► Call
//
// The control loop is the only writer. It installs and removes; the data path loads
// an atomic pointer and never waits. An SPI names its slot in its low 16 bits and a
// random generation in the high 16, so that set-up is O(1), a slot that was given to
// somebody else is noticed, and a stranger guesses one SPI in 65,536.
//
//	 0                   1                   2                   3
//	+---------------------------------+---------------------------------+
//	|   generation, random, not 0     |   slot, 0..65535                |
//	+---------------------------------+---------------------------------+
//
// Which call an outgoing packet takes: a bound source first (a user who is logged in
// at this router), then the longest prefix on the destination (site links, and at the
// terminating end the addresses of users).
package calls
