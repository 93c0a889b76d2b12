//go:build linux

package e2e

import (
	"bytes"
	"encoding/csv"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"twinkey/scripts/lab"
)

// The key log and tshark, an independent reader: with the keys of one call it finds
// L2TP, PPP and the pings of that call in that call's association, and cannot read the
// other call; with those of the other it is the other way round.
func TestTsharkReadsACallWithItsOwnKeysAlone(t *testing.T) {
	needs(t, "tshark", "tshark")
	c := network(t)
	ctx := t.Context()
	keylog := filepath.Join(c.Dir, "esp_sa")
	check(t, c.StartCA(ctx))
	check(t, c.StartDirectory(ctx))
	const full = "data:\n  headers: full\n" // it is L2TP that is to be read
	check(t, c.StartRouter(ctx, lab.SiteA, full))
	check(t, c.StartRouter(ctx, lab.SiteB, full))
	check(t, c.Routers[lab.SiteA.Name].Stop()) // it comes back with a key log
	wan := filepath.Join(c.Dir, "wan.pcap")
	capture, err := c.WAN.Capture(wan)
	check(t, err)
	check(t, c.RouterUp(ctx, lab.SiteA, "--keylog", keylog))
	check(t, c.WaitLink(ctx))
	alice := user(t, c, "alice", "10.1.1.3")
	mustPing(t, c, lab.SiteA.Host)
	mustPing(t, c, alice)
	site := siteCall(t, c, lab.SiteA)
	call, ok := status(t, c, lab.SiteA).UserCall("alice")
	if !ok {
		t.Fatal("alice has no call")
	}
	check(t, capture.Close())

	st, err := os.Stat(keylog)
	check(t, err)
	if st.Mode().Perm() != 0o600 {
		t.Errorf("the key log has mode %v", st.Mode())
	}
	all, err := os.ReadFile(keylog)
	check(t, err)
	read := func(calls ...lab.Call) string { return tshark(t, wan, keysOf(t, all, calls...)) }
	both, siteOnly, aliceOnly, none := read(site, call), read(site), read(call), read()
	for _, tt := range []struct {
		name, out   string
		site, alice bool
	}{{"both calls' keys", both, true, true}, {"the site link's keys", siteOnly, true, false}, {"alice's keys", aliceOnly, false, true}, {"no keys", none, false, false}} {
		for _, x := range []struct {
			who, addr string
			call      lab.Call
			want      bool
		}{{"site link", lab.SiteA.Host.String(), site, tt.site}, {"alice", alice.String(), call, tt.alice}} {
			got := 0
			for line := range strings.Lines(tt.out) {
				f := strings.Split(strings.TrimSpace(line), "\t") // spi, protocols, inner source, inner ICMP type
				if len(f) == 4 && strings.HasSuffix(f[2], x.addr) && strings.HasSuffix(f[3], "8") {
					got++
					if !strings.EqualFold(f[0], x.call.SPIOut) {
						t.Errorf("with %s: a ping of the %s stands in association %s, not %s", tt.name, x.who, f[0], x.call.SPIOut)
					}
					if !strings.Contains(f[1], "l2tp") || !strings.Contains(f[1], "ppp") {
						t.Errorf("with %s: protocols %s", tt.name, f[1])
					}
				}
			}
			if (got > 0) != x.want {
				t.Errorf("with %s tshark reads %d pings of the %s, want any: %v\n%s", tt.name, got, x.who, x.want, tt.out)
			}
		}
	}
}

// keysOf keeps the lines of a key log that belong to these calls.
func keysOf(t *testing.T, log []byte, calls ...lab.Call) []byte {
	t.Helper()
	var out bytes.Buffer
	for line := range bytes.Lines(log) {
		if bytes.HasPrefix(line, []byte("#")) {
			continue
		}
		fields, err := csv.NewReader(bytes.NewReader(line)).Read()
		check(t, err)
		for _, c := range calls {
			if strings.EqualFold(fields[3], c.SPIIn) || strings.EqualFold(fields[3], c.SPIOut) {
				out.Write(line)
			}
		}
	}
	if len(calls) > 0 && out.Len() == 0 {
		t.Fatalf("the key log has no line for %+v:\n%s", calls, log)
	}
	return out.Bytes()
}

// tshark prints a line for each ESP packet: SPI, protocols, sources, ICMP types.
func tshark(t *testing.T, capture string, table []byte) string {
	t.Helper()
	home := t.TempDir()
	check(t, os.WriteFile(filepath.Join(home, "esp_sa"), table, 0o600))
	lua, err := filepath.Abs("../../proto/esp/testdata/twinkey.lua")
	check(t, err)
	cmd := exec.Command("tshark", "-r", capture, "-X", "lua_script:"+lua, "-o", "esp.enable_encryption_decode:TRUE", "-Y", "esp",
		"-T", "fields", "-E", "occurrence=a", "-e", "esp.spi", "-e", "frame.protocols", "-e", "ip.src", "-e", "icmp.type")
	cmd.Env = append(os.Environ(), "HOME="+home, "WIRESHARK_CONFIG_DIR="+home)
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("tshark: %v\n%s", err, complaints.Bytes())
	}
	return string(out)
}
