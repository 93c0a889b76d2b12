// Package hpketest is HPKE done by hand, for tests that hold what is sealed against the RFC and not against the library that sealed
// it: RFC 9180 sections 4.1, 5.1, 5.2 and 5.3, mode base, for the one suite that is used:
// DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305.
package hpketest
