// Package pmtu finds how much a path carries: Datagram Packetization Layer Path MTU Discovery
// (RFC 8899), as a machine without socket and clock, and the messages that it needs.
//
//	 0               1               2               3
//	+---------------+---------------+-------------------------------+
//	| Type          | 0             | Size                          |
//	+---------------+---------------+-------------------------------+
//	| ID                                                            |
//	+---------------------------------------------------------------+
//	| zeros, in a probe: as many as make its IP packet Size long ... |
//	+---------------------------------------------------------------+
//
// Type 1 is a probe; 2 its answer, which names the ID and the size that arrived. The messages are to
// travel where nobody can forge or repeat them. All sizes are bytes of IP packet on the
// path, outer headers included.
//
//	state           carries   until
//	Base            Assumed   the far end answers a probe: it knows how to
//	Searching       PLPMTU    Max was answered, or three rounds have passed
//	SearchComplete  PLPMTU    600 s are over: is there more? or a probe of the PLPMTU, sent
//	                          while data flows, is lost: is there less?
//	Error           Min       15 s are over; not even Base passed
//
// A search is made of rounds. A round has one probe of each size that is in question, 1,500 and all
// smaller ones of the table, so that a path is known after one round trip; it ends when the
// greatest was answered, or after a second. The PLPMTU rises with every answer.
//
// It falls only by comparison: a round counts if a smaller probe of it was answered, and the
// greatest size that was answered counts after three rounds in which the PLPMTU was not. Where nothing at
// all comes back the path is down, which says nothing of its size; the rounds go on, up to 16 s
// apart, and the PLPMTU stays. So an outage makes no host believe in a narrow path.
//
// What ICMP says ("too big") can be forged. It is a reason to look, at the size that it names as
// well, if that lies between Base and the PLPMTU, and not more than once a second; what the
// probes find counts.
//
// Where it differs from RFC 8899: a round has several probes, not one; PROBE_TIMER is 1 s (section
// 5.1.1 has 15 s as a recommendation, 1 s as the least), for TCP above us waits; a far end
// that has never answered (it may be older than this protocol) gets Assumed, not BASE_PLPMTU.
package pmtu
