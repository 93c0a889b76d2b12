// Package tun reads and writes IP packets of a TUN interface in batches.
//
// A Device is what the router's engine sees of the kernel: the packets that the kernel
// routes to the interface come out of Read, what is handed to Write enters the kernel as
// if it had arrived on the interface. Packets are bare IPv4 or IPv6 (IFF_NO_PI), one in
// each buffer, and lie at an offset, so that the headers of the tunnel can be written in
// front of them without a copy:
//
//	bufs[i]  |<-- offset: headroom -->|<-- sizes[i]: IP packet -->|  tailroom  |
//	         0                     offset
//
// The back end is github.com/songgao/water: one packet a system call, so Read returns one
// and BatchSize is 1. Callers take all of it from BatchSize and from the counts returned,
// and so need no change for a back end that moves trains of segments.
//
// Package tuntest has a Device without a kernel. Addresses, routes and link state are the
// work of package netcfg. TAP (Ethernet frames) is left out.
package tun
