// Package enroll reads requests for certificates and checks that whoever asks holds the
// keys: PKCS#10 for the TLS key, and for the two X25519 keys a shared secret with a key
// that this CA made for one exchange (see ca/client for the formula). A user who makes the keys
// on a machine of their own has those two and no other; to renew them the old two are proved in
// the same exchange.
//
//	challenge   | public 32 |                      to the box
//	cookie      | version 1 | nonce 24 | XChaCha20-Poly1305(private 32 | expiry 8) | tag 16 |
//
// The cookie is how the CA keeps nothing for a stranger who only asks: it carries the
// challenge's own private key, sealed under a key that lives as long as the process. What
// is kept is the nonce of each cookie that was redeemed, until it would have expired, so
// that it works once.
//
// At the end of a session a router proves the user's data key in the same manner, but against a
// key of the CA that stays the same (CloseKey), because the data key is wiped whether or not the CA
// can be reached at that moment.
package enroll
