// Package engine is the one owner of the router's sockets, TUN queues, goroutines and
// clock. One worker for each core carries packets, both ways, and one loop decides:
//
//	worker   LAN -> WAN  tun.Read > outbound.go: calls.Routes, source > gso apart > esp SealTo > udpio.Send
//	         WAN -> LAN  udpio.Receive > inbound.go: SPI > esp OpenTo > L2TP+PPP, source > gso together > tun.Write
//	control  workers put what is no data on bounded queues > control.go: native, links; one timer
//
// A worker has a queue of the TUN interface and a socket of its own, and waits for either
// on a thread of its own (package poller). It reads, seals and sends, or receives, opens and
// writes, before it looks for more: no packet is handed from one goroutine to another. The
// kernel brings both directions of a flow, and all packets of a call, to one worker, so
// they stay in order; other calls scale over other workers.
//
// Workers take no lock a packet and change no state but counters, sequence numbers and replay
// windows; they read what the control loop published in calls.Table. The control loop alone
// changes state. Other goroutines (site map, control socket, renewal) come in through Do.
//
// A train on its way out. Payloads are read once, by the cipher, from where the kernel put
// them to where the kernel takes them from:
//
//	tun     | headroom | IP, TCP | payload 1 | payload 2 | payload 3 |
//	packet 2     | UDP, L2TP, PPP, IP, TCP | payload 2 |                    over payload 1, which is sealed
//	arena   | ESP packet 1 | ESP packet 2 | ESP packet 3 |                  one message (UDP_SEGMENT)
//
// On the way in the cipher writes each payload behind the one before (package gso). Where the
// peer takes bare packets, inner UDP, L2TP and PPP are left out: the SPI says the same.
package engine
