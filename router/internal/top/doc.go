// Package top is the live view of a router's calls in a terminal: what `twinkey-router top` shows.
//
//	router ra, up for 3d 2h         directory heard 1.2s ago
//	calls 412 in 9 tunnels    in 812 Mbit/s  95,211 packets/s    out ...
//	dropped 12/s: no_call 12
//
//	USER   PEER  CALL  SUITE  IN  OUT  ...        a row a call, those with most traffic first
//	q quit  o order: traffic  space pause
//
// Rates makes rates of two snapshots of the counters; the model asks the router for one after
// the other and draws them. A router that is away is asked again.
package top
