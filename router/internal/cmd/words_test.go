package cmd

import (
	"testing"
	"time"

	"twinkey/router/internal/admin"
)

func TestClosingWords(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for want, c := range map[string]admin.Closing{
		"ended sessions: all told to the CA; 1 refused by the CA (see the log)":                                               {Refused: 1},
		"ended sessions: 2 certificates NOT REVOKED YET, the oldest for 1h 0m; no route to host":                              {Waiting: 2, Since: now.Add(-time.Hour), Problem: "no route to host"},
		"ended sessions: 1 certificates NOT REVOKED YET, the oldest for 5.0s; 3 LOST, too many waited: revoke them at the CA": {Waiting: 1, Since: now.Add(-5 * time.Second), Lost: 3},
	} {
		if got := closingWords(c, now); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// By what revocations are known, and what follows, is said where it matters.
func TestDirectoryWords(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	heard := now.Add(-time.Hour)
	for want, d := range map[string]admin.Directory{
		"heard 1h 0m ago": {LastHeard: heard, Fresh: true, Revocations: "directory", Until: now.Add(time.Minute)},
		"heard 1h 0m ago; REVOCATIONS ARE KNOWN BY THE CRL ALONE; new calls are refused in 2h 0m if nothing is heard; no route to host":    {LastHeard: heard, Fresh: true, Revocations: "crl", Until: now.Add(2 * time.Hour), Problem: "no route to host"},
		"heard 1h 0m ago; NEW CALLS ARE REFUSED until it is heard; calls that are up go on until their certificates end; no route to host": {LastHeard: heard, Revocations: "none", Until: heard, Problem: "no route to host"},
		"not heard yet; NEW CALLS ARE REFUSED until it is heard; calls that are up go on until their certificates end":                     {Revocations: "none"},
	} {
		if got := directoryWords(d, now); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
