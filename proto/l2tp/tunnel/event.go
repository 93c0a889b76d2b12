package tunnel

import "twinkey/proto/l2tp"

// Kind of an Event.
type Kind uint8

// The kinds. Those of which the comment names a method ask for that decision, or Close or
// CloseSession.
const (
	SCCRQReceived  Kind = iota + 1 // Accept
	SCCRPReceived                  // Connect
	SCCCNReceived                  // Confirm
	Established                    // the tunnel is up on our side
	Closed                         // the tunnel is over; told once
	ICRQReceived                   // AcceptSession, RefuseSession
	ICRPReceived                   // ConnectSession
	ICCNReceived                   // ConfirmSession
	SessionUp                      // the session is up on our side
	SessionClosed                  // it is over, and not by our CloseSession
	VendorReceived                 // a message of VendorTwinkey
	WENReceived                    // WAN error notify of a session
	SLIReceived                    // set link info of a session
)

var kindNames = [...]string{
	SCCRQReceived: "SCCRQReceived", SCCRPReceived: "SCCRPReceived", SCCCNReceived: "SCCCNReceived", Established: "Established", Closed: "Closed",
	ICRQReceived: "ICRQReceived", ICRPReceived: "ICRPReceived", ICCNReceived: "ICCNReceived", SessionUp: "SessionUp", SessionClosed: "SessionClosed",
	VendorReceived: "VendorReceived", WENReceived: "WENReceived", SLIReceived: "SLIReceived",
}

func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "no event"
}

// Cause says who or what ended a tunnel or session.
type Cause uint8

// The causes.
const (
	ByPeer  Cause = iota + 1
	ByUs          // Close or Abort
	Silence       // the peer did not answer
	Broken        // the peer broke the protocol
)

// Event is what the owner decides on or notes.
type Event struct {
	Kind        Kind
	Session     uint16        // our ID; 0: not of a session, or ICRQReceived, which has no ID of ours yet
	PeerSession uint16        // the peer's
	Message     *l2tp.Message // the owner's to keep; nil: there was none
	Result      l2tp.Result   // of Closed and SessionClosed
	Cause       Cause         // of Closed and SessionClosed
}

// Output is a datagram to send, or an event.
type Output struct {
	Datagram []byte // an L2TP control message, valid until the next call of any method
	Event    Event  // where Datagram is nil
}
