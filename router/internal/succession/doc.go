// Package succession keeps the certificates of users who are logged in from running out, without asking anybody for a
// password: the CA certifies a user's data key anew when it renews the user, or when the group gets another control key.
//
//	directory ──watch: alice has another certificate──► Heard
//	                                                      │
//	look: what was heard of, everybody after a gap        ▼
//	      in the watch, whoever is two thirds ──────► Ask, 100 users at a time
//	      through the certificate's life                  │
//	                       current ◄──────────────────────┤ nothing newer: again later
//	                       replaced, none ◄───────────────┤ only a login helps: the reason is kept
//	                       succeeded ◄────────────────────┘ opened with the data key, calls placed anew
//
// Of a newer certificate and the revocation of the old one a router may hear in the same moment: if it could not hear the directory for longer
// than a rotation's grace, or if a source has put the user into another group or under another time, which is one change. It asks for the newer ones
// before it acts on that (Overtake).
//
// A certificate that is about to end all the same is warned of, in the log once at each stage of a login and in the
// status for as long as it lasts: at the time that is configured, and again when a tenth of it is left. At the end the
// engine ends the call.
//
// Left out: users at the end that was called. Their certificates are the calling router's business.
package succession
