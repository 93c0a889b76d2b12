package l2tp_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"twinkey/proto/l2tp"
	"twinkey/proto/wire"
)

// every returns one message of each type with every AVP that RFC 2661 6 allows in it.
func every() map[l2tp.MessageType][]l2tp.AVP {
	hello := []l2tp.AVP{
		l2tp.Uint16(l2tp.AVPProtocolVersion, l2tp.ProtocolVersion), l2tp.Text(l2tp.AVPHostName, "lac.example"),
		l2tp.Uint32(l2tp.AVPFramingCapabilities, l2tp.FramingSync|l2tp.FramingAsync), l2tp.Uint16(l2tp.AVPAssignedTunnelID, 7),
		l2tp.Uint32(l2tp.AVPBearerCapabilities, l2tp.BearerDigital), l2tp.Uint16(l2tp.AVPReceiveWindowSize, 16),
		l2tp.Text(l2tp.AVPChallenge, "sixteen bytes of"), l2tp.Uint16(l2tp.AVPFirmwareRevision, 0x0102), l2tp.Text(l2tp.AVPVendorName, "twinkey"),
	}
	speed, framing := l2tp.Uint32(l2tp.AVPTxConnectSpeed, 1_000_000), l2tp.Uint32(l2tp.AVPFramingType, l2tp.FramingSync)
	session := l2tp.Uint16(l2tp.AVPAssignedSessionID, 9)
	return map[l2tp.MessageType][]l2tp.AVP{
		l2tp.SCCRQ:   append(hello[:9:9], l2tp.Text(l2tp.AVPTieBreaker, "8 bytes.")),
		l2tp.SCCRP:   append(hello[:9:9], l2tp.Text(l2tp.AVPChallengeResponse, "16 bytes of hash")),
		l2tp.SCCCN:   {l2tp.Text(l2tp.AVPChallengeResponse, "16 bytes of hash")},
		l2tp.StopCCN: {l2tp.Uint16(l2tp.AVPAssignedTunnelID, 7), l2tp.Result{Code: l2tp.StopShutdown, Message: "good night"}.AVP()},
		l2tp.HELLO:   nil,
		l2tp.OCRQ: {
			session, l2tp.Uint32(l2tp.AVPCallSerialNumber, 1), l2tp.Uint32(l2tp.AVPMinimumBPS, 9600), l2tp.Uint32(l2tp.AVPMaximumBPS, 64000),
			l2tp.Uint32(l2tp.AVPBearerType, l2tp.BearerAnalog), framing, l2tp.Text(l2tp.AVPCalledNumber, "5551212"), l2tp.Text(l2tp.AVPSubAddress, "3"),
		},
		l2tp.OCRP: {session, l2tp.Uint32(l2tp.AVPPhysicalChannelID, 2)},
		l2tp.OCCN: {speed, framing, l2tp.Uint32(l2tp.AVPRxConnectSpeed, 5), l2tp.Bytes(l2tp.AVPSequencingRequired, nil)},
		l2tp.ICRQ: {
			session, l2tp.Uint32(l2tp.AVPCallSerialNumber, 1), l2tp.Uint32(l2tp.AVPBearerType, l2tp.BearerDigital), l2tp.Uint32(l2tp.AVPPhysicalChannelID, 2),
			l2tp.Text(l2tp.AVPCallingNumber, "5551213"), l2tp.Text(l2tp.AVPCalledNumber, "5551212"), l2tp.Text(l2tp.AVPSubAddress, "3"),
		},
		l2tp.ICRP: {session},
		l2tp.ICCN: {
			speed, framing, l2tp.Text(l2tp.AVPInitialReceivedConfReq, "\x01\x04\x05\xb4"), l2tp.Text(l2tp.AVPLastSentConfReq, "\x01\x04\x05\xb4"),
			l2tp.Text(l2tp.AVPLastReceivedConfReq, "\x01\x04\x05\xb4"), l2tp.Uint16(l2tp.AVPProxyAuthenType, l2tp.ProxyCHAP), l2tp.Text(l2tp.AVPProxyAuthenName, "alice"),
			l2tp.Text(l2tp.AVPProxyAuthenChallenge, "challenge"), l2tp.Uint16(l2tp.AVPProxyAuthenID, 1), l2tp.Text(l2tp.AVPProxyAuthenResponse, "response"),
			l2tp.Text(l2tp.AVPPrivateGroupID, "blue"), l2tp.Uint32(l2tp.AVPRxConnectSpeed, 5), l2tp.Bytes(l2tp.AVPSequencingRequired, nil),
		},
		l2tp.CDN: {
			l2tp.Result{Code: l2tp.CallError, Error: l2tp.ErrorTryAnother, Message: "elsewhere"}.AVP(), session,
			l2tp.Q931Cause{Cause: 16, Message: 0x45, Advisory: "normal"}.AVP(),
		},
		l2tp.WEN: {l2tp.CallErrors{CRC: 1, Framing: 2, HardwareOverruns: 3, BufferOverruns: 4, Timeouts: 5, Alignment: 6}.AVP()},
		l2tp.SLI: {l2tp.ACCM{Send: 0xffffffff, Receive: 0x000a0000}.AVP()},
	}
}

func encode(t l2tp.MessageType, avps ...l2tp.AVP) []byte {
	return l2tp.AppendMessage(nil, l2tp.ControlHeader{TunnelID: 1, SessionID: 2, Ns: 3, Nr: 4}, 0, t, avps...)
}

// again appends m as it was parsed.
func again(m *l2tp.Message) []byte {
	if m.ZLB {
		return l2tp.AppendZLB(nil, m.Header)
	}
	return l2tp.AppendMessage(nil, m.Header, m.VendorID, m.Type, m.AVPs...)
}

func TestEveryMessageReadsAsWritten(t *testing.T) {
	for typ, avps := range every() {
		t.Run(typ.String(), func(t *testing.T) {
			msg := encode(typ, avps...)
			m, err := l2tp.ParseMessage(msg)
			if err != nil {
				t.Fatal(err)
			}
			if m.Type != typ || !m.Mandatory || m.Ignored != 0 || len(m.AVPs) != len(avps) {
				t.Errorf("parsed as %v with %d of %d AVPs, %d ignored", m.Type, len(m.AVPs), len(avps), m.Ignored)
			}
			if err := m.Missing(); err != nil {
				t.Error(err)
			}
			if got := again(m); !bytes.Equal(got, msg) {
				t.Errorf("appends back as\n%x, was\n%x", got, msg)
			}
			for n := range msg {
				if _, err := l2tp.ParseMessage(msg[:n]); err == nil {
					t.Errorf("the first %d bytes of %d parse", n, len(msg))
				}
			}
		})
	}
}

func TestMissingAVPIsNamed(t *testing.T) {
	for typ, avps := range every() {
		if len(avps) == 0 || typ == l2tp.SCCCN {
			continue
		}
		t.Run(typ.String(), func(t *testing.T) {
			m, err := l2tp.ParseMessage(encode(typ, avps[len(avps)-1])) // the last one alone
			if err != nil {
				t.Fatal(err)
			}
			if len(avps) == 1 {
				m, _ = l2tp.ParseMessage(encode(typ))
			}
			ae, ok := errors.AsType[*l2tp.AVPError](m.Missing())
			if !ok || !errors.Is(ae, l2tp.ErrMissing) {
				t.Errorf("Missing() = %v", m.Missing())
			}
		})
	}
}

// What the message holds comes out by its accessor, in the unit of the RFC.
func TestFields(t *testing.T) {
	msgs := map[l2tp.MessageType]*l2tp.Message{}
	for typ, avps := range every() {
		m, err := l2tp.ParseMessage(encode(typ, avps...))
		if err != nil {
			t.Fatal(err)
		}
		msgs[typ] = m
	}
	rq := msgs[l2tp.SCCRQ]
	if rq.HostName() != "lac.example" || rq.AssignedTunnelID() != 7 || rq.ReceiveWindow() != 16 || rq.ProtocolVersion() != l2tp.ProtocolVersion {
		t.Errorf("SCCRQ: %q, %d, %d, %#x", rq.HostName(), rq.AssignedTunnelID(), rq.ReceiveWindow(), rq.ProtocolVersion())
	}
	if w := msgs[l2tp.SCCCN].ReceiveWindow(); w != 4 {
		t.Errorf("window of a peer that does not say: %d, want 4 (RFC 2661 4.4.3)", w)
	}
	if id := msgs[l2tp.ICRP].AssignedSessionID(); id != 9 {
		t.Errorf("ICRP: session %d", id)
	}
	if c, ok := msgs[l2tp.WEN].CallErrors(); !ok || c != (l2tp.CallErrors{CRC: 1, Framing: 2, HardwareOverruns: 3, BufferOverruns: 4, Timeouts: 5, Alignment: 6}) {
		t.Errorf("WEN: %+v", c)
	}
	if a, ok := msgs[l2tp.SLI].ACCM(); !ok || a != (l2tp.ACCM{Send: 0xffffffff, Receive: 0x000a0000}) {
		t.Errorf("SLI: %+v", a)
	}
	cdn := msgs[l2tp.CDN]
	if q, ok := cdn.Q931Cause(); !ok || q != (l2tp.Q931Cause{Cause: 16, Message: 0x45, Advisory: "normal"}) {
		t.Errorf("CDN: %+v", q)
	}
	if r := cdn.Result(); r != (l2tp.Result{Code: 2, Error: 7, Message: "elsewhere"}) {
		t.Errorf("CDN: %v", r)
	}
	if !msgs[l2tp.ICCN].Has(l2tp.AVPSequencingRequired) || msgs[l2tp.ICRQ].Has(l2tp.AVPSequencingRequired) {
		t.Error("Sequencing Required is in ICCN, and only there")
	}
	if got := msgs[l2tp.ICCN].Text(l2tp.AVPProxyAuthenName); got != "alice" {
		t.Errorf("Proxy Authen Name %q", got)
	}
	for _, none := range []*l2tp.Message{rq} {
		_, wen := none.CallErrors()
		_, sli := none.ACCM()
		_, q := none.Q931Cause()
		if wen || sli || q || none.Result() != (l2tp.Result{}) {
			t.Error("SCCRQ has what belongs to others")
		}
	}
}

// xl2tpd #44: a Result Code AVP of 8 bytes, without an error code, was rejected.
func TestResultInItsThreeForms(t *testing.T) {
	for _, tt := range []struct {
		r    l2tp.Result
		size int // of the AVP
	}{
		{l2tp.Result{Code: 1}, 8},
		{l2tp.Result{Code: 2, Error: 8}, 10},
		{l2tp.Result{Code: 2, Error: 8, Message: "AVP 4711"}, 18},
		{l2tp.Result{Code: 6, Message: "night"}, 15},
	} {
		avp := tt.r.AVP()
		if n := len(avp.Append(nil)); n != tt.size {
			t.Errorf("%v takes %d bytes, want %d", tt.r, n, tt.size)
		}
		m, err := l2tp.ParseMessage(encode(l2tp.CDN, avp))
		if err != nil || m.Result() != tt.r {
			t.Errorf("%v reads as %v, %v", tt.r, m.Result(), err)
		}
	}
	if n := len(l2tp.Result{Message: strings.Repeat("x", 5000)}.AVP().Value); n != 204 {
		t.Errorf("a long text makes %d bytes", n)
	}
}

// avp is an AVP in hex, flags first, its length computed.
func avp(flags byte, vendor uint16, typ uint16, value string) string {
	v, err := hex.DecodeString(value)
	if err != nil {
		panic(err)
	}
	n := 6 + len(v)
	return hex.EncodeToString([]byte{flags | byte(n>>8), byte(n), byte(vendor >> 8), byte(vendor), byte(typ >> 8), byte(typ)}) + value
}

const m, h = 0x80, 0x40 // M and H bits

// control wraps AVPs in hex in a header.
func control(avps ...string) []byte {
	body, err := hex.DecodeString(strings.Join(avps, ""))
	if err != nil {
		panic(err)
	}
	return append(l2tp.ControlHeader{TunnelID: 1}.Append(nil, len(body)), body...)
}

// Rows of peers' bugs: what is discarded (cannot be read) and what ends a session or tunnel.
func TestBadMessages(t *testing.T) {
	icrq := avp(m, 0, 0, "000a")
	long := strings.Repeat("61", l2tp.MaxValue)
	tests := []struct {
		name  string
		msg   []byte
		want  error // nil: accepted
		code  uint16
		fatal bool // an *AVPError
		kept  int
	}{
		{name: "AVP Length 5, below its header (CVE-2020-15173)", msg: control(icrq, "800500000007"), want: wire.ErrLength},
		{name: "AVP Length 0, would be walked for ever", msg: control(icrq, "800000000007"), want: wire.ErrLength},
		{name: "AVP Length beyond the message", msg: control(icrq, "80ff00000007"), want: wire.ErrTruncated},
		{name: "half an AVP header", msg: control(icrq, "8008"), want: wire.ErrTruncated},
		{name: "first AVP is not Message Type", msg: control(avp(m, 0, 7, "61")), want: wire.ErrValue},
		{name: "Message Type of 3 bytes", msg: control(avp(m, 0, 0, "00000a")), want: wire.ErrValue},
		{name: "Message Type hidden", msg: control(avp(m|h, 0, 0, "000a")), want: wire.ErrValue},
		{name: "65 AVPs", msg: control(icrq, strings.Repeat(avp(0, 0, 8, ""), 65)), want: wire.ErrLength},
		{name: "4,097 bytes", msg: control(icrq, avp(0, 0, 8, long), avp(0, 0, 8, long), avp(0, 0, 8, long), avp(0, 0, 8, long)), want: wire.ErrLength},
		{name: "Message Type twice", msg: control(icrq, icrq), want: l2tp.ErrTwice, code: 3, fatal: true},

		{name: "unknown vendor's AVP of a known type: the vendor is looked at first", msg: control(icrq, avp(0, 9, 14, "0001")), kept: 0},
		{name: "unknown vendor's AVP of a known type, M", msg: control(icrq, avp(m, 9, 14, "0001")), want: l2tp.ErrUnknownAVP, code: 8, fatal: true},
		{name: "unknown type", msg: control(icrq, avp(0, 0, 20, "0001")), kept: 0},
		{name: "unknown type, M", msg: control(icrq, avp(m, 0, 20, "0001")), want: l2tp.ErrUnknownAVP, code: 8, fatal: true},
		{name: "unknown type 65535, M", msg: control(icrq, avp(m, 0, 65535, "")), want: l2tp.ErrUnknownAVP, code: 8, fatal: true},
		{name: "reserved bit makes it unknown", msg: control(icrq, avp(0x04, 0, 25, "00000001")), kept: 0},
		{name: "reserved bit makes it unknown, M", msg: control(icrq, avp(m|0x20, 0, 14, "0001")), want: l2tp.ErrUnknownAVP, code: 8, fatal: true},
		{name: "our vendor's AVP passes, M or not", msg: control(icrq, avp(m, l2tp.VendorTwinkey, 1, "0001"), avp(0, l2tp.VendorTwinkey, 1, "")), kept: 2},

		{name: "Rx Connect Speed of 2 bytes is passed over (RFC 2661 7.1)", msg: control(icrq, avp(0, 0, 38, "0001")), kept: 0},
		{name: "Assigned Session ID of 1 byte, M", msg: control(icrq, avp(m, 0, 14, "01")), want: wire.ErrLength, code: 2, fatal: true},
		{name: "Assigned Session ID 0", msg: control(icrq, avp(m, 0, 14, "0000")), want: wire.ErrValue, code: 3, fatal: true},
		{name: "Assigned Tunnel ID 0", msg: control(icrq, avp(m, 0, 9, "0000")), want: wire.ErrValue, code: 3, fatal: true},
		{name: "Receive Window Size 0", msg: control(icrq, avp(m, 0, 10, "0000")), want: wire.ErrValue, code: 3, fatal: true},
		{name: "Host Name empty", msg: control(icrq, avp(m, 0, 7, "")), want: wire.ErrLength, code: 2, fatal: true},
		{name: "Host Name of 1,017 bytes (fixed buffers of 80 and 100 in peers)", msg: control(icrq, avp(m, 0, 7, long)), kept: 1},
		{name: "Assigned Session ID twice, which one counts?", msg: control(icrq, avp(m, 0, 14, "0001"), avp(m, 0, 14, "0002")), want: l2tp.ErrTwice, code: 3, fatal: true, kept: 1},
		{name: "Call Errors without its last byte", msg: control(icrq, avp(m, 0, 34, strings.Repeat("00", 25))), want: wire.ErrLength, code: 2, fatal: true},
		{name: "Result Code of 1 byte", msg: control(icrq, avp(m, 0, 1, "01")), want: wire.ErrLength, code: 2, fatal: true},

		{name: "hidden without a Random Vector", msg: control(icrq, avp(m|h, 0, 14, "00020001")), want: l2tp.ErrHidden, code: 3, fatal: true},
		{name: "hidden before the Random Vector", msg: control(icrq, avp(m|h, 0, 14, "00020001"), avp(m, 0, 36, "00")), want: l2tp.ErrHidden, code: 3, fatal: true, kept: 1},
		{name: "hidden although it may not be", msg: control(icrq, avp(m, 0, 36, "00"), avp(m|h, 0, 7, "000161")), want: l2tp.ErrHidden, code: 3, fatal: true, kept: 1},
		{name: "Random Vector twice", msg: control(icrq, avp(m, 0, 36, "00"), avp(m, 0, 36, "00")), kept: 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := l2tp.ParseMessage(tt.msg)
			if !errors.Is(err, tt.want) {
				t.Fatalf("err = %v, want %v", err, tt.want)
			}
			ae, fatal := errors.AsType[*l2tp.AVPError](err)
			if fatal != tt.fatal {
				t.Fatalf("err = %T", err)
			}
			if fatal && (ae.Code != tt.code || ae.Result().Error != tt.code || ae.Result().Code != 2 || ae.Result().Message == "" || ae.Offset < 20) {
				t.Errorf("%+v, result %v, want error code %d", ae, ae.Result(), tt.code)
			}
			if err == nil || fatal {
				if len(got.AVPs) != tt.kept {
					t.Errorf("%d AVPs are kept, want %d", len(got.AVPs), tt.kept)
				}
			} else if _, ok := errors.AsType[*wire.ParseError](err); !ok {
				t.Errorf("err = %T, want a ParseError", err)
			}
		})
	}
}

// After a fault the message is read on: an ICRQ can be refused by its session's ID.
func TestFaultDoesNotHideWhatFollows(t *testing.T) {
	got, err := l2tp.ParseMessage(control(avp(m, 0, 0, "000a"), avp(m, 9, 1, ""), avp(m, 0, 14, "1234")))
	if err == nil || got.AssignedSessionID() != 0x1234 {
		t.Errorf("session %#x, err = %v", got.AssignedSessionID(), err)
	}
	if want := `L2TP: AVP 1 of vendor 9 at offset 20: not recognized, and marked mandatory`; err.Error() != want {
		t.Errorf("err = %q", err)
	}
}

func TestControlHeader(t *testing.T) {
	good := l2tp.ControlHeader{TunnelID: 0x1234, SessionID: 0x5678, Ns: 0x9abc, Nr: 0xdef0}
	b := good.Append(nil, 0)
	if want := "c802000c123456789abcdef0"; hex.EncodeToString(b) != want {
		t.Errorf("header %x, want %s", b, want)
	}
	change := func(at int, v byte) []byte { c := bytes.Clone(b); c[at] = v; return c }
	for _, tt := range []struct {
		name string
		b    []byte
		want error
	}{
		{"as it should be", b, nil},
		{"reserved bits are ignored", change(0, 0xc8|0x34), nil},
		{"data message", change(0, 0x48), wire.ErrValue},
		{"without Length", change(0, 0x88), wire.ErrValue},
		{"without Ns and Nr", change(0, 0xc0), wire.ErrValue},
		{"with Offset", change(0, 0xca), wire.ErrValue},
		{"with Priority", change(0, 0xc9), wire.ErrValue},
		{"L2F", change(1, 1), wire.ErrValue},
		{"L2TPv3", change(1, 3), wire.ErrValue},
		{"Length below the header", change(3, 11), wire.ErrLength},
		{"Length beyond the datagram", change(3, 13), wire.ErrTruncated},
		{"bytes behind Length", append(bytes.Clone(b), 0), wire.ErrTrailing},
		{"Length above the limit", l2tp.ControlHeader{}.Append(nil, l2tp.MaxMessage), wire.ErrLength},
		{"nothing", nil, wire.ErrTruncated},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := l2tp.ParseControlHeader(tt.b)
			if tt.want == nil && got != good {
				t.Errorf("%+v", got)
			}
			if len(tt.b) > 0 && !errors.Is(err, tt.want) {
				t.Errorf("err = %v, want %v", err, tt.want)
			}
			if tt.want != nil && err == nil {
				t.Error("parses")
			}
		})
	}
}

func TestCheckRefusesWhatDoesNotFit(t *testing.T) {
	big := l2tp.Bytes(l2tp.AVPVendorName, make([]byte, l2tp.MaxValue))
	if err := l2tp.Check(big, big, big); err != nil {
		t.Error(err)
	}
	many := make([]l2tp.AVP, l2tp.MaxAVPs+1)
	over := l2tp.Bytes(l2tp.AVPVendorName, make([]byte, l2tp.MaxValue+1))
	for _, avps := range [][]l2tp.AVP{{over}, {big, big, big, big}, many} {
		if err := l2tp.Check(avps...); !errors.Is(err, wire.ErrLength) {
			t.Errorf("%d AVPs: err = %v", len(avps), err)
		}
	}
	if n := len(over.Append(nil)); n != l2tp.MaxValue+6 {
		t.Errorf("a value that is too long spills into the flags: %d bytes", n)
	}
}

func TestBreakTie(t *testing.T) {
	lo, hi := []byte("00000000"), []byte("00000001")
	for _, tt := range []struct {
		ours, theirs []byte
		want         l2tp.Tie
	}{{nil, nil, l2tp.TieNone}, {lo, nil, l2tp.TieWon}, {nil, hi, l2tp.TieLost}, {lo, hi, l2tp.TieWon}, {hi, lo, l2tp.TieLost}, {lo, lo, l2tp.TieEven}} {
		if got := l2tp.BreakTie(tt.ours, tt.theirs); got != tt.want {
			t.Errorf("BreakTie(%q, %q) = %d, want %d", tt.ours, tt.theirs, got, tt.want)
		}
	}
}

func TestPeekType(t *testing.T) {
	if v, typ, ok := l2tp.PeekType(encode(l2tp.CDN)); v != 0 || typ != 14 || !ok {
		t.Errorf("%d, %d, %v", v, typ, ok)
	}
	if v, typ, ok := l2tp.PeekType(l2tp.AppendMessage(nil, l2tp.ControlHeader{}, l2tp.VendorTwinkey, 3)); v != l2tp.VendorTwinkey || typ != 3 || !ok {
		t.Errorf("%d, %d, %v", v, typ, ok)
	}
	if _, _, ok := l2tp.PeekType(l2tp.AppendZLB(nil, l2tp.ControlHeader{})); ok {
		t.Error("a ZLB has a type")
	}
}
