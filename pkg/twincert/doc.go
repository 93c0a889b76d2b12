// Package twincert is the X.509 certificate with two public keys: one for control, one
// for data (the paper, section 2 step 2).
//
//	SubjectPublicKeyInfo ::= SEQUENCE {          profile paper
//	    algorithm                AlgorithmIdentifier,   -- id-X25519, RFC 8410
//	    subjectControlPublicKey  BIT STRING,            -- 32 bytes
//	    subjectDataPublicKey     BIT STRING }           -- 32 bytes
//
// Profile compat says the same with the control key in an ordinary SubjectPublicKeyInfo
// and the data key in the extension subjectAltPublicKeyInfo (2.5.29.72), which every
// tool can read. Both parse to one type.
//
//	extension                     critical  RFC          holds
//	keyUsage                      yes       5280 4.2.1.3 keyAgreement
//	extKeyUsage                   yes       5280 4.2.1.12 ours: router, or user; alone
//	authorityKeyIdentifier        no        5280 4.2.1.1
//	cRLDistributionPoints         no        5280 4.2.1.13
//	subjectDirectoryAttributes    no        5280 4.2.1.8 a router's query scope
//	IPAddrBlocks                  yes       3779 2.2     a router's private prefixes
//
// crypto/x509 parses a certificate of profile paper and overlooks the second key. So the
// SubjectPublicKeyInfo is read here, strictly; crypto/x509 is given the certificate with
// the second key taken out to parse, and the bytes that were really signed to verify. The
// critical extended key usage of our own keeps TLS stacks from taking a twin certificate
// for one of theirs.
//
// A certificate is known by issuer and serial number. A signature whose s is high is
// refused: of the two forms that verify only one is ours.
package twincert
