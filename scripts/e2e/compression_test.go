//go:build linux

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"twinkey/pkg/netlab"
	"twinkey/scripts/lab"
)

// Text takes less of the public network than it has bytes, noise hardly more, and both arrive as they were: with
// trains and compact headers, and one by one with full ones.
func TestCompression(t *testing.T) {
	const lz4, full, water = "data:\n  compression: lz4\n", "  headers: full\n", "tun:\n  device: water\n"
	for _, tt := range []struct{ name, a, b string }{
		{"compact headers", lz4, lz4},
		{"full headers", lz4 + full + water, lz4 + full},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := network(t)
			ctx := t.Context()
			check(t, c.UpWith(ctx, lab.SiteA, lab.SiteB, tt.a, tt.b))
			packs(t, c, lab.SiteA)
			var text bytes.Buffer
			for i := range 100000 {
				fmt.Fprintf(&text, "Nov 21 07:%02d:%02d gate kernel: [%d] lan0: accepted 10.1.0.%d to port 443\n", i/60%60, i%60, i*77, i*31%251)
			}
			if r := sentFor(t, c, &text, int64(text.Len())); r > 0.6 {
				t.Errorf("a byte of text took %.2f bytes of the WAN", r)
			}
			const noise = 8 << 20
			if r := sentFor(t, c, io.LimitReader(&pattern{seed: 1}, noise), noise); r > 1.15 {
				t.Errorf("a byte of noise took %.2f bytes of the WAN", r)
			}
			transfers(t, c, 2, 5<<20)
			datagrams(t, c, []int{0, 1, 127, 128, 1300, 1392, 1418, 1419, 1472, 3000, 9000})
		})
	}
	t.Run("one end does not want it", func(t *testing.T) {
		c := network(t)
		ctx := t.Context()
		check(t, c.UpWith(ctx, lab.SiteA, lab.SiteB, lz4, ""))
		mustPing(t, c, lab.SiteA.Host)
		zeros := int64(4 << 20)
		if r := sentFor(t, c, strings.NewReader(string(make([]byte, zeros))), zeros); r < 1 {
			t.Errorf("a byte took %.2f bytes of the WAN", r)
		}
	})
}

// packs waits until what a site's router sends over the site link may be compressed.
func packs(t *testing.T, c *lab.Company, s lab.Site) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		out, err := c.Router(t.Context(), s, "status", "--json")
		check(t, err)
		var st struct {
			Calls []struct {
				Compression bool `json:"compression"`
			} `json:"calls"`
		}
		check(t, json.Unmarshal([]byte(out), &st))
		if len(st.Calls) == 1 && st.Calls[0].Compression {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("no compression: %s", out)
		}
	}
}

// sentFor sends n bytes from hosta to hostb and returns how many router A has sent on the WAN for each of them.
func sentFor(t *testing.T, c *lab.Company, r io.Reader, n int64) float64 {
	t.Helper()
	before := wanSent(t, c)
	tr, err := netlab.Transfer(t.Context(), c.HostA, c.HostB, lab.SiteB.Host, r)
	check(t, err)
	if !tr.Intact() || tr.Bytes != n {
		t.Fatalf("%d bytes sent, %d arrived, intact: %v", n, tr.Bytes, tr.Intact())
	}
	per := float64(wanSent(t, c)-before) / float64(n)
	t.Logf("%.3f bytes on the WAN for each of %d", per, n)
	return per
}

func wanSent(t *testing.T, c *lab.Company) (n uint64) {
	t.Helper()
	check(t, c.RA.Do(func() error {
		l, err := netlink.LinkByName("wan0")
		if err == nil {
			n = l.Attrs().Statistics.TxBytes
		}
		return err
	}))
	return n
}
