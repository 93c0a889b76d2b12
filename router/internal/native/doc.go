// Package native speaks twinkey's own mode: L2TP tunnels whose handshake is Noise over
// twin certificates. It glues four machines (handshake, l2tp/tunnel, ppp/link, and
// itself) and owns no socket, goroutine or clock: datagrams, opened payloads and `now`
// go in, things to send and events come out.
//
//	initiator                                                        terminator
//	SCCRQ  {Flight: Noise XX -> e (, ML-KEM key)}         ────────►   state only now
//	(Cookie, stateless, where the terminator is busy; SCCRQ again with it)
//	       ◄────────  SCCRP  {Flight: <- e, ee, s, es; twin certificate, SPI, suite}
//	SCCCN  {Flight: -> s, se; twin certificate, router certificate, signature, SPI} ──►
//	- - - - - - - - - - - - from here everything in the control SA - - - - - - - - - - -
//	       ◄────────  Ready                       the terminator holds the keys: tunnel up
//	ICRQ   {Flight: Noise IK over the data keys, Capabilities}  ────────►
//	       ◄────────  ICRP   {Flight, Capabilities}   data SA pair of this call
//	ICCN                                          ────────►
//	PPP: LCP, IPCP, IPV6CP in the data SA; then packets
//
// A flight that does not fit one message goes on in More messages right behind it. The
// same IK handshake, in RekeyRequest and RekeyReply, replaces the keys of a call (over
// the data keys) or of the tunnel (over the control keys):
//
//	asks                                               answers
//	RekeyRequest {Session, Generation, Flight} ──────►  installs the new inbound SA
//	installs the new inbound SA,   ◄────── RekeyReply {Session, Generation, Flight}
//	seals with the new outbound SA
//	first packet in the new SA     ──────►              seals with the new outbound SA
//	both open packets of the old SA until the grace is over
//
// Where both ask at once the tunnel's initiator has its way.
//
// The signature in SCCCN is the initiating router's. Where the initiator is a user's own machine (its Self has no certificate, so
// it answers nobody), that router is asked for it (Signer), and holds the tunnel to one certificate, one address and a time
// (Held): calls of others in it are refused, and it ends when the time is over.
//
// Vendor-specific control messages (Vendor ID 0xFFFE in the Message Type AVP):
//
//	1 More          goes on with a flight    {Session, Flight}
//	2 Ready         the terminator is keyed  {}
//	3 RekeyRequest                           {Session, Generation, Flight}
//	4 RekeyReply                             {Session, Generation, Flight}
//	5 Cookie        come again with this     {Cookie}
//
// Vendor-specific AVPs: 1 Flight (a part, see handshake.Split), 2 Cookie, 3 Session (the
// sender's session ID, 0 the tunnel), 4 Generation (uint32), 5 Padding, 6 Capabilities.
//
// Capabilities is a mask of 32 bits, what its sender takes in this call. Who does not say takes nothing; bits
// that are not known are passed over. It travels in the control SA, so nobody can take any away.
//
//	1  IP packets may come bare, ESP next header 4 or 41, without inner UDP, L2TP and PPP:
//	   the association belongs to one session, so they say nothing that the SPI does not
//	2  TCP and UDP checksums may come as a kernel leaves them to its network card, the sum of
//	   the pseudo-header; ESP's ICV covers the way, and the sender of the packet has been believed so far
//	4  in the suites that have such a form the IV is left out of data packets: it follows from the
//	   sequence number (RFC 8750; with CBC it is that number encrypted under a key of its own)
//	8  IPv4 packets that are bare and without options may come, ESP next header 253, without the five bytes
//	   of their header that can be told from the rest (package ip, Shorten)
//
// 1, 4 and 8 are in force where both ends take them, 2 in each direction by itself.
//
// Path MTU probes and their answers (package pmtu) are packets of the control SA with next header
// 253 instead of 17. They are no L2TP, so what is lost of them holds up nothing. Each end searches
// its own direction from the moment that the tunnel is up; what it finds is in the MTU that
// the calls of the tunnel publish.
//
// A CDN with result 3 and error 6 (vendor-specific) ends a call whose certificate is revoked. Who placed the call may not have heard
// of that yet, nor of a newer certificate; to others it is a call that was ended for administrative reasons.
//
// In the clear only SCCRQ, SCCRP, SCCCN, their More parts, the acknowledgements between
// them, Cookie and a StopCCN that refuses are sent or heard. Once a tunnel is keyed
// anything unprotected that names it is dropped and counted. A clear StopCCN is a hint
// about an attempt that is going on: it ends the attempt, which the owner repeats, never
// a tunnel.
package native
