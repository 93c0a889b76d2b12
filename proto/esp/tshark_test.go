package esp_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"twinkey/proto/esp"
	"twinkey/proto/secret"
)

// leaveOut skips the test, or fails it where nothing may be left out.
func leaveOut(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("TWINKEY_NO_SKIP") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// An independent reader, given the key log, finds our inner packet; without the keys it finds nothing.
func TestTsharkReadsWhatSealWrites(t *testing.T) {
	if _, err := exec.LookPath("tshark"); err != nil {
		leaveOut(t, "needs tshark (apt install tshark)")
	}
	dir := t.TempDir()
	var frames, native [][]byte // the same packets on the ports of RFC 3948 and of native mode
	var log []byte
	for i, s := range esp.Suites() {
		spi := 0x10000000 + uint32(s)
		key := testKey(s)
		out, err := esp.NewOutbound(spi, s, key, esp.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		src := [4]byte{192, 0, 2, byte(i + 1)}
		packet := seal(t, out, innerICMP(uint16(s)), esp.NextUDP)
		frames = append(frames, frame(src, 4500, packet))
		native = append(native, frame(src, 1701, packet))
		log = esp.AppendKeyLog(log, fmt.Sprintf("192.0.2.%d", i+1), "198.51.100.7", spi, s, key)
	}
	capture := filepath.Join(dir, "esp.pcap")
	if err := os.WriteFile(capture, pcap(frames), 0o600); err != nil {
		t.Fatal(err)
	}
	nativeCapture := filepath.Join(dir, "native.pcap")
	if err := os.WriteFile(nativeCapture, pcap(native), 0o600); err != nil {
		t.Fatal(err)
	}
	blind := tshark(t, dir, capture, nil)
	read := tshark(t, dir, capture, log)
	onPort1701 := tshark(t, dir, nativeCapture, log, "-X", "lua_script:testdata/twinkey.lua")
	for i, s := range esp.Suites() {
		want := fmt.Sprintf("0x%08x\t1\t0x11\t1701\t10.1.0.2\t8\t%d", 0x10000000+uint32(s), uint16(s))
		switch got := read[i]; {
		case s == esp.ChaCha20Poly1305:
			if strings.Contains(got, "10.1.0.2") {
				t.Errorf("%v: tshark now reads it, so the key log should name it: %s", s, got)
			}
		case got != want:
			t.Errorf("%v: tshark reads %q, want %q", s, got, want)
		}
		if got := onPort1701[i]; got != strings.Replace(read[i], "4500", "1701", 1) {
			t.Errorf("%v: on port 1701 tshark reads %q, on 4500 %q", s, got, read[i])
		}
		if strings.Contains(blind[i], "10.1.0.2") {
			t.Errorf("%v: tshark reads it without the keys: %s", s, blind[i])
		}
	}
}

// tshark returns a line a frame: SPI, sequence, next header, and of the inner packet UDP port, source, ICMP type and ICMP ident.
func tshark(t *testing.T, dir, capture string, table []byte, options ...string) []string {
	t.Helper()
	config := filepath.Join(dir, "wireshark")
	if err := os.MkdirAll(config, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(config, "esp_sa"), table, 0o600); err != nil {
		t.Fatal(err)
	}
	args := append(options, "-r", capture, "-T", "fields", "-E", "occurrence=l",
		"-o", "esp.enable_encryption_decode:TRUE",
		"-e", "esp.spi", "-e", "esp.sequence", "-e", "esp.protocol", "-e", "udp.dstport", "-e", "ip.src", "-e", "icmp.type", "-e", "icmp.ident")
	cmd := exec.Command("tshark", args...)
	cmd.Env = append(os.Environ(), "HOME="+dir, "WIRESHARK_CONFIG_DIR="+config)
	var complaints strings.Builder
	cmd.Stderr = &complaints
	got, err := cmd.Output()
	if err != nil {
		t.Fatalf("tshark: %v\n%s", err, complaints.String())
	}
	for _, line := range strings.Split(complaints.String(), "\n") {
		if line != "" && !strings.Contains(line, "dangerous") {
			t.Errorf("tshark complains: %s", line)
		}
	}
	return strings.Split(strings.TrimSuffix(string(got), "\n"), "\n")
}

// innerICMP is what a call carries: UDP 1701, L2TP data header, PPP, IPv4, ICMP echo request with the given ident.
func innerICMP(ident uint16) []byte {
	icmp := []byte{8, 0, 0, 0, byte(ident >> 8), byte(ident), 0, 1}
	putChecksum(icmp, 2)
	p := ipv4([4]byte{10, 1, 0, 2}, [4]byte{10, 2, 0, 2}, 1, icmp)
	p = append([]byte{0xFF, 0x03, 0x00, 0x21}, p...)                       // PPP: address, control, IPv4
	p = append([]byte{0x00, 0x02, 0x00, 0x07, 0x00, 0x09}, p...)           // L2TP data message: version 2, tunnel 7, session 9
	return append([]byte{6, 165, 6, 165, 0, byte(8 + len(p)), 0, 0}, p...) // UDP 1701 to 1701, no checksum
}

// frame wraps an ESP packet in UDP from and to port, and IPv4.
func frame(src [4]byte, port uint16, packet []byte) []byte {
	udp := binary.BigEndian.AppendUint16(nil, port)
	udp = binary.BigEndian.AppendUint16(udp, port)
	udp = binary.BigEndian.AppendUint16(udp, uint16(8+len(packet)))
	udp = append(udp, 0, 0)
	return ipv4(src, [4]byte{198, 51, 100, 7}, 17, append(udp, packet...))
}

func ipv4(src, dst [4]byte, protocol byte, body []byte) []byte {
	h := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0}
	binary.BigEndian.PutUint16(h[2:], uint16(20+len(body)))
	h = append(append(h, src[:]...), dst[:]...)
	putChecksum(h, 10)
	return append(h, body...)
}

// putChecksum stores the Internet checksum of p at offset; len(p) is even.
func putChecksum(p []byte, offset int) {
	var sum uint32
	for i := 0; i < len(p); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	for sum > 0xFFFF {
		sum = sum>>16 + sum&0xFFFF
	}
	binary.BigEndian.PutUint16(p[offset:], ^uint16(sum))
}

// pcap is a capture file of raw IP frames (link type 101).
func pcap(frames [][]byte) []byte {
	b := []byte{0xA1, 0xB2, 0xC3, 0xD4, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0, 0, 101}
	for i, f := range frames {
		for _, v := range []int{1_700_000_000 + i, 0, len(f), len(f)} {
			b = binary.BigEndian.AppendUint32(b, uint32(v))
		}
		b = append(b, f...)
	}
	return b
}

func TestKeyLogLine(t *testing.T) {
	key := secret.New([]byte("0123456789abcdefSALT"))
	got := string(esp.AppendKeyLog([]byte("x"), "2001:db8::1", "2001:db8::2", 0xABCDEF01, esp.AES128GCM, key))
	want := `x"IPv6","2001:db8::1","2001:db8::2","0xabcdef01","AES-GCM with 16 octet ICV [RFC4106]",` +
		`"0x3031323334353637383961626364656653414c54","NULL","0x"` + "\n"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := esp.AppendKeyLog(nil, "*", "*", 1, esp.AES256GCM, key); got != nil {
		t.Errorf("a key of the wrong length gave %q", got)
	}
	if got := string(esp.AppendKeyLog(nil, "*", "*", 1, esp.ChaCha20Poly1305, testKey(esp.ChaCha20Poly1305))); !strings.HasPrefix(got, "#") {
		t.Errorf("a suite that the table cannot name gave %q", got)
	}
}
