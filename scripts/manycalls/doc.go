// Manycalls measures how throughput and memory of two routers go with the number of calls and of tunnels: one call
// with an SA pair of its own for each user, users of one group in one tunnel.
//
//	hosta                          ra ======= tunnel of a group ======= rb      hostb
//	10.3.1.1  user u0001 ----------|  call 1, SA pair                   |----- 10.2.0.2
//	10.3.1.2  user u0002 ----------|  call 2, SA pair                   |      receives
//	...                            |  ...                               |      from all
//
// Each column of users is a company of its own (package scripts/lab: CA, directory, two routers, real binaries), all of them
// up at the same time, so that rounds can go from one to the next. Before anything is measured it is checked that
// every user has a call, every call SPIs that no other has and that the far end has too, that there are as many
// tunnels as groups, and that a packet of each user went through the user's own call.
//
// Traffic is of sockets bound to the users' addresses. It is the same for any number of calls, as many flows as the largest set
// has calls, each user's in turn, so that what differs is the calls:
//
//	TCP  one stream through the first call; then as many streams as there are flows, from hosta to hostb
//	UDP  1,300-byte datagrams, one system call each, from each flow's socket in turn, as fast as hosta can
//
// The table has medians over the rounds with minimum and maximum.
//
//	manycalls [-calls 1,100,1000] [-tunnels 100] [-setup 1000] [-rounds N] [-time D] [-settle D] [-json FILE] [-out DIR]
//
// Before all that, in a company by itself, users log in all at once over the control socket, and it is measured until the last
// has a call. Their passwords cost the least that keybundle takes, and what stretching so many takes alone is told beside it.
//
// At the end some users of each set in one tunnel are revoked, one after another, while they send datagrams without end. Whichever is last counts:
// the end of the call in either router's log, or the last datagram that arrives at hostb. manycalls fails if that takes a second or
// more at the 99th percentile.
//
// Logins take most of the time before: Argon2id, once at the CA and once at the router for each user. It takes 64 MiB there for each core,
// so the table has the peak of the logins apart.
package main
