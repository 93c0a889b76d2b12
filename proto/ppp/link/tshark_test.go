package link_test

import (
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"twinkey/proto/ppp"
	"twinkey/proto/ppp/link"
)

// skip leaves a test out; where everything must run that is a failure.
func skip(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("TWINKEY_NO_SKIP") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// pcap is a capture file of link type 9, PPP.
func pcap(frames [][]byte) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 0xa1b2c3d4)
	b = binary.LittleEndian.AppendUint16(b, 2)
	b = binary.LittleEndian.AppendUint16(b, 4)
	for _, v := range []uint32{0, 0, 65535, 9} {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	for i, f := range frames {
		for _, v := range []uint32{uint32(1700000000 + i), 0, uint32(len(f)), uint32(len(f))} {
			b = binary.LittleEndian.AppendUint32(b, v)
		}
		b = append(b, f...)
	}
	return b
}

// An independent dissector reads a whole life of a link, refusals included, and finds
// nothing to complain about.
func TestTsharkReadsANegotiation(t *testing.T) {
	tshark, err := exec.LookPath("tshark")
	if err != nil {
		skip(t, "needs tshark (apt install tshark)")
	}
	a, b := site("10.0.0.1", 1400), site("10.0.0.2", 1380)
	b.PFC, b.ACFC = false, false // which are rejected, then
	b.IPv4 = &link.IPv4Config{Assign: addr("10.0.0.9")}
	a.IPv4 = &link.IPv4Config{Local: addr("0.0.0.0")}
	w := newWorld(t, 1, weather{}, a, b)
	w.ends[0].Up(w.now)
	w.ends[1].Up(w.now)
	w.run(11 * time.Second) // until an echo has passed
	_ = w.ends[1].Receive(w.now, ppp.AppendFrame(nil, 0x8053, false, false, []byte{1, 1, 0, 4}))
	_ = w.ends[1].Receive(w.now, ppp.AppendFrame(nil, ppp.ProtoCCP, false, false, []byte{14, 9, 0, 4}))
	_ = w.ends[1].Receive(w.now, ppp.AppendFrame(nil, ppp.ProtoLCP, false, false, []byte{14, 1, 0, 4}))
	w.ends[0].Close(w.now, "over")
	w.run(10 * time.Second)

	file := filepath.Join(t.TempDir(), "ppp.pcap")
	if err := os.WriteFile(file, pcap(w.capture), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), tshark, append([]string{"-n", "-r", file}, args...)...).Output()
		if err != nil {
			t.Fatalf("tshark: %v", err)
		}
		return string(out)
	}
	if bad := run("-Y", "_ws.malformed or _ws.expert.severity >= 4194304"); bad != "" {
		t.Errorf("tshark complains:\n%s", bad)
	}
	text := run("-V")
	for _, want := range []string{
		"Maximum Receive Unit: 1400", "Maximum Receive Unit: 1380", "Magic Number: 0x",
		"Protocol Field Compression", "Address and Control Field Compression",
		"Code: Configuration Reject (4)", "Code: Configuration Nak (3)", "IP Address: 10.0.0.9", "Interface Identifier: ",
		"Code: Echo Request (9)", "Code: Echo Reply (10)", "Code: Protocol Reject (8)", "Rejected Protocol: Encryption Control Protocol (0x8053)",
		"Compression Control Protocol", "OUI", "Code: Reset Ack (15)",
		"Code: Code Reject (7)", "Code: Termination Request (5)", "Code: Termination Ack (6)", "Data: 6f766572",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("tshark does not show %q", want)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}
