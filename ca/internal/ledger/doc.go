// Package ledger is the CA's own book, one bbolt file (ledger.db): who has which
// certificates, which tokens are out, and the journal of what is under way. smallstep's
// database beside it knows certificates by serial number only.
//
//	bucket    key           value
//	meta      clock         latest time at which something was written
//	          told          Told: the last change that the directory acknowledged
//	          setback       Setback: it no longer knew that one
//	          sources       whether the directory was told that there are sources
//	          calls/source  how far a source has been told of calls
//	tokens    token ID      Token: hash of the secret, what it is for, who used it
//	users     UID           User
//	groups    name          Group: control key pair, the private one sealed; keys that it had
//	                        before, as long as certificates over them are not revoked
//	routers   name          Router
//	certs     serial        Cert
//	intents   number        Intent: what is to be done in several databases, or not at all
//	throttles user, router  failed logins of users whom a source knows, and locks
//	calls     source, name  OpenCall: of which a source was told that it began, and not that it ended
//	logins    UID, router   Login: what the source said when the user logged in there last
//	orders    source, UID   Order: the newest that the source has ordered of its own accord, and whether it was obeyed
//
// An Intent carries all its effects on this book (Effects). They become visible in the
// transaction that deletes the intent, and not before.
//
// Full disk: a transaction that cannot be written changes nothing and is ErrStorage;
// reading goes on.
package ledger
