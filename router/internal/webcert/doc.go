// Package webcert keeps the certificate that browsers see at the router's portal: a plain one from the company's own CA, by ACME
// (RFC 8555, addresses by RFC 8738), renewed when two thirds of its life have passed.
//
//	router                                            CA
//	account, order for address and name       ─────►          over TLS with the router's certificate, as all that follows
//	                                          ◄─────  a token for each
//	PUT answer for address, for name          ─────►  may this router be called that? then it lies on the board
//	challenge is ready                        ─────►  http-01: looks at the board, asks no network
//	PKCS#10 request with a new key            ─────►  certificate
//
// Key and certificates are one file in the router's home, for its owner alone, replaced by one rename. What is in the file counts
// only if it hangs from our roots, is for the names that are configured, and is valid now; otherwise no browser gets an answer.
package webcert
