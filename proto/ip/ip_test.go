package ip_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"twinkey/proto/ip"
	"twinkey/proto/wire"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// v4 is an IPv4 packet from 10.1.0.3 to 10.2.0.4 with DF, checksums left 0.
func v4(proto ip.Protocol, payload []byte) []byte {
	b := []byte{0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, byte(proto), 0, 0, 10, 1, 0, 3, 10, 2, 0, 4}
	b = append(b, payload...)
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	return b
}

// v6 is an IPv6 packet from 2001:db8::1 to 2001:db8::2.
func v6(next ip.Protocol, payload []byte) []byte {
	b := []byte{0x60, 0, 0, 0, 0, 0, byte(next), 64}
	for _, a := range []string{"2001:db8::1", "2001:db8::2"} {
		b = append(b, addr(a).AsSlice()...)
	}
	b = append(b, payload...)
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	return b
}

// syn is a TCP segment from port 1000 to 80 with these flags and options, padded, its
// checksum made for the packet that pack puts around it.
func syn(flags byte, pack func(ip.Protocol, []byte) []byte, options ...byte) []byte {
	for len(options)%4 != 0 {
		options = append(options, 0)
	}
	tcp := make([]byte, 20, 60)
	binary.BigEndian.PutUint16(tcp, 1000)
	binary.BigEndian.PutUint16(tcp[2:], 80)
	tcp = append(tcp, options...)
	tcp[12], tcp[13] = byte(len(tcp)/4)<<4, flags
	b := pack(ip.TCP, tcp)
	p, _ := ip.Parse(b)
	binary.BigEndian.PutUint16(p.Payload()[16:], ip.Checksum(ip.Sum(p.PseudoSum(ip.TCP, len(tcp)), tcp)))
	return b
}

func TestParse(t *testing.T) {
	ports := []byte{3, 232, 0, 80, 0, 8, 0, 0}
	frag := func(off byte) []byte {
		b := v4(ip.UDP, ports)
		b[6], b[7] = 0x20, off
		return b
	}
	ext := func(headers ...byte) []byte { return append(headers, ports...) }
	tests := []struct {
		name  string
		in    []byte
		proto ip.Protocol
		ports bool
		frag  bool
		at    int // where the payload begins
		err   error
		field string
	}{
		{"UDP over IPv4", v4(ip.UDP, ports), ip.UDP, true, false, 20, nil, ""},
		{"bytes behind the packet", append(v4(ip.UDP, ports), 9, 9, 9), ip.UDP, true, false, 20, nil, ""},
		{"three bytes of UDP", v4(ip.UDP, ports[:3]), ip.UDP, false, false, 20, nil, ""},
		{"ICMP has no ports", v4(ip.ICMP, ports), ip.ICMP, false, false, 20, nil, ""},
		{"first fragment", frag(0), ip.UDP, true, true, 20, nil, ""},
		{"later fragment", frag(1), ip.UDP, false, true, 20, nil, ""},
		{"UDP over IPv6", v6(ip.UDP, ports), ip.UDP, true, false, 40, nil, ""},
		{"hop-by-hop and destination options", v6(0, ext(60, 0, 1, 4, 0, 0, 0, 0, 17, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)), ip.UDP, true, false, 64, nil, ""},
		{"first fragment, IPv6", v6(44, ext(17, 0, 0, 1, 0, 0, 0, 7)), ip.UDP, true, true, 48, nil, ""},
		{"later fragment, IPv6", v6(44, ext(17, 0, 0, 8, 0, 0, 0, 7)), ip.UDP, false, true, 48, nil, ""},
		{"AH counts in fours", v6(51, ext(17, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1)), ip.UDP, true, false, 52, nil, ""},
		{"no next header", v6(59, nil), 59, false, false, 40, nil, ""},

		{"nothing", nil, 0, false, false, 0, wire.ErrTruncated, "Version"},
		{"version 5", []byte{0x50}, 0, false, false, 0, wire.ErrValue, "Version"},
		{"half a header", v4(ip.UDP, nil)[:19], 0, false, false, 0, wire.ErrTruncated, "header"},
		{"IHL 4", bend(v4(ip.UDP, ports), 0, 0x44), 0, false, false, 0, wire.ErrLength, "IHL"},
		{"IHL beyond the length", bend(v4(ip.UDP, ports), 0, 0x4f), 0, false, false, 0, wire.ErrLength, "Total Length"},
		{"Total Length beyond the bytes", bend(v4(ip.UDP, ports), 3, 29), 0, false, false, 0, wire.ErrTruncated, "Total Length"},
		{"Total Length below the header", bend(v4(ip.UDP, ports), 3, 19), 0, false, false, 0, wire.ErrLength, "Total Length"},
		{"half an IPv6 header", v6(ip.UDP, nil)[:39], 0, false, false, 0, wire.ErrTruncated, "header"},
		{"Payload Length beyond the bytes", bend(v6(ip.UDP, ports), 5, 9), 0, false, false, 0, wire.ErrTruncated, "Payload Length"},
		{"extension header cut off", v6(0, []byte{17, 1, 0, 0, 0, 0, 0, 0}), 0, false, false, 0, wire.ErrTruncated, "extension header"},
		{"one byte of an extension header", v6(60, []byte{17}), 0, false, false, 0, wire.ErrTruncated, "extension header"},
		{"nine extension headers", v6(60, bytes.Repeat([]byte{60, 0, 1, 4, 0, 0, 0, 0}, 9)), 0, false, false, 0, wire.ErrValue, "extension header"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := ip.Parse(tt.in)
			if !errors.Is(err, tt.err) {
				t.Fatalf("err = %v, want %v", err, tt.err)
			}
			if err != nil {
				if pe, ok := errors.AsType[*wire.ParseError](err); !ok || pe.Field != tt.field {
					t.Errorf("err = %v, want field %s", err, tt.field)
				}
				return
			}
			_, _, ok := p.Ports()
			if p.Protocol() != tt.proto || ok != tt.ports || p.Fragment() != tt.frag || p.Len()-len(p.Payload()) != tt.at {
				t.Errorf("protocol %d, ports %v, fragment %v, payload at %d", p.Protocol(), ok, p.Fragment(), p.Len()-len(p.Payload()))
			}
		})
	}
}

// bend changes one byte.
func bend(b []byte, at int, to byte) []byte {
	b[at] = to
	return b
}

// Where a fragment begins, and whether that says where in the transport header.
func TestOffset(t *testing.T) {
	udp := []byte{0, 1, 0, 2, 0, 8, 0, 0}
	six := func(frag uint16, next byte, behind ...byte) []byte {
		b := v6(44, append([]byte{next, 0, byte(frag >> 8), byte(frag), 0, 0, 0, 1}, behind...))
		return b
	}
	options := append([]byte{17, 0, 1, 4, 0, 0, 0, 0}, udp...)
	for name, tt := range map[string]struct {
		b      []byte
		offset int
		masked bool
	}{
		"no fragment":                      {v4(ip.UDP, udp), 0, false},
		"IPv4, later":                      {bend(bend(v4(ip.UDP, udp), 6, 0x20), 7, 3), 24, false},
		"IPv6, first":                      {six(1, 17, udp...), 0, false},
		"IPv6, later":                      {six(3<<3|1, 17, udp...), 24, false},
		"IPv6, options behind the first":   {six(1, 60, options...), 0, true},
		"IPv6, options in what is no part": {six(0, 60, options...), 0, false},
		"IPv6, options of its own":         {v6(60, options), 0, false},
	} {
		p, err := ip.Parse(tt.b)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if p.Offset() != tt.offset || p.Masked() != tt.masked {
			t.Errorf("%s: offset %d, masked %v", name, p.Offset(), p.Masked())
		}
	}
}

func TestTuple(t *testing.T) {
	p, _ := ip.Parse(syn(2, v4))
	if got, want := p.Tuple(), (ip.Tuple{Src: addr("10.1.0.3"), Dst: addr("10.2.0.4"), SrcPort: 1000, DstPort: 80, Protocol: ip.TCP}); got != want {
		t.Errorf("%v, want %v", got, want)
	}
	p, _ = ip.Parse(syn(2, v6))
	if got, want := p.Tuple(), (ip.Tuple{Src: addr("2001:db8::1"), Dst: addr("2001:db8::2"), SrcPort: 1000, DstPort: 80, Protocol: ip.TCP}); got != want {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestChecksum(t *testing.T) {
	// RFC 1071 section 3.
	if got := ip.Checksum(ip.Sum(0, unhex(t, "0001 f203 f4f5 f6f7"))); got != ^uint16(0xddf2) {
		t.Errorf("RFC 1071: %#x", got)
	}
	// RFC 1624 section 4: 0xdd2f, 0x5555 becomes 0x3285, 0x0000 and not 0xffff.
	if got := ip.Update(0xdd2f, 0x5555, 0x3285); got != 0 {
		t.Errorf("RFC 1624: %#x, want 0", got)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		b := make([]byte, r.IntN(70))
		for i := range b {
			b[i] = byte(r.Uint32()) | byte(r.IntN(2)*255) // many ff, where carries live
		}
		cut := r.IntN(len(b)+1) &^ 1
		if got, want := ip.Checksum(ip.Sum(ip.Sum(0, b[:cut]), b[cut:])), plain(b); got != want {
			t.Fatalf("% x: %#x, want %#x", b, got, want)
		}
	}
}

// plain is the checksum as RFC 1071 section 4.1 spells it.
func plain(b []byte) uint16 {
	var sum uint32
	for i, c := range b {
		sum += uint32(c) << (8 * (1 - i%2))
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

func tcpOK(b []byte) bool {
	p, err := ip.Parse(b)
	return err == nil && ip.Checksum(ip.Sum(p.PseudoSum(ip.TCP, len(p.Payload())), p.Payload())) == 0
}

func TestClampMSS(t *testing.T) {
	mss := []byte{2, 4, 0x05, 0xb4} // 1460
	tests := []struct {
		name string
		in   []byte
		mtu  int
		want int // MSS afterwards; 0: the packet stays as it is
	}{
		{"IPv4", syn(2, v4, mss...), 1400, 1360},
		{"IPv6", syn(2, v6, mss...), 1400, 1340},
		{"SYN-ACK", syn(0x12, v4, mss...), 1400, 1360},
		{"behind a NOP, at an odd offset", syn(2, v4, append([]byte{1}, mss...)...), 1400, 1360},
		{"behind other options", syn(2, v4, append([]byte{4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 3, 3, 7}, mss...)...), 1400, 1360},
		{"fits", syn(2, v4, mss...), 1500, 0},
		{"no SYN", syn(0x10, v4, mss...), 1400, 0},
		{"no option", syn(2, v4), 1400, 0},
		{"behind the end of options", syn(2, v4, append([]byte{0}, mss...)...), 1400, 0},
		{"option of length 0", syn(2, v4, append([]byte{8, 0}, mss...)...), 1400, 0},
		{"option beyond the header", syn(2, v4, 1, 1, 8, 3), 1400, 0},
		{"MSS of length 3", syn(2, v4, 2, 3, 0xff, 1), 1400, 0},
		{"MTU too small to say anything", syn(2, v4, mss...), 40, 0},
		{"data offset beyond the segment", bend(syn(2, v4, mss...), 20+12, 0xf0), 1400, 0},
		{"data offset below the header", bend(syn(2, v4, mss...), 20+12, 0x40), 1400, 0},
		{"later fragment", bend(syn(2, v4, mss...), 7, 1), 1400, 0},
		{"UDP", bend(syn(2, v4, mss...), 9, 17), 1400, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := slices.Clone(tt.in)
			p, err := ip.Parse(tt.in)
			if err != nil {
				t.Fatal(err)
			}
			changed := ip.ClampMSS(p, tt.mtu)
			if changed != (tt.want != 0) || changed == bytes.Equal(before, tt.in) {
				t.Fatalf("changed = %v\n% x\n% x", changed, before, tt.in)
			}
			if !changed {
				return
			}
			if !bytes.Contains(tt.in[p.Len()-len(p.Payload()):], []byte{2, 4, byte(tt.want >> 8), byte(tt.want)}) {
				t.Errorf("MSS is not %d: % x", tt.want, tt.in)
			}
			if !tcpOK(tt.in) {
				t.Errorf("checksum is wrong now: % x", tt.in)
			}
		})
	}
}

func TestTooBig(t *testing.T) {
	big4, big6 := v4(ip.UDP, make([]byte, 1480)), v6(ip.UDP, make([]byte, 1460))
	tests := []struct {
		name string
		in   []byte
		src  string
		mtu  int
		size int
		err  error
	}{
		{"IPv4", big4, "10.1.0.1", 1400, 576, nil},
		{"IPv6", big6, "2001:db8::ff", 1400, 1280, nil},
		{"a small one is quoted whole", v4(ip.UDP, make([]byte, 72)), "10.1.0.1", 68, 20 + 8 + 92, nil},
		{"echo is answered", v4(ip.ICMP, []byte{8, 0, 0, 0, 0, 0, 0, 0}), "10.1.0.1", 68, 56, nil},
		{"IPv6 multicast is answered", bend(v6(ip.UDP, make([]byte, 1460)), 24, 0xff), "2001:db8::ff", 1400, 1280, nil},
		{"without DF", bend(v4(ip.UDP, nil), 6, 0), "10.1.0.1", 1400, 0, ip.ErrMayFragment},
		{"later fragment", bend(v4(ip.UDP, nil), 7, 1), "10.1.0.1", 1400, 0, ip.ErrNoReply},
		{"an ICMP error", v4(ip.ICMP, []byte{3, 4, 0, 0}), "10.1.0.1", 1400, 0, ip.ErrNoReply},
		{"an ICMPv6 error", v6(ip.ICMPv6, []byte{2, 0, 0, 0}), "2001:db8::ff", 1400, 0, ip.ErrNoReply},
		{"empty ICMP", v4(ip.ICMP, nil), "10.1.0.1", 1400, 0, ip.ErrNoReply},
		{"to a multicast address", bend(v4(ip.UDP, nil), 16, 224), "10.1.0.1", 1400, 0, ip.ErrNoReply},
		{"to the broadcast address", bend(v4(ip.UDP, nil), 16, 255), "10.1.0.1", 1400, 0, ip.ErrNoReply},
		{"from a loopback address", bend(v4(ip.UDP, nil), 12, 127), "10.1.0.1", 1400, 0, ip.ErrNoReply},
		{"from a multicast address", bend(v6(ip.UDP, nil), 8, 0xff), "2001:db8::ff", 1400, 0, ip.ErrNoReply},
		{"MTU below IPv6's", big6, "2001:db8::ff", 1279, 0, ip.ErrMTU},
		{"MTU below IPv4's", big4, "10.1.0.1", 67, 0, ip.ErrMTU},
		{"MTU beyond its field", big4, "10.1.0.1", 65536, 0, ip.ErrMTU},
		{"source of another version", big4, "2001:db8::ff", 1400, 0, ip.ErrFamily},
		{"source of another version, IPv6", big6, "10.1.0.1", 1400, 0, ip.ErrFamily},
	}
	var good [][]byte
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := ip.Parse(tt.in)
			if err != nil {
				t.Fatal(err)
			}
			reply, err := ip.AppendTooBig(nil, addr(tt.src), p, tt.mtu)
			if !errors.Is(err, tt.err) {
				t.Fatalf("err = %v, want %v", err, tt.err)
			}
			if err != nil {
				return
			}
			good = append(good, reply)
			r, err := ip.Parse(reply)
			if err != nil || r.Len() != tt.size || r.Src() != addr(tt.src) || r.Dst() != p.Src() || !r.HeaderOK() {
				t.Fatalf("reply % x: %v", reply, err)
			}
			sum := uint64(0)
			if r.Version() == 6 {
				sum = r.PseudoSum(ip.ICMPv6, len(r.Payload()))
			}
			if ip.Checksum(ip.Sum(sum, r.Payload())) != 0 || !bytes.HasPrefix(tt.in, r.Payload()[8:]) {
				t.Errorf("reply % x", reply)
			}
			if mtu := binary.BigEndian.Uint16(r.Payload()[6:]); int(mtu) != tt.mtu {
				t.Errorf("MTU %d, want %d", mtu, tt.mtu)
			}
			if _, err := ip.AppendTooBig(nil, addr(tt.src), r, tt.mtu); !errors.Is(err, ip.ErrNoReply) {
				t.Errorf("a reply to our reply: err = %v", err)
			}
		})
	}
	const want = "3\t4\t1400\t1\t1\t\t\t\n" + "\t\t\t\t\t2\t1400\t1\n" + "3\t4\t68\t1\t1\t\t\t\n" + "3\t4\t68\t1\t1\t\t\t\n" + "\t\t\t\t\t2\t1400\t1\n"
	t.Run("tshark", func(t *testing.T) { tsharkAgrees(t, good, want) })
}

func TestProhibited(t *testing.T) {
	tests := []struct {
		name       string
		in         []byte
		src        string
		kind, code byte
		err        error
	}{
		{"IPv4", v4(ip.UDP, make([]byte, 1480)), "10.2.0.1", 3, 13, nil},
		{"without DF", bend(v4(ip.UDP, make([]byte, 10)), 6, 0), "10.2.0.1", 3, 13, nil},
		{"IPv6", v6(ip.UDP, make([]byte, 1460)), "2001:db8::ff", 1, 1, nil},
		{"later fragment", bend(v4(ip.UDP, nil), 7, 1), "10.2.0.1", 0, 0, ip.ErrNoReply},
		{"an ICMP error", v4(ip.ICMP, []byte{3, 13, 0, 0}), "10.2.0.1", 0, 0, ip.ErrNoReply},
		{"an ICMPv6 error", v6(ip.ICMPv6, []byte{1, 1, 0, 0}), "2001:db8::ff", 0, 0, ip.ErrNoReply},
		{"to the broadcast address", bend(v4(ip.UDP, nil), 16, 255), "10.2.0.1", 0, 0, ip.ErrNoReply},
		{"to a multicast address", bend(v6(ip.UDP, nil), 24, 0xff), "2001:db8::ff", 0, 0, ip.ErrNoReply},
		{"from a loopback address", bend(v4(ip.UDP, nil), 12, 127), "10.2.0.1", 0, 0, ip.ErrNoReply},
		{"source of another version", v4(ip.UDP, nil), "2001:db8::ff", 0, 0, ip.ErrFamily},
	}
	var good [][]byte
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := ip.Parse(tt.in)
			if err != nil {
				t.Fatal(err)
			}
			reply, err := ip.AppendProhibited(nil, addr(tt.src), p)
			if !errors.Is(err, tt.err) {
				t.Fatalf("err = %v, want %v", err, tt.err)
			}
			if err != nil {
				return
			}
			good = append(good, reply)
			r, err := ip.Parse(reply)
			if err != nil || r.Src() != addr(tt.src) || r.Dst() != p.Src() || !r.HeaderOK() {
				t.Fatalf("reply % x: %v", reply, err)
			}
			sum := uint64(0)
			if r.Version() == 6 {
				sum = r.PseudoSum(ip.ICMPv6, len(r.Payload()))
			}
			if b := r.Payload(); ip.Checksum(ip.Sum(sum, b)) != 0 || b[0] != tt.kind || b[1] != tt.code || !bytes.HasPrefix(tt.in, b[8:]) {
				t.Errorf("reply % x", reply)
			}
		})
	}
	const want = "3\t13\t\t1\t1\t\t\t\n" + "3\t13\t\t1\t1\t\t\t\n" + "\t\t\t\t\t1\t\t1\n"
	t.Run("tshark", func(t *testing.T) { tsharkAgrees(t, good, want) })
}

// tsharkAgrees has an independent reader verify the checksums and name the messages.
func tsharkAgrees(t *testing.T, packets [][]byte, want string) {
	t.Helper()
	tshark, err := exec.LookPath("tshark")
	if err != nil {
		const why = "needs tshark (apt install tshark)"
		if os.Getenv("TWINKEY_NO_SKIP") == "1" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	le := binary.LittleEndian
	file := le.AppendUint16(le.AppendUint16(le.AppendUint32(nil, 0xa1b2c3d4), 2), 4)
	for _, v := range []uint32{0, 0, 65535, 101} { // link type 101: raw IP
		file = le.AppendUint32(file, v)
	}
	for _, b := range packets {
		file = append(le.AppendUint32(le.AppendUint32(le.AppendUint64(file, 0), uint32(len(b))), uint32(len(b))), b...)
	}
	path := filepath.Join(t.TempDir(), "toobig.pcap")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), tshark, "-n", "-r", path, "-o", "ip.check_checksum:TRUE", "-T", "fields", "-E", "occurrence=f",
		"-e", "icmp.type", "-e", "icmp.code", "-e", "icmp.mtu", "-e", "icmp.checksum.status", "-e", "ip.checksum.status",
		"-e", "icmpv6.type", "-e", "icmpv6.mtu", "-e", "icmpv6.checksum.status").Output()
	if err != nil {
		t.Fatalf("tshark: %v", err)
	}
	if string(out) != want {
		t.Errorf("tshark reads\n%s\nwant\n%s", out, want)
	}
}

// FuzzParse: no accessor fails on what Parse accepts, no shorter input is accepted as the
// same packet, and a clamp keeps a right checksum right.
func FuzzParse(f *testing.F) {
	f.Add(syn(2, v4, 2, 4, 5, 0xb4))
	f.Add(syn(2, v6, 1, 2, 4, 5, 0xb4))
	f.Add(v6(44, []byte{17, 0, 0, 1, 0, 0, 0, 7, 1, 2, 3, 4}))
	f.Add(v6(0, []byte{51, 0, 1, 4, 0, 0, 0, 0, 6, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1}))
	f.Add(v4(ip.ICMP, []byte{8, 0, 0, 0}))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ip.Parse(b)
		if err != nil {
			return
		}
		for n := range p.Len() {
			if _, err := ip.Parse(b[:n]); err == nil {
				t.Fatalf("%d of %d bytes parse", n, p.Len())
			}
		}
		_, _, _ = p.Tuple(), p.HeaderOK(), p.Fragment()
		for _, src := range []string{"10.0.0.1", "2001:db8::9"} {
			if reply, err := ip.AppendTooBig(nil, addr(src), p, 1400); err == nil {
				if _, err := ip.Parse(reply); err != nil || len(reply) > 1280 {
					t.Fatalf("reply % x: %v", reply, err)
				}
			}
		}
		before, ok := slices.Clone(p.Bytes()), tcpOK(b)
		if !ip.ClampMSS(p, 1400) && !bytes.Equal(before, p.Bytes()) {
			t.Fatal("changed in secret")
		}
		if p.Protocol() == ip.TCP && ok != tcpOK(b) {
			t.Fatalf("checksum was right: %v, is right: %v", ok, tcpOK(b))
		}
	})
}

func TestHotPathDoesNotAllocate(t *testing.T) {
	b, buf := syn(2, v4, 2, 4, 5, 0xb4), make([]byte, 0, 1500)
	src := addr("10.1.0.1")
	if n := testing.AllocsPerRun(100, func() {
		p, _ := ip.Parse(b)
		_ = p.Tuple()
		ip.ClampMSS(p, 1400)
		buf, _ = ip.AppendTooBig(buf[:0], src, p, 1400)
		buf, _ = ip.AppendProhibited(buf[:0], src, p)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkParseTuple(b *testing.B) {
	in := syn(0x10, v4)
	b.ReportAllocs()
	for b.Loop() {
		p, err := ip.Parse(in)
		if err != nil {
			b.Fatal(err)
		}
		_ = p.Tuple()
	}
}

func BenchmarkClampMSS(b *testing.B) {
	in := syn(2, v4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 2, 4, 5, 0xb4)
	p, _ := ip.Parse(in)
	b.ReportAllocs()
	for b.Loop() {
		ip.ClampMSS(p, 1400)
	}
}

func BenchmarkChecksum1400(b *testing.B) {
	in := make([]byte, 1400)
	b.SetBytes(1400)
	for b.Loop() {
		_ = ip.Checksum(ip.Sum(0, in))
	}
}
