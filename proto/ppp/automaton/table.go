package automaton

import "strings"

// State of the automaton (RFC 1661 section 4.2).
type State uint8

// States, numbered as in the RFC.
const (
	Initial State = iota
	Starting
	Closed
	Stopped
	Closing
	Stopping
	ReqSent
	AckRcvd
	AckSent
	Opened
	nState
)

var stateNames = [nState]string{"Initial", "Starting", "Closed", "Stopped", "Closing", "Stopping", "Req-Sent", "Ack-Rcvd", "Ack-Sent", "Opened"}

// String is the RFC's name of the state.
func (s State) String() string {
	if s < nState {
		return stateNames[s]
	}
	return "?"
}

// Event is what happens to an automaton (RFC 1661 section 4.3).
type Event uint8

// Events, in the order of the RFC's rows.
const (
	Up       Event = iota // lower layer is up
	Down                  // lower layer is down
	Open                  // administrative open
	Close                 // administrative close
	TOPlus                // timeout with counter > 0
	TOMinus               // timeout with counter expired
	RCRPlus               // Configure-Request, good
	RCRMinus              // Configure-Request, bad
	RCA                   // Configure-Ack
	RCN                   // Configure-Nak or -Reject
	RTR                   // Terminate-Request
	RTA                   // Terminate-Ack
	RUC                   // unknown code
	RXJPlus               // Code- or Protocol-Reject, permitted
	RXJMinus              // Code- or Protocol-Reject, catastrophic
	RXR                   // Echo-Request, Echo-Reply, Discard-Request
	nEvent
)

var eventNames = [nEvent]string{"Up", "Down", "Open", "Close", "TO+", "TO-", "RCR+", "RCR-", "RCA", "RCN", "RTR", "RTA", "RUC", "RXJ+", "RXJ-", "RXR"}

// String is the RFC's name of the event.
func (e Event) String() string {
	if e < nEvent {
		return eventNames[e]
	}
	return "?"
}

// Actions is a set of actions (RFC 1661 section 4.4). The owner carries them out in the
// order of the constants: what goes down goes down first, what comes up comes up last.
type Actions uint16

// Actions. IRC and ZRC are carried out by the Automaton itself.
const (
	TLD Actions = 1 << iota // This-Layer-Down
	IRC                     // Initialize-Restart-Count
	ZRC                     // Zero-Restart-Count
	SCR                     // Send-Configure-Request
	SCA                     // Send-Configure-Ack
	SCN                     // Send-Configure-Nak/Rej
	STR                     // Send-Terminate-Request
	STA                     // Send-Terminate-Ack
	SCJ                     // Send-Code-Reject
	SER                     // Send-Echo-Reply
	TLU                     // This-Layer-Up
	TLS                     // This-Layer-Started
	TLF                     // This-Layer-Finished
)

var actionNames = [...]string{"tld", "irc", "zrc", "scr", "sca", "scn", "str", "sta", "scj", "ser", "tlu", "tls", "tlf"}

// Has tells whether all of b are in the set.
func (a Actions) Has(b Actions) bool { return a&b == b }

// String lists the actions as the RFC writes them, comma between.
func (a Actions) String() string {
	var s []string
	for i, name := range actionNames {
		if a&(1<<i) != 0 {
			s = append(s, name)
		}
	}
	return strings.Join(s, ",")
}

// step is a cell of the table: the actions and the next state. legal is false for the
// cells that the RFC prints as a dash.
type step struct {
	do    Actions
	next  State
	legal bool
}

// to writes a cell the way that the RFC does: actions/new-state.
func to(do Actions, next State) step { return step{do, next, true} }

// Next is the cell of the table for event e in state s; false where the RFC has a dash.
func Next(s State, e Event) (Actions, State, bool) {
	if s >= nState || e >= nEvent {
		return 0, s, false
	}
	c := table[e][s]
	if !c.legal {
		return 0, s, false
	}
	return c.do, c.next, true
}

// table is RFC 1661 section 4.1, rows and columns as printed: events down, states across.
var table = [nEvent][nState]step{
	Up: {
		to(0, Closed), to(IRC|SCR, ReqSent), {}, {}, {}, {},
		{}, {}, {}, {}},
	Down: {
		{}, {}, to(0, Initial), to(TLS, Starting), to(0, Initial), to(0, Starting),
		to(0, Starting), to(0, Starting), to(0, Starting), to(TLD, Starting)},
	Open: {
		to(TLS, Starting), to(0, Starting), to(IRC|SCR, ReqSent), to(0, Stopped), to(0, Stopping), to(0, Stopping),
		to(0, ReqSent), to(0, AckRcvd), to(0, AckSent), to(0, Opened)},
	Close: {
		to(0, Initial), to(TLF, Initial), to(0, Closed), to(0, Closed), to(0, Closing), to(0, Closing),
		to(IRC|STR, Closing), to(IRC|STR, Closing), to(IRC|STR, Closing), to(TLD|IRC|STR, Closing)},

	TOPlus: {
		{}, {}, {}, {}, to(STR, Closing), to(STR, Stopping),
		to(SCR, ReqSent), to(SCR, ReqSent), to(SCR, AckSent), {}},
	TOMinus: {
		{}, {}, {}, {}, to(TLF, Closed), to(TLF, Stopped),
		to(TLF, Stopped), to(TLF, Stopped), to(TLF, Stopped), {}},

	RCRPlus: {
		{}, {}, to(STA, Closed), to(IRC|SCR|SCA, AckSent), to(0, Closing), to(0, Stopping),
		to(SCA, AckSent), to(SCA|TLU, Opened), to(SCA, AckSent), to(TLD|SCR|SCA, AckSent)},
	RCRMinus: {
		{}, {}, to(STA, Closed), to(IRC|SCR|SCN, ReqSent), to(0, Closing), to(0, Stopping),
		to(SCN, ReqSent), to(SCN, AckRcvd), to(SCN, ReqSent), to(TLD|SCR|SCN, ReqSent)},
	RCA: {
		{}, {}, to(STA, Closed), to(STA, Stopped), to(0, Closing), to(0, Stopping),
		to(IRC, AckRcvd), to(SCR, ReqSent), to(IRC|TLU, Opened), to(TLD|SCR, ReqSent)},
	RCN: {
		{}, {}, to(STA, Closed), to(STA, Stopped), to(0, Closing), to(0, Stopping),
		to(IRC|SCR, ReqSent), to(SCR, ReqSent), to(IRC|SCR, AckSent), to(TLD|SCR, ReqSent)},

	RTR: {
		{}, {}, to(STA, Closed), to(STA, Stopped), to(STA, Closing), to(STA, Stopping),
		to(STA, ReqSent), to(STA, ReqSent), to(STA, ReqSent), to(TLD|ZRC|STA, Stopping)},
	RTA: {
		{}, {}, to(0, Closed), to(0, Stopped), to(TLF, Closed), to(TLF, Stopped),
		to(0, ReqSent), to(0, ReqSent), to(0, AckSent), to(TLD|SCR, ReqSent)},

	RUC: {
		{}, {}, to(SCJ, Closed), to(SCJ, Stopped), to(SCJ, Closing), to(SCJ, Stopping),
		to(SCJ, ReqSent), to(SCJ, AckRcvd), to(SCJ, AckSent), to(SCJ, Opened)},
	RXJPlus: {
		{}, {}, to(0, Closed), to(0, Stopped), to(0, Closing), to(0, Stopping),
		to(0, ReqSent), to(0, ReqSent), to(0, AckSent), to(0, Opened)},
	RXJMinus: {
		{}, {}, to(TLF, Closed), to(TLF, Stopped), to(TLF, Closed), to(TLF, Stopped),
		to(TLF, Stopped), to(TLF, Stopped), to(TLF, Stopped), to(TLD|IRC|STR, Stopping)},

	RXR: {
		{}, {}, to(0, Closed), to(0, Stopped), to(0, Closing), to(0, Stopping),
		to(0, ReqSent), to(0, AckRcvd), to(0, AckSent), to(SER, Opened)},
}
