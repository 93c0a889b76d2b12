// Package authn turns a UserID and a password into a user's credentials (the paper,
// section 2 step 3, compulsory mode):
//
//	router                                directory
//	LoginParams uid               ─────►  salt and cost (a stable fake for unknown users), ask the CA?
//	                                      CA
//	if so: uid, password          ─────►  asks the user's source; issues, vouches
//	                              ◄─────  salt and cost as they are now
//	                                      directory
//	master = Argon2id(password, salt)     when its turn has come: see keybundle.Gate
//	Release uid, HKDF(master, "auth") ──► in scope? proof right? certificate valid? vouched for?
//	                              ◄─────  certificate, sealed keys
//	                                      and, if they have one, their successor
//	open with HKDF(master, "seal"), then the successor with the data key;
//	compare with the certificate
//
// A change of the password goes on from there:
//
//	Argon2id over the new password, a salt of its own
//	sealed anew: the same keys, for the same certificate
//	Reseal uid, proof of the old, ──────► all of the above once more; no weaker than configured?
//	       params, verifier, sealed       user, keys and audit record in one change
//
// The sealing key never leaves the router. The password leaves it for the CA alone, and only
// for names of which the directory says so: the company's users whom a source authenticates, and those whom nobody knows.
//
// Whoever is refused hears it four seconds after they asked, or eight: how long it took to find
// out would tell a stranger who is known, and to whom.
//
// A successor (package keybundle) of a user who is logged in is opened with the data key that the router holds: Succeed.
//
// In voluntary mode the password is typed on the user's own machine, and reaches the CA sealed, past the router (packages voluntary and sealedlogin).
// Keys of a user's own lie there, too (pkg/keyfile), and Own opens them. Package voluntary proves them to the router in front.
package authn
