// Package replay keeps the anti-replay window of one receiver (RFC 4303 section 3.4.3) on
// 64-bit extended sequence numbers, and infers the high half that the packet does not
// carry (RFC 4303 appendix A2.2).
//
// As in RFC 6479 the window is a ring of blocks that is never shifted. Here each block
// also carries its own age, the number of times that the ring has turned, so that one
// atomic word says everything about sixteen sequence numbers:
//
//	 63                             16 15             0
//	+---------------------------------+----------------+
//	|  age: seq / (16 * 256)          |  seen, 1 bit   |
//	|                                 |  a number      |
//	+---------------------------------+----------------+
//	ring[seq/16 mod 256]
//
// An age has 48 bits, so numbers end at 2^60. No SA lives to see that: the bounds of package esp end at 2^48. The ring is 2 KiB,
// of which a router with thousands of calls has one for each.
//
// A number is new if its block is younger than the word, or as old with the bit clear.
// Nothing is ever cleared: a younger block replaces an older one, however far the sequence
// jumps. An age never falls, so a number that was marked once cannot be marked again,
// whatever the interleaving. That needs no lock: a Window is safe for concurrent use, and
// the compare-and-swap in Mark decides between two copies of one packet.
//
// It leaves out the resynchronization of RFC 4303 appendix A3: after the loss of more than
// 2^32 - Size consecutive packets the inferred number is wrong, the integrity check fails,
// and the security association has to be replaced.
package replay
