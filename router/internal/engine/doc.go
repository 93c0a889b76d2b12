// Package engine is the one owner of the router's socket, TUN interface, goroutines and
// clock. Three goroutines carry everything:
//
//	LAN -> WAN  tun.Read  > outbound.go: header, calls.Routes, source > esp Seal in place > udpio.Write
//	WAN -> LAN  udpio.Read > inbound.go: SPI > esp Open in place > L2TP+PPP prefix, source > tun.Write
//	control     both put what is no data on one bounded queue > control.go: native, links; one timer
//
// The two data goroutines take no lock and change no state but counters, sequence
// numbers and replay windows; they read what the control loop published in calls.Table.
// The control loop alone changes state. Other goroutines (site map, control socket,
// renewal) come in through Do.
//
// A data packet as it lies in its buffer:
//
//	| headroom | ESP header, IV | UDP 1701 | L2TP | PPP | IP packet | padding, ICV |
//	0                                                   headroom
package engine
