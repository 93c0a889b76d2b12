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
// Neither the password nor the sealing key leaves the router.
package authn
