// Package l2tp reads and writes L2TP version 2 (RFC 2661): the control messages with
// their AVPs, and the data header in all its forms. It has no state; the machines are in
// reliable (section 5.8) and tunnel (section 7).
//
// Both kinds of message begin alike (section 3.1). A control message has T, L and S set
// and O and P clear; a data message has T clear and whatever else it likes:
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|T|L|x|x|S|x|O|P|x|x|x|x| Ver 2 |          Length (L)           |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|           Tunnel ID           |           Session ID          |  the receiver's
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|             Ns (S)            |             Nr (S)            |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|        Offset Size (O)        |    Offset pad (O) ...
//
// A control message goes on with AVPs (section 4.1), Message Type first; one without any
// is a ZLB, which only acknowledges:
//
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|M|H| reserved  |  Length >= 6  |           Vendor ID           |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|         Attribute Type        |        Attribute Value ...
//
// # What is done with AVPs that are wrong
//
// A list of AVPs that cannot be walked (a Length below 6 or beyond the message, too many,
// Message Type not in front) is a *wire.ParseError, and the message is to be discarded.
// An AVP that is not recognized (an unknown vendor, which is looked at before the type; an
// unknown type; a reserved bit set) or that is malformed (wrong length, zero where that is
// not allowed, given twice, hidden although it may not be or behind no Random Vector) is
// passed over and counted where its M bit is clear. Where it is set, Parse goes on to the
// end, so that the session's ID is known, and then returns an *AVPError with the Result
// to send (sections 4.1 and 7.1).
//
// # Left out
//
// L2TPv3 (RFC 3931), and the AVPs of later RFCs, which are optional and are passed over.
package l2tp
