// Package client speaks to the CA: it enrols a box, renews its certificates, and asks about
// users whom somebody else authenticates.
//
//	method  path                     who                     what
//	GET     /roots                   anybody                 roots; trusted only if the pinned fingerprint matches
//	POST    /twinkey/v1/challenge    anybody                 Challenge, good for two minutes and one use
//	POST    /twinkey/v1/enroll       holder of a token       Request in, Answer out
//	POST    /twinkey/v1/renew        holder of the old key   the same, under mutual TLS; also after expiry, within the CA's grace
//	POST    /twinkey/v1/renew-user   holder of the old keys  the same for a user, who proves old and new keys at once
//	PUT     /twinkey/v1/http-01      router                  ChallengeAnswer for its portal's certificate, if the name may be its own
//	POST    /acme/portal/...         router                  ACME (RFC 8555, RFC 8738), http-01 by the answers that were put
//	GET     /twinkey/v1/trust        anybody                 Trust: roots, intermediates, endpoints
//	GET     /crl                     anybody                 the newest CRL, DER
//	POST    /twinkey/v1/close        router                  CloseRequest: sessions of users that have ended
//	POST    /twinkey/v1/login        router, not expired     Login in, Admission out
//	GET     /twinkey/v1/login-key    router, not expired     LoginKey: what users' own machines seal passwords to
//
// All keys are made here and stay here. The P-256 key signs the PKCS#10 request, which
// proves its possession. An X25519 key cannot sign, so each of the two proves itself by a
// shared secret with a key that the CA made for this one exchange (RFC 6955 in idea):
//
//	proof = HMAC-SHA256(HKDF-SHA256(X25519(private, challenge.Public), label), transcript)
//
// A user who makes the keys on a machine of their own has two X25519 keys and no TLS key.
//
// The transcript is a hash over everything that is asked for (Request.Transcript): a
// proof is good for this request alone.
//
// A router whose policy says revoke-on-close proves in the same way that it held the data key of
// the user whose session has ended (CloseProof), with a key of the CA that stays the same.
//
// The connection is TLS 1.3 and ends at whoever bears twinkey://ca under the pinned root;
// host names do not count. What the CA answers is checked as a peer would check it
// before it is returned.
//
// The password in a Login is in the clear, within TLS, where the user typed it at the router; where they did on a machine of their own it is
// sealed to the CA's login key (package sealedlogin), and the router cannot read it. Exactly one of both is there.
//
// A login is refused in the same words and after the same time whatever it is that speaks
// against the user.
//
// A refusal is {"error":{"code","message"}}. An enrolment whose answer was lost may be
// asked for again with the same keys and token: the answer is the same.
package client
