// Package tunnel is a control connection and its incoming calls as a machine (RFC 2661
// 7.2 and 7.4). The owner decides: the machine reports what came and waits.
//
//	initiator                                   responder
//	Dial        SCCRQ ───────────────────────►  SCCRQReceived
//	SCCRPReceived ◄─────────────────── SCCRP    Accept
//	Connect     SCCCN ───────────────────────►  SCCCNReceived
//	                                            Confirm
//	OpenSession ICRQ  ───────────────────────►  ICRQReceived
//	ICRPReceived  ◄──────────────────── ICRP    AcceptSession
//	ConnectSession ICCN ─────────────────────►  ICCNReceived
//	                                            ConfirmSession
//
// A vendor's message may come at any time once SCCRQ was seen. Until Confirm a responder
// repeats nothing on its own: it answers a repetition with a repetition, so that nobody
// is flooded who did not ask.
package tunnel
