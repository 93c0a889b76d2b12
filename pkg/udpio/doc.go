// Package udpio moves UDP datagrams over one socket in batches and without allocating.
//
// Read takes what waits in the socket with one recvmmsg(2) and tells for each datagram
// where it came from; Write sends a batch to one destination with sendmmsg(2). Addresses
// are netip values, parsed from and written to the raw socket address, so a datagram
// costs no allocation either way.
//
//	bufs[i]   |<-- sizes[i]: datagram -->|  unused  |     from[i] its sender
//
// The path. Every datagram leaves with Don't Fragment set, by IP_PMTUDISC_PROBE and not
// IP_PMTUDISC_DO. With DO the kernel lowers its own path MTU for everybody on the strength of an
// ICMP message that anybody who guesses addresses and ports can forge, and then refuses our
// datagrams; with PROBE it lets us send whatever the outgoing interface carries, and what
// an ICMP message claims is reported as a hint for the path MTU discovery above, which
// believes only what an authenticated peer confirms.
//
// Errors. IP_RECVERR is set, so ICMP errors reach us with the destination that they are
// about although the socket is connected to nobody. Those errors and the refusals of a send (EMSGSIZE,
// ENETUNREACH, EPERM from a packet filter) are *PathError: they concern one destination, never the
// socket, and reading goes on. Everything else is final; after Close it is net.ErrClosed.
//
// Trains of segments (UDP_SEGMENT, UDP_GRO) are left out; as Write has one destination and Read
// gives sizes, they fit behind the same interface. Package udptest has a network in memory.
package udpio
