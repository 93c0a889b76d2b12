// Package ip looks at IPv4 (RFC 791) and IPv6 (RFC 8200) packets without copying them:
// where they go, the 5-tuple of their flow, and the few changes that a router makes or
// answers that it gives: the clamp of TCP's MSS (RFC 9293 section 3.7.1), "too big"
// (RFC 792, RFC 1191, RFC 4443 section 3.2) and "prohibited" (RFC 1812 section 5.2.7.1,
// RFC 4443 section 3.1).
//
//	 0        4        8               16              24            31
//	+--------+--------+---------------+---------------+---------------+
//	|Version | IHL    | Type          | Total Length                  |  IPv4
//	+--------+--------+---------------+-----+-------------------------+
//	| Identification                  |Flags| Fragment Offset         |
//	+-----------------+---------------+-----+-------------------------+
//	| Time to Live    | Protocol      | Header Checksum               |
//	+-----------------+---------------+-------------------------------+
//	| Source Address, Destination Address, Options                    |
//	+-----------------------------------------------------------------+
//
//	+--------+------------------------+-------------------------------+
//	|Version | Traffic Class          | Flow Label                    |  IPv6
//	+--------+------------------------+---------------+---------------+
//	| Payload Length                  | Next Header   | Hop Limit     |
//	+---------------------------------+---------------+---------------+
//	| Source Address, Destination Address (16 bytes each)             |
//	+-----------------------------------------------------------------+
//
// Parse checks every length that the accessors rely on, once; none of them can fail
// afterwards, none allocates. IPv6 extension headers are walked up to the transport
// header, 8 at most; a chain that is cut off makes the packet malformed (RFC 7112).
//
// Shorten and Lengthen leave out what can be told from the rest, and put it there again.
//
// It leaves out reassembly, IPv4 options, jumbograms, and the checksums of what it only
// forwards: the hosts at both ends verify them.
package ip
