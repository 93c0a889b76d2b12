// Package links keeps the calls that a router wants to have up: a site link to each
// peer, and a call for each user who is logged in. It knows no socket and no clock.
//
//	           Want                    Due
//	(nothing) ──────► Waiting ───────────────► Dialing
//	                     ▲   back-off over        │
//	                     │                        │ Up
//	                     │  Down (failed or lost) ▼
//	                     └────────────────────── Up
//
// A call that was up is dialled again at once; then after 1, 2, 4 ... 30 seconds, each
// with a quarter of jitter so that hundreds of boxes do not return in step. An on-demand
// link waits until a packet asks for it.
package links
