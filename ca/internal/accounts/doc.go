// Package accounts tells sources of the calls of their users.
//
//	router     call up, still up, down      ──►  directory   queued for the user's source, numbered
//	CA         records after number n       ──►  directory   which forgets those up to n
//	           start, interim, stop         ──►  source      again and again until it has them
//	           n, and which calls are open, into the ledger
//
// Each source has a clerk of its own, so that one that is silent holds up no other. If the CA is killed between telling
// and noting, the source is told again; the call's name among all calls of all routers and days is the same.
//
// A call of which nothing more will come is told as ended: when its router runs anew, and when it was not heard of for
// a day.
//
// What a source said of a user at the login goes back to it with each event of the calls that the login led to
// (RADIUS: Class). It is kept with the open call, so that a later login does not change it.
package accounts
