// Package keyfile keeps the keys that a user has made on a machine of their own: certificate, whom to trust, and the two
// private keys sealed under a password (package keybundle), in one file that only the owner may read.
//
//	HOME/UID.keys, mode 0600, JSON
//	  version                    1
//	  uid                        UserID; the certificate's too
//	  ca, directory              URLs, as enrolment told
//	  certificate                the user's twin certificate, DER
//	  roots, intermediates       of the company, DER
//	  params, sealed             Argon2id and what opens with the password beside the certificate
//
// There is no other copy of the private keys. A password that is forgotten cannot be found again: enrol anew.
//
// Left out: expiry and revocation. An expired certificate is read, since it is what a renewal shows.
package keyfile
