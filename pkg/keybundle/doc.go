// Package keybundle seals a user's two private keys under a password, so that a
// directory can keep them without being able to read them.
//
//	master = Argon2id(password, salt)             RFC 9106
//	auth   = HKDF-Expand(master, "twinkey auth")  proves the password to the directory,
//	                                              which stores only Verifier(auth)
//	seal   = HKDF-Expand(master, "twinkey seal")  opens the bundle, never leaves
//
//	| version 1 | nonce 24 | XChaCha20-Poly1305(control key 32 | data key 32) | tag 16 |
//
// The certificate's DER is associated data: a bundle opens only beside the certificate
// that it was sealed for.
package keybundle
