package cmd

import (
	"testing"

	"twinkey/pkg/cli/clitest"
)

// What the house promises of each command: examples that work, --json, a hint.
func TestPromises(t *testing.T) {
	clitest.Hints(t)
	clitest.Check(t, Root, map[string]string{
		"twinkey-directory serve": "it runs until it is stopped; its log is JSON with --log-format json",
	})
}
