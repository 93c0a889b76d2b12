// Package gcm is AES-GCM (NIST SP 800-38D) with nonces of 12 octets and tags of 16, as ESP uses it
// (RFC 4106, RFC 8750), at the speed of processors that work on four blocks with one instruction
// (VAES and VPCLMULQDQ on 512 bits: AMD since Zen 4, Intel since Ice Lake). The standard library
// works on one block at a time and takes twice as long; on all other processors New returns it.
//
//	counters 2, 3, 4 ...       J0 = nonce, 1
//	  |  AES, 16 blocks side by side   |  AES
//	  v                                v
//	 xor <- plaintext                  +------------------------.
//	  |                                                         v
//	  v ciphertext --> GHASH: sum of C[i] H^(n+2-i) ... --> xor --> tag
//	                   associated data first, lengths last
//
// GHASH multiplies sixteen blocks by H^16 to H^1, adds the products up, and only then reduces modulo
// the polynomial (Gueron and Kounavis, "Intel carry-less multiplication instruction and its usage for computing
// the GCM mode"). A message ends with up to fifteen blocks and a part, which take the lowest powers.
//
// There are no tables and no branches but on lengths, so neither key nor data show in the time that
// it takes. What fails to authenticate is wiped before Open returns.
package gcm
