// Package handshake authenticates twinkey's native mode and agrees on keys: Noise XX
// over the CONTROL keys for a tunnel, Noise IK over the DATA keys for each call in it,
// and the same IK for every rekey (The Noise Protocol Framework, revision 34; suite
// 25519_AESGCM_SHA256). Where both ends want it an ML-KEM-768 secret (FIPS 203) enters
// as the psk (XXpsk3, IKpsk2). Messages go in and out as bytes; who a certificate
// belongs to is asked of a func that the owner passes in.
//
//	Tunnel                      initiator             responder      carries, in payload
//	1  XX -> e                  ───────────────────────────────►     open:   Suites, KEM key (psk3)
//	2  XX <- e, ee, s, es       ◄───────────────────────────────     sealed: Suite, SPI, Certificate, Caps, KEM ciphertext
//	3  XX -> s, se (, psk)      ───────────────────────────────►     sealed: SPI, Certificate, Router, Signature, Caps, Bound
//
//	Call (inside the control SA)
//	1  IK -> e, es, s, ss       ───────────────────────────────►     sealed: Suites, SPI, Certificate, KEM key, Extra
//	2  IK <- e, ee, se (, psk)  ◄───────────────────────────────     sealed: Suite, SPI, Session, Extra
//
// A message is one byte, high half the pattern (1 XX, 2 XXpsk3, 3 IK, 4 IKpsk2), low
// half the number of the message; then, only in IKpsk2's second, a 16-bit length and
// that many bytes of ML-KEM ciphertext (0 or 1088), which must be outside because it
// opens the payload; then the Noise message. A payload is a list of fields:
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-----------------------------+-------------------------------+
//	|C|            Type             |            Length             |  Length: of Value, bytes
//	+-+-----------------------------+-------------------------------+
//	|                             Value ...
//
// An unknown field with C (critical) ends the handshake, without C it is skipped. A
// known field twice, or in a message where it has no place, ends the handshake.
//
//	message, bytes         XX            XXpsk3          IK            IKpsk2
//	1                      33+8          49+8+1188       97+p          97+p+1188
//	2                      97+p          97+p+1092       49+p          51+p+1088
//	3                      65+p          65+p            -             -
//
// where p is the payload's fields, certificates above all (about 450 bytes each), and 8
// stands for four suites. Nothing exceeds MaxMessage; Split and Assembler carry a
// message in parts that fit a datagram.
//
// The first payload of a tunnel is open to everybody who sees it, also in XXpsk3, where
// Noise encrypts it under a key that follows from the public ephemeral key.
//
// What an attacker on the path may change: nothing. The pattern is part of the
// protocol's name and hashed first, both suite lists, the KEM key and the choice are
// hashed in or sealed, and a KEM ciphertext that was removed or replaced leaves the ends
// with different psks. Every such change ends in a message that does not authenticate.
//
// The initiator's router need not be where the initiator is. What it signs (Statement) can be had before message 3 is written,
// and its signature brought from elsewhere (Vouch). With Bound in message 3 it covers, besides hash and control key, the
// certificate that is shown and what Bound says: the router speaks for this one holder of a control key that others
// may hold as well.
//
// # What may be repeated
//
// A message that does not authenticate is ErrStray, one that is not due at all is
// ErrState; both leave the machine as it was, waiting for the right one (at most
// maxStrays of the former). Everything else is the end: a message that did authenticate
// but says what it must not, a refusal by Verify, a failing random source. Then every
// call answers ErrDead and all secrets are wiped. Message 1 to an answering machine is
// not worth waiting for again: whatever fails there is the end.
//
// # Left out
//
// Retransmission (L2TP's), identity hiding of the answering end against whoever asks (XX
// has none), 0-RTT data, and certain erasure: crypto/ecdh, crypto/mlkem and flynn/noise
// keep copies that can be dropped but not overwritten.
package handshake
