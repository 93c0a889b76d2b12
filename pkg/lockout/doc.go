// Package lockout counts failed logins and says when they lock: whoever guesses at a
// password gets so many tries in a window, then waits, and each time twice as long.
//
//	failures within Window reach the limit     locked for Lock, the count begins anew
//	they do again                              locked for twice as long, up to MaxLock
//	nothing fails for Forget                   the next lock is as short as the first
//
// An operator can end a lock before its time: the throttle is deleted, and the count begins anew, as after a right
// password. Throttles are stored under keys that say whose failures they count (Subject).
//
// The package keeps nothing and asks no clock: a Throttle is a value that its owner
// stores, in the transaction that answers the try.
package lockout
