package cmd

import (
	"testing"

	"twinkey/pkg/cli/clitest"
)

// What the house promises of each command: examples that work, --json, a hint.
func TestPromises(t *testing.T) {
	clitest.Hints(t)
	clitest.Check(t, Root, map[string]string{
		"twinkey-ca serve":                    "it runs until it is stopped; its log is JSON with --log-format json",
		"twinkey-ca cert show":                "it prints a certificate for people; twinkey-ca cert list --json is for programs, --pem for other tools",
		"twinkey-ca directory accept-restore": "it prints nothing: the exit code says all",
	})
}
