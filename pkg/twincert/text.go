package twincert

import (
	"fmt"
	"strings"
	"time"
	"unicode"
)

// Text describes the certificate for a person; now says how long it still lives.
func (c *Certificate) Text(now time.Time) string {
	var b strings.Builder
	line := func(key, format string, a ...any) {
		if key != "" { // another value of the key above has none
			key += ":"
		}
		fmt.Fprintf(&b, "    %-14s %s\n", key, fmt.Sprintf(format, a...))
	}
	fmt.Fprintf(&b, "Twin certificate (profile %s)\n", c.Profile)
	line("Serial", "%s", c.Serial)
	line("Issuer", "%s", printable(c.Issuer.String()))
	line("Role", "%s", c.Role)
	line("Name", "%s", c.Name)
	if c.Group != "" {
		line("Group", "%s", c.Group)
	}
	line("Not before", "%s", c.NotBefore.UTC().Format(time.RFC3339))
	line("Not after", "%s (%s)", c.NotAfter.UTC().Format(time.RFC3339), c.life(now))
	line("Control key", "X25519 %x", c.Keys.Control)
	line("Data key", "X25519 %x", c.Keys.Data)
	for i, s := range c.Scope {
		line([]string{"May ask for", ""}[min(i, 1)], "%s", s)
	}
	for i, p := range c.Prefixes {
		line([]string{"Prefixes", ""}[min(i, 1)], "%s", p)
	}
	for i, u := range c.std.CRLDistributionPoints {
		line([]string{"CRL at", ""}[min(i, 1)], "%s", printable(u))
	}
	line("Signature", "%s", c.std.SignatureAlgorithm)
	line("ID", "%s", c.ID())
	return b.String()
}

// printable replaces what a terminal might obey: whoever wrote the certificate chose it.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}

func (c *Certificate) life(now time.Time) string {
	const day = 24 * time.Hour
	round := func(d time.Duration) string {
		if d >= 2*day {
			return fmt.Sprintf("%d days", d/day)
		}
		return d.Round(time.Minute).String()
	}
	switch {
	case now.Before(c.NotBefore):
		return "valid in " + round(c.NotBefore.Sub(now))
	case now.After(c.NotAfter):
		return "expired " + round(now.Sub(c.NotAfter)) + " ago"
	default:
		return "lives for " + round(c.NotAfter.Sub(now))
	}
}
