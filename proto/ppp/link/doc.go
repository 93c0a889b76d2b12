// Package link runs one PPP link: LCP (RFC 1661), then IPCP (RFC 1332), IPV6CP (RFC 5072)
// and CCP (RFC 1962), as a machine that is fed frames and the time and polled for what to send.
//
// The phases are those of RFC 1661 section 3.2:
//
//	+------+  Up  +-----------+ LCP open +--------------+        +---------+
//	| Dead |----->| Establish |--------->| Authenticate |------->| Network |
//	+------+      +-----------+          +--------------+        +---------+
//	    ^               | no answer                                   | Close, peer's
//	    |               v                                             v Terminate, silence
//	    |         Down event                                    +-----------+
//	    +-------------------------------------------------------| Terminate |
//	                              Down event                    +-----------+
//
// Neither side of this package asks the other who it is, so Authenticate is passed
// through in the moment that it is entered; an Authentication-Protocol option of the
// peer is rejected, by itself.
//
// Where the RFCs leave a choice, or where this package departs from them:
//
//   - A reply to a Configure-Request counts once. A duplicated Configure-Ack therefore
//     never takes an opened protocol down, as the cell RCA/Opened would have it.
//   - The Configure-Request that was acknowledged last, received again word for word
//     while Opened, is acknowledged again and changes nothing: our Ack was lost, or the
//     path duplicated the request (RFC 1661 4.3 would begin anew).
//   - A peer that answers Max-Failure requests in a row with Configure-Nak is taken not
//     to converge from its side either: the option is left out, or the protocol closed
//     where it cannot do without.
//   - When the last network protocol has finished the link terminates.
//   - IPV6CP does not start where the peer takes less than 1280 bytes (RFC 8200 5).
//   - Async-Control-Character-Map is acknowledged and has no effect: nothing here stuffs
//     octets.
//   - Identification and Time-Remaining (RFC 1570) get a Code-Reject.
//
// Of compression it settles, for each direction by itself, whether the one method that
// its owner knows may be used. That method keeps no history: a Reset-Request is answered
// and changes nothing, and none is ever sent.
//
// It leaves out authentication, link quality, multilink, DNS and NBNS
// server options, and the address pool, of which it only sees one address.
package link
