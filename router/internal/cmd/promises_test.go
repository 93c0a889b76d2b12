package cmd

import (
	"testing"

	"twinkey/pkg/cli/clitest"
)

// What the house promises of each command: examples that work, --json, a hint.
func TestPromises(t *testing.T) {
	const silent = "it prints nothing: the exit code says all"
	clitest.Hints(t)
	clitest.Check(t, Root, map[string]string{
		"twinkey-router up":             "it runs until it is stopped; its log is JSON with --log-format json",
		"twinkey-router client login":   "likewise; twinkey-router client status says what there is, in JSON too",
		"twinkey-router top":            "a screen for people; twinkey-router status --json is what it shows",
		"twinkey-router reload":         silent,
		"twinkey-router config check":   silent,
		"twinkey-router config example": "it prints a file",
	})
}
