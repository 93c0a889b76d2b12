package cmd

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"twinkey/pkg/cli"
	"twinkey/router/internal/admin"
)

func directoryWords(d admin.Directory, now time.Time) string {
	words := "not heard yet"
	if !d.LastHeard.IsZero() {
		words = "heard " + cli.Duration(now.Sub(d.LastHeard)) + " ago"
	}
	if !d.Fresh {
		words += "; NEW CALLS ARE REFUSED until it is heard"
	}
	return words + ifSet("; ", d.Problem)
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
