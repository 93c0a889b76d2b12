// Package access says who may ask the directory for what.
//
// Who asks is read from the TLS certificate: it was verified against our roots by the
// handshake, it carries one twinkey:// URI, and it is looked up in the revocations anew for
// every request, so that a revocation counts on connections that are open already.
//
//	twinkey://ca           changes; reads sites, revocations, CRL, watch
//	twinkey://router/NAME  if the directory knows the router and its current twin
//	                       certificate is not revoked: reads the same; with that certificate
//	                       valid now: announces itself, and asks for users in its scope
//	everybody else         nothing
//
// A login asks twice: for the password's parameters, then, with the proof, for the sealed
// keys. To a router all users that it may not have look alike: unknown, out of scope,
// disabled, without keys, with keys of their own, expired, revoked, wrong password. They get a fake salt that never
// changes, the same refusal, and the same lock after the same number of tries. Failures
// are counted in the store, in the transaction that answers, so that neither a restart nor
// many tries at once give a guesser more:
//
//	u/UID          a user in the router's scope, whichever router asks
//	p/ROUTER/UID   anybody else, for that router alone: it cannot lock out strangers, and
//	               cannot tell them from nobody
//	r/ROUTER       all of a router's failures
//
// A right password clears the user's count, not the router's.
//
// A user who changes the password proves the old one in the same way, with the same counts and
// locks. That the new sealed keys open with the new password only the router can tell, to whom
// the user gave both.
//
// A user with keys of their own proves these to the router, which tells the directory whose certificate it was and hears
// whether they may log in by it (LoginOwn): the same refusal, counts and locks. A user whose keys are released has none of their
// own, so that keys which were opened once do not stand for the password, nor for the CA's word.
//
// Whether the password of a user of a source is right, only the source can say, and only
// the CA can ask it. So the keys of such a user are released to a router for which the CA
// has vouched within the last minute (client.Vouch), and to no other: what a router knows
// of a password from yesterday opens nothing today. Vouches are kept in memory. A
// directory that was restarted has forgotten them, and the user logs in again.
//
// LoginParams tells a router whether the CA is to be asked first: for a user of a source,
// and, if the CA has sources at all, for everybody whom the router may not have. So a
// router sees who is a local user in its scope, and nothing of others.
//
// When a user who is logged in has been certified anew there is no password to ask for. A router
// then says which certificate it holds, and gets the user's present one with the sealed
// control key, if all but the password is as for a login and the certificate that it holds is one of the user's
// over the same data key. It opens nothing without that data key, so it tells a router in scope nothing that it may not know;
// nothing is guessed, so nothing is counted; that it was handed out is written down. All that a router
// may not know looks like a user who is not there.
package access
