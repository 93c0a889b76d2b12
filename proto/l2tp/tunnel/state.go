package tunnel

import "twinkey/proto/l2tp"

// state of a control connection (RFC 2661 7.2.1). One that begins with "deciding" waits
// for the owner.
type state uint8

const (
	waitRequest state = iota
	decidingRequest
	waitReply // wait-ctl-reply
	decidingReply
	waitConnect // wait-ctl-conn
	decidingConnect
	established
	closing   // StopCCN sent, its acknowledgement awaited
	lingering // it is over; the peer's StopCCN may be repeated
	dead
	nState
)

var stateNames = [nState]string{
	"waitRequest", "decidingRequest", "waitReply", "decidingReply", "waitConnect", "decidingConnect",
	"established", "closing", "lingering", "dead",
}

func (s state) String() string { return stateNames[s] }

// settingUp says whether the control connection is not established yet.
func (s state) settingUp() bool { return s < established }

// class is what the table tells messages apart by.
type class uint8

const (
	isSCCRQ class = iota
	isSCCRP
	isSCCCN
	isStopCCN
	isHELLO
	isSession
	isVendor // our own vendor's
	isUnknown
	isUnknownM
	nClass
)

func classOf(m *l2tp.Message) class {
	switch {
	case m.VendorID == l2tp.VendorTwinkey:
		return isVendor
	case m.VendorID == 0 && m.Type.OfSession():
		return isSession
	case m.VendorID == 0 && m.Type.Known():
		return tunnelClasses[m.Type]
	case m.Mandatory:
		return isUnknownM
	default:
		return isUnknown
	}
}

// tunnelClasses holds the classes of the tunnel's own messages.
var tunnelClasses = [...]class{l2tp.SCCRQ: isSCCRQ, l2tp.SCCRP: isSCCRP, l2tp.SCCCN: isSCCCN, l2tp.StopCCN: isStopCCN, l2tp.HELLO: isHELLO}

// action is what is done with a message.
type action uint8

const (
	discard action = iota // as if it had not come
	ok                    // acknowledged, no more
	take                  // the set-up goes on
	stop                  // the peer ends the tunnel
	act                   // of a session
	event                 // for the owner
	hold                  // until the owner has decided
	end                   // the tunnel ends: the peer broke the protocol
)

// table is laid out as in the package's documentation.
var table = [nState][nClass]action{
	waitRequest:     {isSCCRQ: take},
	decidingRequest: {isStopCCN: stop, isHELLO: ok, isVendor: event, isUnknown: ok},
	waitReply:       {isSCCRP: take, isStopCCN: stop, isHELLO: ok, isVendor: event, isUnknown: ok},
	decidingReply:   {isStopCCN: stop, isHELLO: ok, isSession: hold, isVendor: event, isUnknown: ok},
	waitConnect:     {isSCCCN: take, isStopCCN: stop, isHELLO: ok, isVendor: event, isUnknown: ok},
	decidingConnect: {isStopCCN: stop, isHELLO: ok, isSession: hold, isVendor: event, isUnknown: ok},
	established: {
		isSCCRQ: end, isSCCRP: end, isSCCCN: end, isStopCCN: stop, isHELLO: ok, isSession: act, isVendor: event, isUnknown: ok, isUnknownM: end,
	},
	closing:   {ok, ok, ok, stop, ok, ok, ok, ok, ok},
	lingering: {ok, ok, ok, ok, ok, ok, ok, ok, ok},
}
