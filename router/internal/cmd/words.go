package cmd

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"twinkey/pkg/cli"
	"twinkey/router/internal/admin"
	"twinkey/router/internal/trust"
)

func directoryWords(d admin.Directory, now time.Time) string {
	words := "not heard yet"
	if !d.LastHeard.IsZero() {
		words = "heard " + cli.Duration(now.Sub(d.LastHeard)) + " ago"
	}
	switch {
	case !d.Fresh:
		words += "; NEW CALLS ARE REFUSED until it is heard; calls that are up go on until their certificates end"
	case d.Revocations == trust.ByCRL.String():
		words += "; REVOCATIONS ARE KNOWN BY THE CRL ALONE; new calls are refused " + cli.Until(now, d.Until) + " if nothing is heard"
	}
	return words + ifSet("; ", d.Problem)
}

// closingWords say what the CA has still to revoke because sessions have ended.
func closingWords(c admin.Closing, now time.Time) string {
	words := "ended sessions: all told to the CA"
	if c.Waiting > 0 {
		words = fmt.Sprintf("ended sessions: %d certificates NOT REVOKED YET, the oldest for %s", c.Waiting, cli.Duration(now.Sub(c.Since)))
	}
	if c.Refused > 0 {
		words += fmt.Sprintf("; %d refused by the CA (see the log)", c.Refused)
	}
	if c.Lost > 0 {
		words += fmt.Sprintf("; %d LOST, too many waited: revoke them at the CA", c.Lost)
	}
	return words + ifSet("; ", c.Problem)
}

func ifSet(before, s string) string {
	if s == "" {
		return ""
	}
	return before + s
}

func role(initiator bool) string {
	if initiator {
		return "initiator"
	}
	return "terminator"
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func prefixes(ps []netip.Prefix) string {
	var words []string
	for _, p := range ps {
		words = append(words, p.String())
	}
	return strings.Join(words, ",")
}

func sortedKeys(m map[string]uint64) []string { return slices.Sorted(maps.Keys(m)) }
