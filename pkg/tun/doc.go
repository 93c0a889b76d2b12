// Package tun reads and writes the packets of a TUN interface, as trains where the kernel
// has them.
//
// What the kernel routes to the interface comes out of a Queue's Read; what is handed to Write
// enters the kernel as if it had arrived on the interface. It is one IPv4 or IPv6 packet
// (IFF_NO_PI), or a train of TCP or UDP segments (package gso). It lies at an offset, so
// that headers can be written in front of it without a copy:
//
//	buf  |<-- at: headroom, its last 10 bytes the virtio-net header -->|<-- packet or train -->|
//
// Nothing waits: whoever has nothing to do waits for FD by package poller.
//
// There are two back ends. The first is the kernel's own device with IFF_VNET_HDR, the offloads
// of TUNSETOFFLOAD and any number of queues, one for each goroutine that carries packets. The
// kernel hands out a flow's packets at the queue through which it last got packets of the
// same flow (tun_flow_update in drivers/net/tun.c), so both directions of a flow stay on
// one goroutine. The second is github.com/songgao/water: one queue, one packet a system
// call; for kernels without offloads, and to compare with.
//
// Package tuntest has a Device without a kernel. Addresses, routes and link state are the
// work of package netcfg. TAP (Ethernet frames) is left out.
package tun
