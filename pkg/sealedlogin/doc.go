// Package sealedlogin carries a password past a router to the CA: of a user whom a source authenticates (RADIUS, LDAP), who logs
// in on a machine of their own. The router in front, by way of which they speak, must not learn it; the CA, which asks the source, needs it.
//
//	user's machine                router in front             CA
//	                              login key?            ───►  an X25519 key, in memory only, another one every ten minutes
//	            statement    ◄──        the CA's word for it    ◄──
//	is it the CA's, under the root that is pinned here?
//	sealed password          ───► nothing to read       ───►  opens it once, for this router and this user; goes on as with a password
//	            how it is stretched by now, confirmed   ◄──     the CA's word again
//
// A statement is what the CA says of a login key:
//
//	| version 1 | login key 32 | not after 8 | n 2, signature n | count 1 | count times: n 2, certificate n |
//
// not after is in seconds since 1970. The certificates are DER, that of the signer first, then what is between it and the root. The
// signature is ECDSA P-256, low-S, by the key of the CA's TLS certificate, over SHA-256 of
//
//	| "twinkey login key 1" 0 | 4, login key | 4, not after |       each part with its length, 4 bytes, before it
//
// which is nothing that TLS has that key sign. Who believes a statement has seen that the chain ends at a root of theirs, that the signer
// is a server and twinkey://ca and nobody else, that all of it is valid now, and that the signature fits. A clock may be five
// minutes off, as with a CRL.
//
// A sealed password has always the same length:
//
//	| version 1 | login key 32 | enc 32 | ChaCha20-Poly1305( n 2 | password n | zeros, 256 - n ) | tag 16 |
//
// It is HPKE in base mode (RFC 9180: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305), info is "twinkey sealed login 1"; the
// associated data are the name of the router by which it goes and the UserID, each with its length, 2 bytes, before it. So it is of no
// use by way of another router, nor for another user. That it is of no use a second time is for whoever opens it to see to: enc is
// another one for each.
//
// Both ends export a key of it (RFC 9180 section 5.3, "twinkey sealed answer 1", 32 bytes), which the router does not have. By that the CA confirms
// how the password is stretched from now on, where the user's keys have just been sealed anew:
//
//	HMAC-SHA-256(key, salt, time, memory, threads)       each with its length, 4 bytes, before it
//
// Left out: authentication of the sender. Anybody can seal a guess, as anybody can type one; it counts as one.
package sealedlogin
