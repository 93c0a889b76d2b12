// Package client speaks to the directory: the service that keeps certificates, sealed
// private keys and the site map, and that says who may ask for what.
//
// JSON over HTTPS, TLS 1.3 with certificates on both sides; the watch is one JSON object
// a line. Who asks is read from the one twinkey:// URI in the caller's TLS certificate.
//
//	method  path                        who          what
//	GET     /v1/health                  anybody      {"status":"ok"}
//	POST    /v1/changes                 ca           Change, one transaction
//	GET     /v1/changes/{id}            ca           has this change been applied?
//	GET     /v1/sites                   ca, router   site map and its revision
//	PUT     /v1/site                    router       its own endpoint and prefixes
//	GET     /v1/watch?since=REV         ca, router   NDJSON of Event
//	GET     /v1/crl                     ca, router   CRL, DER
//	GET     /v1/revocations             ca, router   []Revocation
//	POST    /v1/login/params            router       how to stretch a user's password
//	POST    /v1/login/release           router       proof in, sealed keys out
//	POST    /v1/login/reseal            router       proof of the old password, what the new one yields
//	POST    /v1/login/successors        router       which of the users' certificates that it holds
//	                                                 have a successor, and that
//	POST    /v1/login/own               router       a user has proved keys of their own: may they log in?
//	POST    /v1/calls                   router       what became of its calls
//	POST    /v1/vouches                 ca           Vouch: release a user's keys to a router now
//	POST    /v1/refusals                ca           Refusal: for the audit records
//	POST    /v1/user-calls              ca           what routers told of calls of a source's users
//	GET     /v1/locks                   ca           which logins are locked
//	POST    /v1/unlock                  ca           Unlock: which of them are not any more
//
// A refusal is {"error":{"code","message","retry_after_ms"}}; the code alone decides what
// the caller sees (see Error). Refusals that concern a user are all alike: whether the
// user is unknown, out of the router's scope, disabled, expired or revoked, or whether the
// password was wrong, the answer is "denied", and after enough of these "locked".
//
// Revisions count changes: one transaction, one revision. A watch yields the events of a
// revision together or not at all, so that resuming after the last Event.Revision seen
// misses nothing.
//
// Left out: reconnecting and back-off (the caller's), any cache, etags.
package client
