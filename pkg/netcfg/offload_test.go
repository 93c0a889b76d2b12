//go:build linux

package netcfg_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/safchain/ethtool"

	"twinkey/pkg/netcfg"
)

// Receive offloads of the LAN's interface go on, those of others stay, and all is as before in the end.
func TestJoinTrains(t *testing.T) {
	onMachine(t, func(t *testing.T) {
		cable(t, "wan0", "isp0")
		for link, addr := range map[string]string{"eth0": "10.1.0.1/24", "wan0": "198.18.0.1/24"} {
			_, err := netcfg.Apply(t.Context(), netcfg.Plan{Link: link, Up: true, Addresses: []netip.Prefix{pfx(addr)}})
			check(t, err)
		}
		is := func(link string) [2]bool {
			tool, err := ethtool.NewEthtool()
			check(t, err)
			defer tool.Close()
			f, err := tool.Features(link)
			check(t, err)
			return [2]bool{f["rx-gro"], f["rx-udp-gro-forwarding"]}
		}
		lan, wan := is("eth0"), is("wan0")
		links, undo, err := netcfg.JoinTrains([]netip.Prefix{pfx("10.1.0.0/16")})
		check(t, err)
		if !slices.Equal(links, []string{"eth0"}) || is("eth0") != [2]bool{lan[0], true} || is("wan0") != wan {
			t.Errorf("changed %v; eth0 %v, wan0 %v", links, is("eth0"), is("wan0"))
		}
		again, undoNothing, err := netcfg.JoinTrains([]netip.Prefix{pfx("10.1.0.0/16")})
		check(t, err)
		if len(again) != 0 {
			t.Errorf("changed again: %v", again)
		}
		check(t, undoNothing())
		check(t, undo())
		if is("eth0") != lan {
			t.Errorf("eth0 %v, was %v", is("eth0"), lan)
		}
	})
}
