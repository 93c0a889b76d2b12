// Package accounts tells sources of the calls of their users.
//
//	router     call up, still up, down      ──►  directory   queued for the user's source, numbered
//	CA         records after number n       ──►  directory   which forgets those up to n
//	CA         did this source let this user in at this router? no: passed over, and the log says so
//	           start, interim, stop         ──►  source      again and again until it has them
//	           n, and which calls are open, into the ledger
//
// Each source has a clerk of its own, so that one that is silent holds up no other. If the CA is killed between telling
// and noting, the source is told again; the call's name among all calls of all routers and days is the same.
//
// A router may lie, and each lie would cost a source a session, the ledger a call, and everybody time. So a call is believed of
// a user who logged in there, so many for each; its time is not later than now; it began no sooner than the user's last login
// there, or a CoA-Request about the session's time, which counts from then, would end the user everywhere; and what is passed over is noted once
// for many. What is open at a router is counted in memory, and looked through when its run is another one.
//
// A call of which nothing more will come is told as ended: when its router runs anew, and when it was not heard of for
// a day.
//
// What a source said of a user at the login goes back to it with each event of the calls that the login led to
// (RADIUS: Class). It is kept with the open call, so that a later login does not change it.
package accounts
