// Package source asks somebody else whether a password is right: a RADIUS server (package
// radius) or an LDAP directory (package ldap). What a source has to do is in its
// interfaces, which of them there are is in ca.yaml, and package home opens them.
//
//	Source       is this password right; which group, for how long
//	Watcher      this user is no longer to be let in, or is in another group from now on (Orders)
//	Follower     a Watcher that must know whom to look after
//	Accountant   wants to know of calls
//	Reporter     how it does, for the operator
//
// Two answers are all that whoever logs in may learn: yes, or not. Why not is for the log:
// an unknown user, a wrong password, a disabled account and one that needs another factor are
// all ErrRejected. A server that is silent, or that answers what cannot be believed, is
// ErrUnavailable; that is never taken for a yes, and never for a reason to end a call.
//
// Secrets are read from files that only their owner may read (ReadSecret), not from ca.yaml.
package source
