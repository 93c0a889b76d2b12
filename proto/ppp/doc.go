// Package ppp is the codec of the Point-to-Point Protocol: frames (RFC 1661 section 2
// in the form that L2TP carries, RFC 2661 section 5.1: no flag, no checksum, no octet
// stuffing), the packets of LCP and of the network control protocols (section 5), and
// their configuration options (section 6; RFC 1332 for IPCP, RFC 5072 for IPV6CP).
//
// A frame. Address and Control are left out where the peer takes ACFC, the first octet
// of Protocol where it takes PFC, and never for LCP:
//
//	+----------+----------+---------------------+----------------------+
//	| Address  | Control  | Protocol            | Information, Padding |
//	| FF       | 03       | 1 or 2 octets       | 0 to MRU octets      |
//	+----------+----------+---------------------+----------------------+
//
// A control packet is the Information of a frame, and its options are the Data of a
// Configure-Request, -Ack, -Nak or -Reject:
//
//	+------+------------+---------+----------------------------------+
//	| Code | Identifier | Length  | Data                             |
//	+------+------------+---------+------+--------+-------+----------+
//	                              | Type | Length | Value | Type ... |
//	                              +------+--------+-------+----------+
//
// What Parse returns aliases its input. Nothing here keeps state.
//
// It leaves out the framing of serial lines (RFC 1662), multilink, the link quality
// protocols, and authentication. Of CCP (RFC 1962) it has the packets and the option that
// names a vendor's method; how that compresses is for others to say.
package ppp
