// Package reliable is the delivery of control messages in order and once (RFC 2661 5.8
// and appendix A): numbers, windows, retransmission, acknowledgements, HELLO.
//
//	queue   |  acknowledged  |  flying: sent  |  waits for the window  |
//	                         ^first           ^first+flying            ^next
//	Ns      of a message: its number, which it keeps; of a ZLB: that of the next new one
//	Nr      the number that is expected next; all before it have arrived
//
// The sender may have min(cwnd, the peer's window) messages flying. cwnd begins at 1 and
// grows by 1 with each acknowledgement up to ssthresh (slow start), then by 1 a round
// (congestion avoidance). When the oldest message is not acknowledged in time, ssthresh
// becomes cwnd/2 and cwnd 1, that message is repeated and the others fly again as the window
// opens. The time is 1, 2, 4, 8, 8 ... seconds; after five repetitions the peer is gone.
//
// The receiver keeps messages that come early, up to its window, until the gap before them
// is filled, acknowledges each message, also one that it has had before, and does so on the
// next message that leaves, else by a ZLB.
//
// HELLO is sent after silence. A peer that leaves it unanswered while its calls pass data
// (Heard) is not gone.
//
// # A peer that has not proven where it is
//
// A Passive channel does not repeat anything by a timer: whoever made up a source address
// would have us send to a victim again and again. It repeats what is not acknowledged when
// a message comes that does not acknowledge it: the peer's repetition, or a HELLO by which
// the peer asks. Until the peer is Reached it sends no more than three bytes for
// each that came; what does not fit waits.
package reliable
