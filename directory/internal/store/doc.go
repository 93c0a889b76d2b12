// Package store keeps what the directory knows.
//
// Two layers. Store is what a database engine must do: tables of ordered keys, and
// transactions that happen as a whole or not at all (boltstore is the one that ships;
// storetest says what each must pass). Register, above it, is the directory's book: it
// gives every change its revision, its audit records and its events in the transaction of
// the change itself, whatever the engine.
//
//	table         key                     value
//	meta          schema revision floor   what the file is, newest revision, oldest one that
//	              secret audit-head       events can be replayed from; secret of the fake salts;
//	              calls/router            newest audit record and its sum; the last record of calls
//	              sources                 that the router has told; the CA has sources;
//	              user-calls/source       the newest of the source's user-calls
//	crl           crl                     newest CRL, DER
//	changes       change id               digest and revision: a change happens once
//	certificates  serial@issuer           DER and what the other tables ask of it
//	groups        group                   public control key of the tunnel group
//	users         uid                     group, password parameters, verifier, source
//	bundles       uid                     sealed keys and the certificate that they belong to; the
//	                                      successor of that, if there is one
//	routers       name                    current twin certificate, endpoint, prefixes
//	revoked       serial@issuer           who, when, why
//	events        revision, index         what watchers are told; the last KeepRevisions
//	audit         sequence                who did what when; never trimmed; each with a sum over
//	                                      itself and all before it (chain.go)
//	throttles     user, pair or router    failed logins and locks
//	user-calls    source, sequence        what routers told of calls of the source's users in
//	                                      their scope, until the CA has taken it
//
// A revision is a change that watchers can see. Logins and changed passwords leave audit
// records and throttles but make no revision: certificates stay what they are.
//
// Left out: removal of expired certificates and of their revocations.
package store
