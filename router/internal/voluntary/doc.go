// Package voluntary is what a user's own machine and the router in front of it say to each other, so that the machine
// encrypts by itself and the router only forwards (the paper, section 2 step 3, voluntary mode). Both sides are here.
//
//	client                                     router in front                   directory
//	Roots                              ─────►
//	                    root certificates ◄──  the one with the fingerprint that the user was given counts, and is kept
//	- - - - - - - from here TLS 1.3 with the router's certificate, which must hang from that root - - - - - - -
//	Params uid                         ─────►  LoginParams uid            ─────►  a stable fake for unknown users
//	master = Argon2id(password, salt)
//	Login uid, HKDF(master, "auth")    ─────►  may users come from this address?
//	                                           Release uid, auth          ─────►  scope, throttle, proof, certificate
//	                                           may this group, from here, so often?
//	              token, certificate, sealed keys, address, until when ◄──
//	open with HKDF(master, "seal")
//	              the CA's key, where the policy says revoke-on-close ◄──
//	Close token, serial, MAC           ─────►  keeps it until the session is over: then it is the CA's (package closing)
//	Watch token                        ─────►  sites, CRL, revocations, rules; then what changes, and a beat
//	                                     ◄──   ended, why
//	Sign token, handshake hash         ─────►  Voucher: the router's signature over hash, control key, certificate of the
//	                                     ◄──   user, address and until when (native.Held)
//	                                     ◄──   the user's newer certificate, sealed control key     ◄── the directory, when the CA has
//	opens it with the data key, places its calls anew                                                   certified the user anew
//	Logout token                       ─────►
//
// A user with keys of their own (pkg/keyfile) has no password at the directory, and proves the keys in the place of Params and Login:
//
//	Challenge uid                      ─────►  may users come from this address?
//	                one-time key, nonce ◄──    for this user, from this address, for challengeLife
//	Prove certificate, MACs            ─────►  possession of both keys; certificate, revocation, name, scope
//	                                           Own uid, certificate        ─────►  scope, throttle, keys of their own, audit
//	              token, certificate, address, until when ◄──
//
// The MACs are those of an enrolment (package client of the CA), with labels of their own, over the router's name as its TLS certificate has it,
// user, certificate, challenge, and an exporter of the connection that the challenge came over. A challenge is used up by whatever answers it.
//
// Where the policy of the user's group has certificates revoked at the end of sessions (revoke-on-close), the router has no key with which to prove the end to
// the CA, as it has of users who are logged in at itself. So the client proves it beforehand, by the MAC that the router would make (CloseProof of
// the CA's client), over router and certificate: after the login, after each newer certificate (the watch asks for it), and when the policy comes to want it.
// The router signs for no tunnel before it has the proof, and ends the session of a client that does not send it within proveTime. It cannot tell a right
// proof from a wrong one, as only the CA and the user can: a client that its user has altered can keep its certificate, which shows when the CA
// refuses the proof. Whatever ends the session hands the proof on, but for the same user's coming again from the same address.
//
// Neither the password nor the sealing key leaves the machine, but for what only the CA can open (below), so the router learns neither the password nor a
// private key. What it sees is the proof, which opens nothing that it could not have asked for with it itself, and sealed keys, on which it could try passwords as
// the directory could.
//
// Users of a source (RADIUS, LDAP) the CA has to ask about, and it needs the password. If the company has sources the machine sends it along with the proof,
// sealed to a login key of the CA (package sealedlogin), by Ask in the place of Login:
//
//	client                                     router in front                   directory, CA
//	Params uid                         ─────►  LoginParams uid            ─────►  directory: a stable fake for unknown users
//	                                           login key, now and then    ─────►  CA: signed, good for ten minutes more
//	                parameters, statement ◄──  the same for everybody
//	the CA's word, under the root that is known here? else asked once more, and then no password is typed
//	Ask uid, auth, sealed              ─────►  a key that was handed out? limits as for Login
//	                                           LoginParams uid            ─────►  directory: ask the CA?
//	                                           no: drops what is sealed; Release uid, auth, and so on as above
//	                                           yes: uid, sealed           ─────►  CA: opens it once, asks the source, vouches
//	                                                                      ◄─────  parameters as they are now, session
//	                                           as they were: Release uid, auth, and so on as above
//	     parameters, the CA's word for ◄──     others: the keys have just been sealed anew
//	     them                                  (also where no auth was shown, by a machine that knows others than it was told)
//	Login uid, HKDF(master', "auth")   ─────►  within a minute, from the same address
//
// What the source says of the session bounds it, besides the policy. Nobody gets a session of whose length the CA has not spoken to this router about this user
// at this address: keys that the directory releases because it has vouched for another login of theirs bring none.
//
// Ask looks the same whoever the user is, and a refusal comes at the same moments, whether the directory or the CA refuses it (Config.Hold): so nobody
// learns who is local. The price is that a local user's password goes to the router as well, sealed, which drops it; from the second login on their machine keeps
// it to itself (package station). What is said of login keys is said before the user is looked at. While the CA is away the difference shows.
//
// A login key that the CA does not have any more, since it was restarted, is asked for once more by both. A session that was forgotten is not begun
// anew by the proof: the client says so, and the person types the password.
//
// Whoever is refused for who they are hears it at the moments at which a router refuses (authn.Hold), counted from when the request was read: how long
// it took to find out would tell who is known. While an answer is held it takes up its connection and nothing else, and the limits on
// tries, of an address and of all, let no more be held than some hundreds.
//
// A token is 32 random bytes, known in memory only, good from the address that it was given to, until the session ends:
// by Logout, by Session of the policy, by the end of the certificate or its revocation, by the operator, or when the client was not heard for
// a while. Then nothing more is signed for it, and what was signed runs out (Config.Vouch).
//
// The router never signs what a client hands it: it takes 32 bytes of handshake hash and computes the statement itself, of what
// it knows of the session. So a client can use what is signed for one thing only: a tunnel of the user who logged in, by that
// certificate, from that address.
//
// What a client is told it verifies: certificates and CRL are signed by the CA. A revocation that is not in the CRL yet it
// believes unsigned, since all that can be gained by a lie is that a call ends.
//
//	method  path          body                answer
//	GET     /v1/roots     -                   Roots
//	POST    /v1/params    ParamsRequest       ParamsAnswer
//	POST    /v1/ask       AskRequest          Asked: Admission, or keybundle.Params
//	POST    /v1/login     LoginRequest        Admission
//	POST    /v1/challenge ChallengeRequest    Challenge
//	POST    /v1/prove     ProveRequest        Admission
//	GET     /v1/watch     - (token)           Word, one a line, without end
//	POST    /v1/close     CloseRequest (token) -
//	POST    /v1/sign      SignRequest (token) Voucher
//	POST    /v1/logout    - (token)           -
//
// A token goes in the header Authorization, as a Bearer. A refusal is {"code", "message", "retry_after_ms"}: see Error.
//
// Left out: a client that changes its address keeps no session; it logs in anew, by itself.
package voluntary
