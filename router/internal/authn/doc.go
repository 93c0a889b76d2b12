// Package authn turns a UserID and a password into a user's credentials (the paper,
// section 2 step 3, compulsory mode):
//
//	router                                directory
//	LoginParams uid               ─────►  salt and cost (a stable fake for unknown users)
//	master = Argon2id(password, salt)     when its turn has come: see Gate
//	Release uid, HKDF(master, "auth") ──► in scope? proof right? certificate valid?
//	                              ◄─────  certificate, sealed keys
//	open with HKDF(master, "seal"), compare with the certificate
//
// A change of the password goes on from there:
//
//	Argon2id over the new password, a salt of its own
//	sealed anew: the same keys, for the same certificate
//	Reseal uid, proof of the old, ──────► all of the above once more; no weaker than configured?
//	       params, verifier, sealed       user, keys and audit record in one change
//
// Neither the passwords nor the sealing keys leave the router.
//
// In voluntary mode the keys lie on the user's own machine (pkg/keyfile), and Own opens them there.
package authn
