// Package udpio moves trains of UDP datagrams over sockets without allocating or waiting.
//
// A train is datagrams of one length to or from one address, one behind the other in one
// buffer; the last may be shorter. It is one message to the kernel (UDP_SEGMENT) and may be
// one from it (UDP_GRO), so that a route is looked up, a filter run and a device entered
// once for up to 64 datagrams. Several trains go in one sendmmsg(2) or come in one
// recvmmsg(2). Where the kernel or a device refuses trains, Send takes them apart.
//
//	Buf | datagram | datagram | datagram | last |    Addr: whose
//	    |<- Size ->|                            N
//
// Nothing waits: whoever has nothing to do waits for FD by package poller. Addresses are netip
// values, parsed from and written to the raw socket address, so a train costs no allocation.
//
// Several sockets may share one port (SO_REUSEPORT), one for each goroutine that carries
// packets. Which of them a datagram reaches is decided by the low half of its first word, the
// slot of an ESP packet's SPI: all packets of one call come in order to one goroutine. What
// has no SPI (RFC 3948 section 2: control messages behind four zero bytes) reaches the first.
//
// The path. Every datagram leaves with Don't Fragment set, by IP_PMTUDISC_PROBE and not
// IP_PMTUDISC_DO. With DO the kernel lowers its own path MTU for everybody on the strength of an
// ICMP message that anybody who guesses addresses and ports can forge, and then refuses our
// datagrams; with PROBE it lets us send whatever the outgoing interface carries, and what
// an ICMP message claims is reported as a hint for the path MTU discovery above, which
// believes only what an authenticated peer confirms.
//
// Errors. IP_RECVERR is set, so ICMP errors reach us with the destination that they are
// about although the socket is connected to nobody. They wait in a queue of their own for
// Trouble. The refusals of a send (EMSGSIZE, ENETUNREACH, EPERM from a packet filter) are returned. Both
// are *PathError: they concern one destination, never the socket. Everything else is
// final; after Close it is net.ErrClosed.
//
// Package udptest has a network in memory.
package udpio
