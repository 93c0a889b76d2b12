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
