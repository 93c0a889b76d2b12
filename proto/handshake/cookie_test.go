package handshake_test

import (
	"crypto/rand"
	"net/netip"
	"testing"
	"testing/iotest"
	"time"

	"twinkey/proto/handshake"
)

func TestCookie(t *testing.T) {
	jar, err := handshake.NewCookieJar(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	from, id := netip.MustParseAddrPort("192.0.2.1:1701"), []byte("tunnel 7")
	now := time.Unix(1_800_000_000, 0).Truncate(handshake.CookieLife)
	c := jar.Bake(now, from, id)
	flipped := c
	flipped[15] ^= 1
	other, err := handshake.NewCookieJar(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		jar    *handshake.CookieJar
		after  time.Duration
		from   string
		id     string
		cookie []byte
		want   bool
	}{
		{"at once", jar, 0, "192.0.2.1:1701", "tunnel 7", c[:], true},
		{"the same address in IPv6 clothes", jar, 0, "[::ffff:192.0.2.1]:1701", "tunnel 7", c[:], true},
		{"in the next life", jar, handshake.CookieLife, "192.0.2.1:1701", "tunnel 7", c[:], true},
		{"at the end of the next life", jar, 2*handshake.CookieLife - 1, "192.0.2.1:1701", "tunnel 7", c[:], true},
		{"too late", jar, 2 * handshake.CookieLife, "192.0.2.1:1701", "tunnel 7", c[:], false},
		{"from the future", jar, -time.Second, "192.0.2.1:1701", "tunnel 7", c[:], false},
		{"another port", jar, 0, "192.0.2.1:1702", "tunnel 7", c[:], false},
		{"another address", jar, 0, "192.0.2.2:1701", "tunnel 7", c[:], false},
		{"another id", jar, 0, "192.0.2.1:1701", "tunnel 8", c[:], false},
		{"changed", jar, 0, "192.0.2.1:1701", "tunnel 7", flipped[:], false},
		{"cut", jar, 0, "192.0.2.1:1701", "tunnel 7", c[:15], false},
		{"none", jar, 0, "192.0.2.1:1701", "tunnel 7", nil, false},
		{"another jar", other, 0, "192.0.2.1:1701", "tunnel 7", c[:], false},
	} {
		if got := tt.jar.Check(now.Add(tt.after), netip.MustParseAddrPort(tt.from), []byte(tt.id), tt.cookie); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
	if _, err := handshake.NewCookieJar(iotest.ErrReader(iotest.ErrTimeout)); err == nil {
		t.Error("a jar without a secret")
	}
}

func BenchmarkCookieCheck(b *testing.B) {
	jar, err := handshake.NewCookieJar(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	from, id, now := netip.MustParseAddrPort("192.0.2.1:1701"), []byte("tunnel 7"), time.Unix(1_800_000_000, 0)
	c := jar.Bake(now, from, id)
	b.ReportAllocs()
	for b.Loop() {
		if !jar.Check(now, from, id, c[:]) {
			b.Fatal("refused")
		}
	}
}
