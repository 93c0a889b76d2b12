// Package radius asks RADIUS servers whether a password is right (RFC 2865, PAP), tells them
// of calls (RFC 2866), and obeys their Disconnect-Requests and CoA-Requests (RFC 5176).
//
//	CA                                             server
//	Access-Request                   ->
//	  Message-Authenticator, the first attribute
//	  User-Name, User-Password, Service-Type Framed, NAS-Port-Type Virtual, NAS-Identifier
//	                                 <-   Access-Accept
//	                                        Message-Authenticator, Filter-Id (the group),
//	                                        Session-Timeout, Class
//	                                 <-   or Access-Reject; or Access-Challenge, which counts as one
//	Accounting-Request               ->
//	  Acct-Status-Type Start, Interim-Update or Stop, Acct-Session-Id, User-Name, Class,
//	  octets, packets, seconds, Acct-Terminate-Cause, Event-Timestamp
//	                                 <-   Accounting-Response
//	                                 <-   Disconnect-Request
//	                                        Message-Authenticator, Event-Timestamp,
//	                                        User-Name or Acct-Session-Id
//	Disconnect-ACK, or               ->
//	Disconnect-NAK with Error-Cause
//	                                 <-   CoA-Request
//	                                        the same, and Filter-Id (the group) or
//	                                        Session-Timeout, or both
//	CoA-ACK, or                      ->
//	CoA-NAK with Error-Cause
//
// Transport is RadSec (RFC 6614: TLS 1.2 or later, both sides with certificates, shared
// secret "radsec") or UDP. Over UDP the password is hidden by MD5 under the shared secret
// alone, and whoever listens learns who logs in: State warns of it.
//
// # What is believed
//
// A reply counts if all of this holds; otherwise it is dropped, counted, and the request
// goes on waiting for the right one:
//
//   - it comes from the address and port that were asked (connected sockets, one for each
//     request, each with a port of its own), or through the TLS connection;
//   - its code answers the request, its Identifier is the request's;
//   - its Response Authenticator is right (RFC 2865 3);
//   - it carries one Message-Authenticator, and that is right (RFC 3579 3.2). Replies to
//     Access-Requests must have it; without, whoever sits on the path can make an accept of a
//     reject (Blast-RADIUS, CVE-2024-3596). Accounting-Responses may do without, since
//     Accounting-Requests are signed as a whole;
//   - it carries no Proxy-State: we sent none, and that is where that attack hides its
//     collision.
//
// Each request to each server has a random Identifier and Authenticator. Over UDP it is
// repeated as it is, after wait, twice wait and so on, a tenth more or less; then the next server is
// asked. Over TLS it is sent once (RFC 6613 2.6.1); a connection that breaks is made anew
// and the request sent again, and one on which an answer is overdue or wrong is closed.
//
// # Disconnect-Request and CoA-Request
//
// Only from configured addresses, each with a secret of its own; Request Authenticator
// and Message-Authenticator must be right and Event-Timestamp near our clock, or nothing is
// answered. A repetition gets the answer that the first one got. What is older, by Event-Timestamp, than another request about the same
// user that has come is refused, whatever became of either: it was held back on the way, or is a recording.
//
//	Disconnect-Request: the user's calls end, what the user has is withdrawn    Disconnect-ACK
//	CoA-Request: the user's calls go on in that group, or end at that time      CoA-ACK
//	  and if that time is over: as after a Disconnect-Request                   CoA-ACK
//	neither User-Name nor Acct-Session-Id                                       NAK 402 Missing Attribute
//	CoA-Request: neither group nor Session-Timeout                              NAK 402 Missing Attribute
//	another NAS-Identifier than ours                                            NAK 403 NAS Identification Mismatch
//	an attribute that narrows it to less than a user, or, in a CoA-Request,
//	  that asks for what is not done (Class, Idle-Timeout, Framed-Routing, ...)  NAK 401 Unsupported Attribute
//	Service-Type (Authorize Only)                                               NAK 405 Unsupported Service
//	CoA-Request: a group that there is not, or the value means none;
//	  a Session-Timeout of 0, two of them, or one that cannot be kept           NAK 407 Invalid Attribute Value
//	an Event-Timestamp before that of a request that has come                   NAK 407 Invalid Attribute Value
//	nobody of that name, or no such session                                     NAK 503 Session Context Not Found
//	it could not be done now                                                    NAK 506 Resources Unavailable
//
// An Acct-Session-Id stands for its user, not for one of the user's calls. The group stands in the attribute in which
// Access-Accepts name it (group_attribute), and is read in the same way; Filter-Id is what that is if nothing else is
// configured. Session-Timeout counts from the beginning of the session, as in an Access-Accept. What a change is, and which time
// cannot be kept, is in package login.
//
// Left out: CHAP, MS-CHAP and EAP (the CA has the password), a second factor by
// Access-Challenge, RADIUS/1.1 (RFC 9765), DTLS, Status-Server, Disconnect-Requests and CoA-Requests through RadSec,
// CoA-Requests that change what accounting gives back (Class) or anything but group and time.
package radius
