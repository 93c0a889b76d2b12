// Floor measures what this machine itself takes for the work of a data plane, so that the figures of the routers can
// be held against it: nothing of the product runs here.
//
//	copies     memory to memory, 1,400-byte packets and 64 KiB trains
//	ciphers    bare AEADs on 1,400 bytes, in place and from one buffer into another
//	UDP        socket to socket over a cable (veth) between two namespaces
//	TUN        read(2) and write(2) of packets and trains with a virtio-net header
//	forwarding TUN to UDP to TUN, without cipher and protocol, TCP over it
//
// The last is the floor of the whole. Two boxes, each one thread, move trains as they are:
//
//	iperf3 - tw0 | box |   UDP 1701, one UDP_SEGMENT call a train   | box | tw0 - iperf3
//
//	| virtio_net_hdr 10 | IP packet or train, at most 65,497 bytes  |   cut into datagrams of 1,400 bytes
//
// What arrives by UDP_GRO is written to the TUN interface as it is, header and all. It is run twice: with
// the hosts on the boxes, and as in scripts/lab with hosts of their own behind them, beside plain kernel forwarding.
//
// All rows are measured in turn, once a round, so that a noisy minute spoils one sample of each and no row of
// its own; the table has medians, with minimum and maximum.
//
//	floor [-rounds N] [-time D] [-json FILE] [-markdown FILE] [-only GROUP,...]
package main
