// Package reliable is the delivery of control messages in order, once, and repeated until
// they are acknowledged (RFC 2661 5.8 and appendix A).
//
//	Ns  number of this message        Nr  number of the next one expected
//	ZLB a header alone: only Nr counts
//
// Early messages wait until the gap before them is filled. Retransmission doubles from 1
// to 8 seconds, five times; the window opens by slow start and then by one message per
// round. HELLO is sent after silence.
package reliable
