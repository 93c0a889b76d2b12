//go:build linux

package main

import (
	"crypto/rand"
	"net/netip"
	"testing"
)

// The search finds what it is for wherever it lies in a frame, and nothing in noise.
func TestSearch(t *testing.T) {
	file := make([]byte, 1<<16)
	_, _ = rand.Read(file) // never fails
	lans := []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24"), netip.MustParsePrefix("10.2.0.0/24")}
	noise := make([]byte, 1400)
	for name, c := range map[string]struct {
		put               []byte
		blocks, addresses bool
	}{
		"noise":            {},
		"one block":        {put: file[32:48], blocks: true},
		"unaligned":        {put: file[101 : 101+31], blocks: true},
		"not a whole one":  {put: file[101 : 101+15]},
		"header":           {put: []byte{10, 1, 0, 2, 10, 2, 0, 9}, addresses: true},
		"same LAN":         {put: []byte{10, 1, 0, 2, 10, 1, 0, 9}, addresses: true},
		"one address":      {put: []byte{10, 1, 0, 2, 198, 18, 0, 9}},
		"next door":        {put: []byte{10, 1, 1, 2, 10, 2, 0, 9}},
		"address in text":  {put: []byte(`"10.2.0.0/24"`), addresses: true},
		"other in text":    {put: []byte(`"10.3.0.0/24"`)},
		"public addresses": {put: []byte{198, 18, 0, 1, 198, 18, 0, 2}},
	} {
		s := newSearch(lans, file)
		for _, at := range []int{0, 42, len(noise) - len(c.put)} {
			_, _ = rand.Read(noise)
			copy(noise[at:], c.put)
			var f findings
			s.frame(noise, &f)
			if f.fileBlocks > 0 != c.blocks || f.addresses > 0 != c.addresses {
				t.Errorf("%s at %d: %v", name, at, f)
			}
		}
	}
}
