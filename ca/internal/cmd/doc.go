// Package cmd is the command line of twinkey-ca.
//
// init and serve work on the CA's directory themselves; cert show FILE needs nothing. All
// other commands speak to the running CA through its operator's socket, so that one
// process alone has the databases open.
package cmd
