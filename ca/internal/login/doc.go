// Package login lets users in whom somebody else authenticates: a source (package source),
// which the CA alone knows and asks.
//
//	router                    CA                              source           directory
//	uid, password       ───►  locked? in line for this uid
//	                          uid, password             ───►  right?
//	                                                    ◄───  group, session
//	                          is the group in the router's scope?
//	                          has the user keys under this password, in this group?
//	                            nothing yet, or ended            issue        ───►  certificate, keys
//	                            another password, another group  revoke, issue ──►  the same
//	                            soon expired                     renew        ───►  the same
//	                          vouch uid, router, certificate                  ───►  for a minute
//	◄── salt and cost, session
//	proof, as for every user  ────────────────────────────────────────────────────►  sealed keys
//
// The password is derived here as a router would, and wiped; the sealing key lives for as
// long as the keys are sealed.
//
// A user who logs in on a machine of their own has the password sealed there to a login key of
// ours (package sealedlogin), so that the router in front, which asks for them, does not read it:
//
//	router                    CA
//	                    ◄───  login key, signed: another one every ten minutes, good for twenty
//	uid, sealed         ───►  locked? in line for this uid; a source's user, or nobody we know?
//	                          is there such a key? else: ask for another one
//	                          opens it, for this router and this uid, once; from here on as above
//	◄── salt and cost, confirmed for the machine that has sealed it, session
//
// What does not open, or was shown before, is a wrong password: it counts, and is refused as one. Login keys are in
// memory alone and wiped when their time is over, so a recording opens nothing later; each remembers what it has
// opened, and one that has remembered as much as it may goes before its time. The password of a local user, that a router has
// brought here against better knowledge, is not opened.
//
// Which source is asked? That of the user, once there is one: a user belongs to the
// source that first accepted the name. For a name that the CA has never issued for, all are
// asked in the order of the configuration, and the first that does not answer ends it: of
// those behind it none may take a name that this one might know. Names that two sources
// know are therefore to be avoided. No source is asked for a local user's password.
//
// Refusals are all alike, whatever is the reason, and come no sooner than three seconds after the
// request (then six, and so on): unknown, wrong password, disabled, barred by the operator,
// group out of the router's scope. That is longer than servers hold back a "no" (FreeRADIUS a second, unless it
// is told otherwise), so that the time does not tell a wrong password from a right one that is of no use.
// They count, as they do in the directory:
//
//	u/UID          of a user in the router's scope, whichever router asks; of a name that
//	               nobody knows yet if the router may have everybody, or this user
//	p/ROUTER/UID   of anybody else: a router cannot lock out whom it may not have, and a
//	               right guess would tell it nothing
//	o/ROUTER/UID   of a source's user out of the router's scope: three in an hour, then the
//	               source, which may have put the user into another group since, is not
//	               asked. Its own lock-out must not be reached. The answer stays the same
//	r/ROUTER       all of a router's failures
//
// While a source is silent more shows: the users of another are still refused, and names that
// nobody knows, and the silent source's users, are told of its silence. A router that asks then
// learns of which source somebody is.
//
// Logins of one user happen one after the other, so that many tries at once give a guesser
// no more; what a source tells of an account that ended or changed waits in the same line, so that no
// login overtakes it.
//
// A source may also say that somebody who is logged in is in another group from now on, or
// may stay until another time (RADIUS: CoA-Request):
//
//	source                    CA                                       directory     routers
//	uid, group, time    ───►  in line for this uid
//	                          since when? over already: as an account that ended
//	                          is there such a group? can the time be kept?
//	                            successor of the certificate, and the
//	                            end of all others, in one change      ───►  ───►  take up the successor,
//	                    ◄───  done                                                call anew; the rest ends
//
// What a source orders is noted in the ledger when it comes, before anything is done: when the source said it, by its own clock, what tells it
// apart from what else it said in that second, and then whether it was obeyed. So nothing is obeyed that was said before something that has come,
// and nothing twice, in whatever order it is delivered and whenever the CA was killed or the directory away:
//
//	said before the newest that has come                   refused
//	the newest again: obeyed before                        done; it is not done again
//	                  refused for good                     refused
//	                  failed                               tried again
//	of the same second as the newest, and has not come     it is the newest now
//	of the same second, and has come before the newest     refused
//
// Two limits: of one second what comes later counts, since nothing else is known of their order; and what was held back on the way
// counts, for as long as RADIUS believes its time, if nothing that was said later has come, also after a login.
//
// The time counts from the first login whose call is known to be up, else from the latest. It cannot be kept if it is
// later than a router was told at that login, which ends the session by itself, or than a certificate
// may last. What was known of a login before the CA noted times bounds nothing. The next login is asked of the source as any other: if it still names
// the group of before, that is a change back, by new keys. A certificate that ends with a session is not for
// the next one, which gets another.
//
// Left out: second factors. A password that changes with every login works, and has new
// keys issued and the old certificate revoked each time.
package login
