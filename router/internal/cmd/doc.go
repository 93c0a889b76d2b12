// Package cmd holds the subcommands of twinkey-router: what they are called, what they
// print, how they fail. The work is done by the packages that they call.
package cmd
