// Package esp seals and opens packets of one security association: the Encapsulating
// Security Payload of RFC 4303 with extended sequence numbers (ESN), and tells the three
// kinds of datagram apart that share a UDP port (RFC 3948 section 2).
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+---------------------------------------------------------------+ ----
//	|            SPI, never 0 (that would be the non-ESP marker)    |  ^
//	+---------------------------------------------------------------+  |
//	|            Sequence number, low 32 bits                       |  |
//	+---------------------------------------------------------------+  |
//	|            IV: 8 octets AEAD and 3DES, 16 AES-CBC, 0 NULL     | integrity
//	+---------------------------------------------------------------+  |   ----
//	|            Payload                                            |  |    ^
//	+                                               +---------------+  | encrypted
//	|                                               |  1, 2, 3 ...  |  |    |
//	+-------------------------------+---------------+---------------+  |    |
//	|  ... padding                  |  pad length   |  next header  |  v    v
//	+-------------------------------+---------------+---------------+ ----
//	|  (Sequence number, high 32 bits: not sent, but under the ICV) |
//	+---------------------------------------------------------------+
//	|            ICV: 16 octets, 12 with HMAC-SHA1-96               |
//	+---------------------------------------------------------------+
//
// Suites, strongest first; all sizes in octets:
//
//	Suite               Source                 Key+salt+auth  IV  Align  ICV  Hard limit
//	AES256GCM           RFC 4106               32+4+0          8      4   16  2^40 octets
//	ChaCha20Poly1305    RFC 7634               32+4+0          8      4   16  2^56 octets
//	AES128GCM           RFC 4106               16+4+0          8      4   16  2^40 octets
//	AES256CBCSHA256     RFC 3602, 4868         32+0+32        16     16   16  2^40 octets
//	TripleDESSHA1       RFC 2451, 2404         24+0+20         8      8   12  2^30 octets
//	NullSHA256          RFC 2410, 4868          0+0+32         0      4   16  2^56 octets
//	...IIV              RFC 8750, of an AEAD   as theirs      0      4   16  as theirs
//	AES256CBCSHA256IIV  likewise               32+0+32         0     16   16  2^40 octets
//
// # Initialization vectors
//
// The AEAD suites use the 64-bit extended sequence number as IV, which can never repeat under one key.
// Two ends that know this of each other need not send it (RFC 8750).
// AES-CBC and 3DES-CBC need one that nobody can predict: the sequence number encrypted by
// AES under a key of its own, derived from the key material (the first method of NIST SP 800-38A
// appendix C, with the keys kept apart; cut to 8 octets for 3DES). A reader of random bytes would
// serve as well, but costs a system call or a lock a packet, and can fail. As the receiver
// can compute it too, two ends that know this of each other need not send it either.
//
// # Limits
//
// A sender that reaches a hard limit gets ErrExhausted for ever, so the 64-bit number never
// wraps. GCM and AES-CBC stop at 2^36 blocks, where an attacker's advantage by colliding
// blocks is near 2^-57 (the bound that RFC 8446 section 5.5 aims at); 3DES at 2^27 blocks with
// a soft limit of 64 MiB, since its 8-octet blocks collide soon (RFC 2451 gives no bound; the
// Sweet32 attack needs some 2^35 octets). Soft limits, where rekeying is due, are three quarters of
// the hard ones elsewhere.
//
// # Concurrency
//
// Outbound and Inbound are safe for concurrent use without a lock: the sequence number and
// the window are atomic, and what a packet needs besides (nonce, associated data, HMAC and CBC
// state) comes from a small free list of the SA. Only when more goroutines are inside
// one SA than the list has places is such a state allocated anew.
//
// # Left out
//
// Traffic flow confidentiality padding (RFC 4303 section 2.7), sequence numbers of 32 bits only, tunnel mode,
// multicast, resynchronization after the loss of 2^32 packets (appendix A3), and ESP
// without integrity, which nobody should have.
package esp
