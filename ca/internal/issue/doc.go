// Package issue is the desk where certificates are issued and revoked: all or nothing,
// over three databases that share no transaction.
//
//	         ledger (ours)          directory               smallstep's database
//	1        intent written
//	2                               Change applied       <- the commit point
//	3                                                       certificates recorded
//	4        effects, intent gone
//	5        the caller gets the answer
//
// An intent holds everything: signed certificates, sealed keys, the Change with its ID,
// what to write into the ledger. Killed before 1, nothing has happened. Killed after it,
// the next start finds the intent and goes on from 2; applying the same Change twice is
// applying it once. A certificate that no directory knows is in no database of the CA
// either: it existed in an intent only.
//
// What if the directory cannot be reached, refuses, or falls silent in the middle?
//
//   - It is asked whether it is well before 1. If not, nothing is issued, and that is
//     what the caller hears.
//   - A refusal, or silence, at 2 withdraws the intent. Whether an earlier Change still
//     travels there cannot be known by asking: a packet may lie in a buffer. So the desk
//     marks the intent as withdrawn, and from then on sends nothing but a tombstone: an
//     empty Change under the same ID. The directory decides, in one transaction, which
//     of the two came first: if the tombstone is taken, the real one will be refused
//     whenever it arrives; if it is refused, the real one was there, and the desk goes on
//     with 3.
//   - Silence on the tombstone too leaves the intent in the journal, where Settle tries
//     again; the caller hears that the matter is not decided (ErrUndecided).
//
// A revocation is never withdrawn. It stands in smallstep's database and in the CRL
// before the directory is told, and stays in the journal until it has been. That of a user or a
// router also forgets the tokens that were made for them and not used.
//
// The same goes for the end of a session (Close), which routers ask for: it is a revocation of
// certificates, not of users.
//
// A source may put a user who is logged in into another group, or set an end to the session (ChangeUser): an issue of a
// certificate over the same data key (a successor, see below) that revokes in the same Change what it takes the place of. So it is
// withdrawn as a whole, or stands as a whole, and the routers hear of both at once. The CRL follows, by an intent of
// its own that is written with the effects.
//
// What a user's password is checked against passes through an intent and stays at the directory
// alone, where the user changes it: to close a login a Change names the user and nothing else.
//
// A group's control key is replaced in steps, each of which is an intent; what is left to do is read from the
// ledger, so that nothing need be remembered over a restart (Tend):
//
//	1        the group has a new key; the old one is noted as retired
//	2        users whose certificate is over an older key get another one over the same
//	         data key, with the same end, so many at a time (see keybundle, successor)
//	3        nobody is left: noted
//	4        after the grace, certificates over the retired key are revoked
//	5        none is left: the retired key is forgotten
//
// A renewal without a password is step 2 for one user, with the same control key and a
// later end. Rotation is no renewal: it must not prolong how long somebody may come. Neither may a renewal that no source
// was asked about, so that users of a source have none but a login's.
//
// Intents form a queue. Nothing is issued while an older one is undecided.
//
// Clock: the ledger keeps the latest time at which it was written. If the clock is more
// than a few minutes behind it, or outside the term of the CA's own certificates, nothing
// is issued (ErrClock), because certificates and CRLs would bear wrong dates. Revoking
// always works.
package issue
