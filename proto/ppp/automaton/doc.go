// Package automaton is the option negotiation automaton of RFC 1661 section 4, which
// LCP and every network control protocol run, each its own copy.
//
//	      lower layer Up                 Configure-Ack, both ways
//	Initial, Starting  -->  Req-Sent, Ack-Rcvd, Ack-Sent  -->  Opened
//	    (Closed, Stopped wait with the        |                  |
//	     lower layer up)            <--   Closing, Stopping  <---+ Close, Terminate-Request
//
// The table of section 4.1 stands in table.go as the RFC prints it, and the test holds
// it against a transcription. An Automaton owns the restart timer and the counters of
// section 4.6; it sends nothing itself: Handle answers with the set of actions that its
// owner carries out. Time is an argument.
//
// The options that footnotes r (restart on Open) and p (passive) allow are not taken.
// Footnote x (crossed connection) needs nothing more than the table says.
package automaton
