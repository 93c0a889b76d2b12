// Package gso takes trains of TCP or UDP segments apart and puts them together: what a
// network card with segmentation and receive offload does, done where a router needs
// it, between an interface that speaks in trains and a tunnel that carries packets.
//
// A train is one IP packet of up to 64 KiB that stands for several: the headers once,
// then the payloads of all. The kernel says so in a virtio-net header in front of it
// (virtio 1.2 section 5.1.6; linux/virtio_net.h), in the machine's own byte order:
//
//	 0       1       2               4               6               8              10
//	+-------+-------+---------------+---------------+---------------+---------------+
//	| flags | type  | header length | segment size  | checksum from | and offset    |
//	+-------+-------+---------------+---------------+---------------+---------------+
//	 1: checksum to be completed     payload bytes   where to sum    where it stands
//	 2: checksum known to be good    of each packet  from            from there
//
// # Apart
//
// A Splitter lays each packet bare where its payload lies already: the headers are
// written in front of the payload, over the end of the packet before, which has been
// sealed by then. Nothing is copied but headers, 40 to 120 bytes a packet.
//
//	train     | headers | payload 1 | payload 2 | payload 3 |
//	packet 2                | headers | payload 2 |
//
// # Together
//
// A Joiner says where the next packet should be decrypted to, so that its payload ends
// up behind the payload of the one before; the bytes that its headers cover there are
// kept aside and put back. A packet that does not belong to the train costs a copy.
//
//	train     | headers | payload 1 | payload 2 |
//	slot                        | prefix, headers | payload 3 |
//
// Packets join under the rules that Linux follows in GRO: equal headers, next sequence
// number, equal length but for the last. A checksum that does not fit is never joined, so
// no damage is hidden.
//
// # Checksums
//
// A kernel that hands out a train leaves the sum of the pseudo-header in the checksum
// field and asks to have it completed (RFC 9293 section 3.1 says of what). Whether it is
// completed here or left as it is for the far end is the caller's choice: under ESP's ICV the
// bytes cannot change on the way.
package gso
