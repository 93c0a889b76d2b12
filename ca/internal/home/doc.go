// Package home is the CA's directory on disk, and what is put together from it.
//
//	ca.yaml                         Config
//	root.crt, root.key              trust anchor; the key is needed only to make another
//	                                intermediate and should be kept elsewhere
//	intermediate.crt, .key          signs everything
//	provisioner.key                 signs tokens for smallstep's /sign
//	group.key                       seals the control keys of tunnel groups in ledger.db
//	identity/                       TLS certificate twinkey://ca (package identity)
//	ledger.db                       package ledger; whoever has it open owns the directory
//	issued.db                       smallstep's database
//	admin.sock                      while the CA runs: its operator's commands
//
// Files that sources of ca.yaml name (secrets, certificates) lie here too, or where their
// paths say.
//
// Init builds all of it beside the place where it belongs and renames it there: a home is
// whole or not there. Files are 0600, the directory 0700. root.key, intermediate.key and
// provisioner.key are encrypted if there is a passphrase.
package home
