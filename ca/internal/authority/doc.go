// Package authority is the certificate authority proper: smallstep's, embedded, with its
// database on bbolt. Nothing else in the project imports smallstep.
//
//	root (P-256, may be taken offline) ── intermediate (P-256)
//	                                        ├─ TLS certificates that name a twinkey:// bearer   SignTLS, nobody else
//	                                        ├─ twin certificates                                Signer and twincert.Create
//	                                        ├─ TLS certificates without one                     ACME, and /sign with a token
//	                                        ├─ those of the routers' portals                    ACME by routers, under PortalACME
//	                                        └─ CRL over all of them                             RefreshCRL
//
// What smallstep would do and must not:
//
//   - Its renewal of a twin certificate yields a standard certificate that has lost the
//     second key. So /renew and /rekey are not mounted, and the signing service behind
//     them refuses.
//   - Whoever has a token or answers an ACME challenge could ask for a URI name. The
//     signing service refuses names of ours, CA certificates and foreign key usages to
//     everybody but SignTLS.
//   - ACME believes whoever answers in the network under a name. Names and addresses of routers are not to be had
//     that way; a router's own orders are validated by what it has put at the CA with its certificate. And it believes for a day: who finalizes such an order is
//     asked again what they may be called.
//   - It stores a certificate when it has signed it. Ours must appear in all databases
//     or in none, so SignTLS stores nothing; Record does, once the directory has them.
//   - Its CRL generator has a clock of its own. It is set to never; the owner calls
//     RefreshCRL, so that each CRL is also handed on.
//
// Left out: SSH, SCEP, OCSP, federation, its administrator API, other databases.
package authority
