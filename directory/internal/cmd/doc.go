// Package cmd is the command line of twinkey-directory.
//
//	DIR/directory.yaml      settings; may be missing
//	DIR/identity/           TLS certificate and key (pkg/identity), made by enroll
//	DIR/directory.db        the register; directory.db.lock says who has it open
//	DIR/admin.sock          the running server's ear for audit, backup, locks, status and unlock
//
// audit, backup, locks and unlock ask the running server, and open the database themselves if none runs;
// restore wants that none runs. SIGHUP makes the server read its identity anew, SIGTERM
// and SIGINT stop it: watches end, requests that are under way are finished.
package cmd
