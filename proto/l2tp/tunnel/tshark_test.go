package tunnel_test

import (
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"twinkey/proto/l2tp"
	"twinkey/proto/l2tp/tunnel"
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

// capture is a pcap of UDP between the ends of a world.
type capture struct {
	b []byte
	n int
}

func newCapture(w *world) *capture {
	c := &capture{b: []byte{0xA1, 0xB2, 0xC3, 0xD4, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0, 0, 101}} // raw IP
	w.dump = func(from *node, d []byte) { c.add(from == w.lac, d) }
	return c
}

// add writes d as a datagram from port 1701 to port 1701.
func (c *capture) add(fromLAC bool, d []byte) {
	lac, lns := []byte{192, 0, 2, 1}, []byte{192, 0, 2, 2}
	if !fromLAC {
		lac, lns = lns, lac
	}
	ip := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0}
	binary.BigEndian.PutUint16(ip[2:], uint16(28+len(d)))
	ip = append(append(ip, lac...), lns...)
	var sum uint32
	for i := 0; i < len(ip); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	sum = sum>>16 + sum&0xFFFF
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum+sum>>16))
	udp := []byte{6, 165, 6, 165, 0, 0, 0, 0}
	binary.BigEndian.PutUint16(udp[4:], uint16(8+len(d)))
	frame := append(append(ip, udp...), d...)
	c.n++
	for _, v := range []int{1_700_000_000 + c.n, 0, len(frame), len(frame)} {
		c.b = binary.BigEndian.AppendUint32(c.b, uint32(v))
	}
	c.b = append(c.b, frame...)
}

// dialogue holds every message of the control connection and of incoming calls, with every
// AVP that we know, and data in all forms of the header. It returns how many data messages.
func dialogue(t *testing.T, w *world) (c *capture, data int) {
	c = newCapture(w)
	w.lac.manual, w.lns.manual = true, true
	key := w.lns.c.Secret
	text, u16, u32 := l2tp.Text, l2tp.Uint16, l2tp.Uint32
	now := w.now
	w.dial(text(l2tp.AVPChallenge, "sixteen bytes of"), u16(l2tp.AVPFirmwareRevision, 0x0102), text(l2tp.AVPVendorName, "twinkey"), text(l2tp.AVPTieBreaker, "tiebreak"))
	w.settle()
	r := l2tp.ChallengeResponse(l2tp.SCCRP, key, []byte("sixteen bytes of"))
	w.lns.must(w.lns.m.Accept(now, l2tp.Bytes(l2tp.AVPChallengeResponse, r[:])))
	w.settle()
	w.lac.must(w.lac.m.Connect(now))
	w.settle()
	w.lns.must(w.lns.m.Confirm(now))
	w.pass(61 * time.Second) // HELLO, ZLB
	now = w.now

	hidden, err := l2tp.Hide(strings.NewReader(strings.Repeat("random", 20)), key, text(l2tp.AVPSubAddress, "hidden"))
	if err != nil {
		t.Fatal(err)
	}
	w.lac.must(w.lac.m.OpenSession(now, 0x0101, append([]l2tp.AVP{
		u32(l2tp.AVPBearerType, l2tp.BearerDigital), u32(l2tp.AVPPhysicalChannelID, 77), text(l2tp.AVPCalledNumber, "5551212"), text(l2tp.AVPCallingNumber, "5551213"),
	}, hidden...)...))
	w.settle()
	w.lns.must(w.lns.m.AcceptSession(now, 0x0101, 0x0202))
	w.settle()
	w.lac.must(w.lac.m.ConnectSession(now, 0x0101,
		text(l2tp.AVPInitialReceivedConfReq, "\x01\x04\x05\xb4"), text(l2tp.AVPLastSentConfReq, "\x01\x04\x05\xb4"), text(l2tp.AVPLastReceivedConfReq, "\x01\x04\x05\xb4"),
		u16(l2tp.AVPProxyAuthenType, l2tp.ProxyCHAP), text(l2tp.AVPProxyAuthenName, "alice"), text(l2tp.AVPProxyAuthenChallenge, "what"),
		u16(l2tp.AVPProxyAuthenID, 9), text(l2tp.AVPProxyAuthenResponse, "that"), text(l2tp.AVPPrivateGroupID, "blue"), u32(l2tp.AVPRxConnectSpeed, 64000),
		l2tp.Bytes(l2tp.AVPSequencingRequired, nil)))
	w.settle()
	w.lns.must(w.lns.m.ConfirmSession(now, 0x0202))
	w.lac.must(w.lac.m.SendSession(now, 0x0101, l2tp.WEN, l2tp.CallErrors{CRC: 11, Framing: 12, HardwareOverruns: 13, BufferOverruns: 14, Timeouts: 15, Alignment: 16}.AVP()))
	w.lns.must(w.lns.m.SendSession(now, 0x0202, l2tp.SLI, l2tp.ACCM{Send: 0xffffffff, Receive: 0x000a0000}.AVP()))
	w.lac.must(w.lac.m.SendVendor(now, 0, l2tp.VendorTwinkey, 3, l2tp.AVP{Vendor: l2tp.VendorTwinkey, Type: 1, Mandatory: true, Value: []byte("flight")}))
	w.settle()

	echo := []byte{0xff, 0x03, 0xc0, 0x21, 9, 1, 0, 8, 1, 2, 3, 4} // PPP: LCP Echo-Request
	for i := range 16 {
		h := l2tp.DataHeader{
			TunnelID: 20, SessionID: 0x0202, HasLength: i&1 != 0, Sequenced: i&2 != 0, HasOffset: i&4 != 0, Priority: i&8 != 0,
		}
		if h.Sequenced {
			h.Ns = uint16(i)
		}
		if h.HasOffset {
			h.OffsetSize = uint16(i)
		}
		c.add(true, l2tp.AppendData(nil, h, echo))
		data++
	}
	c.add(true, append(l2tp.AppendMinimal(nil, 20, 0x0202), echo...))
	data++

	w.lns.m.CloseSession(now, 0x0202, l2tp.Result{Code: l2tp.CallError, Error: l2tp.ErrorTryAnother, Message: "elsewhere"})
	w.settle()
	w.lac.m.Close(now, l2tp.Result{Code: l2tp.StopShutdown, Message: "good night"})
	w.settle()
	return c, data
}

// An independent reader finds in what we write each field that was set, and nothing to
// complain about.
func TestTsharkReadsTheWholeDialogue(t *testing.T) {
	if _, err := exec.LookPath("tshark"); err != nil {
		leaveOut(t, "needs tshark (apt install tshark)")
	}
	w := newWorld(t, func(lac, lns *tunnel.Config) {
		lac.HelloInterval, lac.Bearer, lns.Secret = time.Minute, l2tp.BearerAnalog, secret.New([]byte("between lac and lns"))
	})
	c, data := dialogue(t, w)
	file := filepath.Join(t.TempDir(), "l2tp.pcap")
	if err := os.WriteFile(file, c.b, 0o600); err != nil {
		t.Fatal(err)
	}

	// A vendor that it doesn't know it can only call undecoded, which is a warning.
	const warning = "0x00600000" // Wireshark's PI_WARN; errors and malformed packets are above
	if got := tshark(t, "-r", file, "-Y", "(_ws.malformed || _ws.expert.severity >= "+warning+") && !l2tp.vendor_specific_avp_data", "-V"); got != "" {
		t.Errorf("tshark complains of\n%s", got)
	}
	fields := tsharkFields(t, file)
	if got := len(fields["l2tp.type"]); got != c.n {
		t.Errorf("tshark reads %d L2TP messages, want %d", got, c.n)
	}
	zlbs := strings.Count(strings.Join(w.log, "\n"), " ZLB")
	for field, want := range map[string]string{ // of data messages
		"l2tp.length_bit": "0 1 0 1 0 1 0 1 0 1 0 1 0 1 0 1 0", "l2tp.seq_bit": "0 0 1 1 0 0 1 1 0 0 1 1 0 0 1 1 0",
		"l2tp.offset_bit": "0 0 0 0 1 1 1 1 0 0 0 0 1 1 1 1 0", "l2tp.priority": "0 0 0 0 0 0 0 0 1 1 1 1 1 1 1 1 0",
		"l2tp.offset": "4 5 6 7 12 13 14 15", "l2tp.tunnel": strings.TrimSpace(strings.Repeat("20 ", data)), "l2tp.session": strings.TrimSpace(strings.Repeat("514 ", data)),
		"ppp.protocol": strings.TrimSpace(strings.Repeat("0xc021 ", data)),
	} {
		if got := strings.Join(fields["data "+field], " "); got != want {
			t.Errorf("data, %s: tshark reads %q, want %q", field, got, want)
		}
	}
	if got := len(fields["l2tp.zero_length_body_message"]); got != zlbs || zlbs == 0 {
		t.Errorf("tshark reads %d ZLBs of %d", got, zlbs)
	}
	if got := len(fields["l2tp.vendor_specific_avp_data"]); got != 2 {
		t.Errorf("tshark reads %d AVPs of ours, want 2", got)
	}
	for field, want := range map[string]string{"l2tp.result_code": "2 6", "l2tp.tie_breaker": "0x746965627265616b", "l2tp.avp.random_vector": "72616e646f6d72616e646f6d72616e64"} {
		if got := strings.Join(fields[field], " "); got != want {
			t.Errorf("%s: tshark reads %q, want %q", field, got, want)
		}
	}
	for _, typ := range []l2tp.MessageType{l2tp.SCCRQ, l2tp.SCCRP, l2tp.SCCCN, l2tp.HELLO, l2tp.ICRQ, l2tp.ICRP, l2tp.ICCN, l2tp.WEN, l2tp.SLI, l2tp.CDN, l2tp.StopCCN} {
		if !strings.Contains(strings.Join(w.log, "\n"), " "+typ.String()) {
			t.Errorf("no %v in the dialogue", typ)
		}
	}
	for field, want := range map[string]string{
		"message_type": "1 2 3 6 10 11 12 15 16 14 4", "host_name": "lac.example lns.example", "assigned_tunnel_id": "10 20 10",
		"protocol_version": "1 1", "protocol_revision": "0 0", "receive_window_size": "16 16", "async_framing_supported": "1 1", "sync_framing_supported": "1 1",
		"analog_access_supported": "1", "digital_access_supported": "0", "firmware_revision": "258", "vendor_name": "twinkey",
		"chap_challenge": "7369787465656e206279746573206f66", "assigned_session_id": "257 514 514", "call_serial_number": "1", "digital_bearer_type": "1",
		"analog_bearer_type": "0", "physical_channel": "77", "called_number": "5551212", "calling_number": "5551213", "connect_speed": "1000000000", "sync_framing_type": "1",
		"initial_received_lcp_confreq": "010405b4", "last_sent_lcp_confreq": "010405b4", "last_received_lcp_confreq": "010405b4", "proxy_authen_type": "2",
		"proxy_authen_name": "alice", "proxy_authen_challenge": "77686174", "proxy_authen_id": "9", "proxy_authen_response": "74686174", "private_group_id": "626c7565",
		"rx_connect_speed": "64000", "crc_errors": "11", "framing_errors": "12", "hardware_overruns": "13", "buffer_overruns": "14", "time_out_errors": "15", "alignment_errors": "16",
		"send_accm": "4294967295", "receive_accm": "655360", "error_code": "7 0", "error_message": "elsewhere good night",
	} {
		if got := strings.Join(fields["l2tp.avp."+field], " "); got != want {
			t.Errorf("%s: tshark reads %q, want %q", field, got, want)
		}
	}
}

// tsharkFields returns the values of each L2TP field in the order of the frames, and those
// of data messages also under "data " and the field's name.
func tsharkFields(t *testing.T, file string) map[string][]string {
	t.Helper()
	var names, args []string
	for line := range strings.Lines(tshark(t, "-G", "fields")) {
		f := strings.Split(line, "\t")
		if len(f) > 2 && f[0] == "F" && (f[2] == "ppp.protocol" || strings.HasPrefix(f[2], "l2tp.") && strings.Count(f[2], ".") < 3) {
			names = append(names, f[2])
			args = append(args, "-e", f[2])
		}
	}
	fields := make(map[string][]string)
	for row := range strings.Lines(tshark(t, append([]string{"-r", file, "-T", "fields", "-E", "separator=|", "-E", "aggregator=;"}, args...)...)) {
		cells := strings.Split(strings.TrimSuffix(row, "\n"), "|")
		isData := cells[slices.Index(names, "l2tp.type")] == "0"
		for i, cell := range cells {
			if cell == "" {
				continue
			}
			values := strings.Split(cell, ";")
			fields[names[i]] = append(fields[names[i]], values...)
			if isData {
				fields["data "+names[i]] = append(fields["data "+names[i]], values...)
			}
		}
	}
	return fields
}

// tshark returns its output; a complaint of its own fails the test.
func tshark(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command("tshark", args...)
	home := t.TempDir()
	cmd.Env = append(os.Environ(), "HOME="+home, "WIRESHARK_CONFIG_DIR="+home)
	var complaints strings.Builder
	cmd.Stderr = &complaints
	got, err := cmd.Output()
	if err != nil {
		t.Fatalf("tshark %q: %v\n%s", args, err, complaints.String())
	}
	return string(got)
}
