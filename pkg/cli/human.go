package cli

import (
	"fmt"
	"time"
)

// Duration is d in its two largest units: 89d 23h, 2h 5m, 12.3s, 450ms, 87us.
func Duration(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < 0:
		if d == -d { // the least of all has no opposite
			return "-106751d 23h"
		}
		return "-" + Duration(-d)
	case d >= day:
		return fmt.Sprintf("%dd %dh", d/day, d%day/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh %dm", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%dm %ds", d/time.Minute, d%time.Minute/time.Second)
	case d >= time.Second:
		return fmt.Sprintf("%.1fs", (d - d%(100*time.Millisecond)).Seconds())
	case d >= time.Millisecond:
		return fmt.Sprintf("%dms", d/time.Millisecond)
	case d >= time.Microsecond:
		return fmt.Sprintf("%dus", d/time.Microsecond)
	default:
		return fmt.Sprintf("%dns", d)
	}
}

// Until says how far t lies ahead of now: "in 3d 4h", "5m 2s ago", "never" for the zero
// time.
func Until(now, t time.Time) string {
	switch d := t.Sub(now); {
	case t.IsZero():
		return "never"
	case d < 0:
		return Duration(-d) + " ago"
	default:
		return "in " + Duration(d)
	}
}

// Bytes is n in the largest binary unit below it: 999 B, 1.4 KiB, 12.0 GiB.
func Bytes(n uint64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	div, unit := uint64(1024), 0
	// The next unit begins where this one would show as 1024.0.
	for unit < len(units)-1 && n/div >= 1024 || unit < len(units)-1 && float64(n)/float64(div) >= 1023.95 {
		div, unit = div*1024, unit+1
	}
	return fmt.Sprintf("%.1f %ciB", float64(n)/float64(div), units[unit])
}
