// Package tunnel is an L2TP control connection and the incoming calls in it, as a machine
// (RFC 2661 7.2 and 7.4). Datagrams and the time go in by Receive and Advance; datagrams and
// events come out of Poll. The owner decides: after each event that asks something
// the machine waits in a "deciding" state, as long as the owner likes.
//
//	initiator (LAC)                                  responder (LNS)
//	Dial            SCCRQ ──────────────────────►    Answer: SCCRQReceived
//	SCCRPReceived       ◄────────────────── SCCRP    Accept
//	Connect         SCCCN ──────────────────────►    SCCCNReceived
//	Established                                      Confirm: Established
//	OpenSession     ICRQ  ──────────────────────►    ICRQReceived
//	ICRPReceived        ◄─────────────────── ICRP    AcceptSession
//	ConnectSession  ICCN  ──────────────────────►    ICCNReceived
//	SessionUp                                        ConfirmSession: SessionUp
//
// Either end may open sessions, close one (CDN) and close the tunnel (StopCCN). A vendor's
// messages pass in order at any time between SCCRQ and StopCCN: native mode sends the rest
// of a long handshake flight in them, and its owner decides when the flight is whole.
//
// # States and messages
//
//	                 SCCRQ  SCCRP  SCCCN  StopCCN  HELLO  session  vendor  unknown  unknown, M
//	waitRequest      take   -      -      -        -      -        -       -        -
//	decidingRequest  -      -      -      stop     ok     -        event   ok       -
//	waitReply        -      take   -      stop     ok     -        event   ok       -
//	decidingReply    -      -      -      stop     ok     hold     event   ok       -
//	waitConnect      -      -      take   stop     ok     -        event   ok       -
//	decidingConnect  -      -      -      stop     ok     hold     event   ok       -
//	established      end    end    end    stop     ok     act      event   ok       end
//	closing          ok     ok     ok     stop     ok     ok       ok      ok       ok
//	lingering        ok     ok     ok     ok       ok     ok       ok      ok       ok
//
// take, act, event: as above. ok: acknowledged, no more. hold: kept until the owner has
// decided, then acted on, since a LAC may send ICRQ right behind SCCCN. end: StopCCN. "-":
// discarded as if it had not come, not acknowledged. Here we differ from the tables in
// 7.2.1, which end the tunnel: until it is established anybody who can send us a
// datagram can send any message, and it shall neither end an attempt nor take a number in
// its sequence. A peer that means it gets no answer, and gives up.
//
// An AVP that nobody may ignore (see l2tp.AVPError), or that is missing, ends the session of a session's
// message and else the tunnel, with a Result that says which AVP it was.
//
// # How it ends
//
// Closed is told once, in place of all events before it that were not polled yet. After our StopCCN it comes when the peer has acknowledged, or stays
// silent for a full retransmission cycle; after the peer's StopCCN and after a breach of
// the protocol it comes at once, but Poll gives the acknowledgement or StopCCN before it.
// The machine goes on to acknowledge repetitions of the peer's StopCCN for a cycle (31 s,
// RFC 2661 5.7) if its owner keeps it until Done.
//
// # A responder and strangers
//
// Until SCCCN was confirmed, or the owner says Proven, a responder repeats nothing by a
// timer, answers a repetition by a repetition, sends no more than three bytes for each it
// got as long as nobody has used the tunnel ID that it gave (see package reliable), and
// dies SetupTimeout after SCCRQ. An initiator that waits asks by HELLO what became of it. Answer makes no state for an SCCRQ that it does not like; Refusal makes the
// StopCCN for it, for an owner who wants to answer.
//
// # Left out
//
// Outgoing calls: OCRQ is answered by CDN. The tunnel's own authentication and the breaking of
// ties are the owner's, with what package l2tp gives for them.
package tunnel
