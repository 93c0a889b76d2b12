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
//
// When the CA certifies a user's data key anew nobody is there to type the password: the
// group has another control key, or the certificate was about to expire. The bundle stays
// as it is, and beside it lies a successor, a newer certificate over the same data key
// and this:
//
//	| version 1 | enc 32 | ChaCha20-Poly1305(control key 32) | tag 16 |
//
// It is HPKE in base mode (RFC 9180: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256,
// ChaCha20-Poly1305), single shot, to the data key of the certificate; info is "twinkey
// successor", a zero byte and the certificate's DER, which says for whom, for which group,
// which two public keys and under which number. So it opens with the data key alone, which is
// in the bundle, and beside its certificate alone. It always holds the control key, also
// where that is the old one: there is one form, and its length tells nothing.
//
// The older certificate is not in info, on purpose: who is logged in may hold one that is older or
// newer than the bundle's, and must be able to go on from it.
//
// Anybody can seal to a public key. Who opens a successor has to see that the control key is
// that of the certificate, which the CA has signed.
package keybundle
