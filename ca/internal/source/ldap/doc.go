// Package ldap asks an LDAP directory whether a password is right (RFC 4511, simple bind), and
// looks now and then whether those whom it let in are still to be let in.
//
//	CA                                              server
//	TLS, or StartTLS                        <->     its certificate is verified
//	bind as the service account             ->
//	search base, filter with the UID        ->
//	                                        <-      exactly one entry
//	search group_base, group_filter         ->      (if configured)
//	                                        <-      the groups that the entry is a member of
//	bind as the entry, with the password    ->
//	                                        <-      success, or not
//
// One connection for each login: it ends as somebody else than it began. For a UID that nobody has the
// same is asked in the same order, with a DN that cannot be, and no refusal is told before a fixed time has
// passed; so the time does not tell who exists, unless the server takes longer than that.
//
// # What must hold
//
//   - TLS 1.2 or later with a verified certificate, from the first byte (ldaps://) or by StartTLS before anything
//     else (ldap://). In the clear only with "plain: true", and then only to a socket of this machine (ldapi://)
//     or a loopback address.
//   - An empty password is refused before anything is sent: a bind without one is anonymous and
//     succeeds (RFC 4513 5.1.2).
//   - The UID stands in the filter escaped (RFC 4515 3); it is a name as the CA takes them anyway.
//   - The filter says who may log in: what marks a disabled account belongs into it. More than one entry
//     is nobody.
//
// # Watch
//
// Each interval, those who logged in through this source, or were named to Follow, are searched for with the
// same filter. Whoever no longer matches it has been disabled or removed, and is ended. A server that cannot be
// reached, refuses the service account, fails, or no longer shows the base itself ends nobody.
//
// The library takes passwords as strings, which cannot be wiped; they are left to the garbage collector.
package ldap
