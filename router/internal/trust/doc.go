// Package trust answers, at this moment, whether a certificate that a peer shows is one
// to believe: chain, validity, role, revocation, and how old our knowledge of
// revocations may be.
//
//	what we know            where from                          when it is too old
//	roots, intermediates    the box's own identity              never (they expire by themselves)
//	revoked certificates    directory's list, then its watch    after Bound without word from the directory
//	CRL                     directory, or the CA while that     at its nextUpdate
//	                        is away; signed by the CA
//
// Knowledge is fresh while the directory's watch speaks, and for Bound after it fell
// silent; after that for as long as a CRL that we hold is current. When neither holds,
// new calls are refused with ErrStale: a router that cannot learn of revocations must
// not act as if there were none. Calls that are up go on, until their certificates end or
// their revocation is heard: a company whose headquarters is away for a day keeps its sites.
//
//	Standing      directory heard     CRL        new calls   what is revoked meanwhile
//	ByDirectory   within Bound        whatever   admitted    is heard at once
//	ByCRL         longer ago          current    admitted    only if a later CRL comes
//	None          longer ago, never   ended      refused     not at all
//
// Watch says in the log when a router passes from one to another.
package trust
