// Package netcfg sets a network interface up and takes it back: link state, MTU, addresses, routes.
//
// Apply brings the kernel to a Plan and hands back an undo that takes away exactly what was
// added, so what was there before stays. Applying a plan twice changes nothing the second
// time. Update changes the routes of an interface that is up to another set:
//
//	have (ours on this link)   want             done
//	10.2.0.0/24                10.2.0.0/24      nothing
//	10.3.0.0/24                                 removed
//	                           10.4.0.0/24      added
//
// What is added comes first, so that no packet finds no route of ours in between. Addresses of the interface may come and go meanwhile, if the plan is Lasting.
//
// Ours are the routes with protocol number 77 in the main table. Routes of the operator, of DHCP
// or of a routing daemon are never changed and never shadowed: one with the same destination and metric is
// ErrConflict, not a replacement.
//
// A route's Src is the hint for the source address of packets that this machine itself sends
// there: without it they would leave with the address of the tunnel interface, which no
// certificate covers. Within finds such an address. OnLink finds the networks that the machine is in.
//
// It works in the network namespace of the calling thread, over rtnetlink, with CAP_NET_ADMIN.
// Left out: policy rules, other routing tables, interface creation.
package netcfg
