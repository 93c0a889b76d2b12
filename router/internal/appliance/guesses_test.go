package appliance

import (
	"net/netip"
	"testing"
	"time"

	"twinkey/pkg/lockout"
)

// Whoever tries passwords, from however many addresses, known ones among them, and for however long: the directory does not lock the router.
func TestStrangersDoNotLockTheRouter(t *testing.T) {
	f, policy := newTries(), lockout.Default()
	var throttle lockout.Throttle
	now, failed := time.Unix(1_800_000_000, 0), 0
	for i := range 200 {
		try, wait := f.Begin(netip.AddrFrom4([4]byte{10, 1, 1, byte(i)}), now)
		if wait > 0 {
			t.Fatalf("the first user of address %d waits %s", i, wait)
		}
		try.Succeed(now)
	}
	for end := now.Add(6 * time.Hour); now.Before(end); now = now.Add(5 * time.Second) {
		for i := range 256 {
			try, wait := f.Begin(netip.AddrFrom4([4]byte{10, 1, 1, byte(i)}), now)
			if wait > 0 {
				continue
			}
			try.Fail(now)
			failed++
			var locked bool
			if throttle, locked = throttle.Fail(now, policy.RouterFailures, policy); locked {
				t.Fatalf("locked after %d failures", failed)
			}
		}
	}
	if failed < 6*120 {
		t.Errorf("%d could fail: people let more slip", failed)
	}
}
