package ppp_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"twinkey/proto/ppp"
	"twinkey/proto/wire"
)

func TestEveryFormOfAFrame(t *testing.T) {
	for _, p := range []ppp.Protocol{ppp.ProtoIPv4, ppp.ProtoIPv6, ppp.ProtoIPCP, ppp.ProtoIPv6CP, ppp.ProtoLCP, ppp.ProtoCHAP, 0x00ff, 0x8020} {
		for _, acfc := range []bool{false, true} {
			for _, pfc := range []bool{false, true} {
				for _, info := range [][]byte{{}, {0x45}, {0x03, 0xff}, {0xff, 0x03}} {
					frame := ppp.AppendFrame(nil, p, acfc, pfc, info)
					got, rest, err := ppp.ParseFrame(frame)
					if err != nil || got != p || !bytes.Equal(rest, info) {
						t.Errorf("%v acfc=%v pfc=%v % x: got %v % x, %v", p, acfc, pfc, frame, got, rest, err)
					}
				}
			}
		}
	}
}

func TestHeaderForms(t *testing.T) {
	tests := []struct {
		proto     ppp.Protocol
		acfc, pfc bool
		want      string
	}{
		{ppp.ProtoIPv4, false, false, "ff030021"},
		{ppp.ProtoIPv4, false, true, "ff0321"},
		{ppp.ProtoIPv4, true, false, "0021"},
		{ppp.ProtoIPv4, true, true, "21"},
		{ppp.ProtoIPv6, true, true, "57"},
		{ppp.ProtoIPCP, true, true, "8021"},
		{ppp.ProtoLCP, true, true, "ff03c021"}, // never compressed
		{0x00ff, true, true, "00ff"},           // reserved: would read as an Address
	}
	for _, tt := range tests {
		if got := hex.EncodeToString(ppp.AppendHeader(nil, tt.proto, tt.acfc, tt.pfc)); got != tt.want {
			t.Errorf("%v acfc=%v pfc=%v: %s, want %s", tt.proto, tt.acfc, tt.pfc, got, tt.want)
		}
	}
	for _, b := range [][]byte{nil, {0xff, 0x03}, {0xff, 0x03, 0xc0}, {0xc0}} {
		if _, _, err := ppp.ParseFrame(b); !errors.Is(err, wire.ErrTruncated) {
			t.Errorf("% x: err = %v", b, err)
		}
	}
}

func TestParsePacket(t *testing.T) {
	tests := []struct {
		name, in string
		want     string // parsed and appended again
		err      error
	}{
		{"empty Data", "0101 0004", "01010004", nil},
		{"Data", "0902 0008 00000000", "0902000800000000", nil},
		{"padding is ignored", "0902 0008 00000000 ffff", "0902000800000000", nil},
		{"no Length", "0902 00", "", wire.ErrTruncated},
		{"Length 0", "0902 0000", "", wire.ErrLength},
		{"Length 3", "0902 0003", "", wire.ErrLength},
		{"Length beyond the frame", "0902 0009 00000000", "", wire.ErrTruncated},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := ppp.ParsePacket(unhex(t, tt.in))
			if !errors.Is(err, tt.err) {
				t.Fatalf("err = %v, want %v", err, tt.err)
			}
			if err == nil {
				if got := hex.EncodeToString(p.Append(nil)); got != tt.want {
					t.Errorf("appends as %s, want %s", got, tt.want)
				}
			}
		})
	}
}

func TestParseOptions(t *testing.T) {
	tests := []struct {
		name   string
		proto  ppp.Protocol
		in     string
		err    error
		field  string
		offset int
	}{
		{"none", ppp.ProtoLCP, "", nil, "", 0},
		{"a Windows offer", ppp.ProtoLCP, "01040578 0506 11223344 0702 0802 0d0306 1104064e 1303 00", nil, "", 0},
		{"a type alone", ppp.ProtoLCP, "01040578 05", wire.ErrTruncated, "Option Length", 5},
		{"length 0", ppp.ProtoLCP, "0100", wire.ErrLength, "Option Data", 2},
		{"length 1", ppp.ProtoIPCP, "0301", wire.ErrLength, "Option Data", 2},
		{"length beyond the list", ppp.ProtoIPCP, "0307 0a000001", wire.ErrTruncated, "Option Data", 2},
		{"short MRU", ppp.ProtoLCP, "0702 0103 05", wire.ErrLength, "Maximum-Receive-Unit", 2},
		{"long magic", ppp.ProtoLCP, "0507 1122334455", wire.ErrLength, "Magic-Number", 0},
		{"PFC with a value", ppp.ProtoLCP, "0703 00", wire.ErrLength, "Protocol-Field-Compression", 0},
		{"IPv4 address of 16 bytes", ppp.ProtoIPCP, "0312 00000000000000000000000000000000", wire.ErrLength, "IP-Address", 0},
		{"interface identifier of 4", ppp.ProtoIPv6CP, "0106 00000001", wire.ErrLength, "Interface-Identifier", 0},
		{"a type nobody knows may be of any length", ppp.ProtoIPv6CP, "6302", nil, "", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			list, err := ppp.ParseOptions(tt.proto, unhex(t, tt.in))
			if !errors.Is(err, tt.err) {
				t.Fatalf("err = %v, want %v", err, tt.err)
			}
			if pe, ok := errors.AsType[*wire.ParseError](err); ok && (pe.Field != tt.field || pe.Offset != tt.offset) {
				t.Errorf("%v, want field %s at %d", pe, tt.field, tt.offset)
			}
			var again []byte
			for o := range list.All() {
				again = o.Append(again)
			}
			if err == nil && !bytes.Equal(again, unhex(t, tt.in)) {
				t.Errorf("appends as % x", again)
			}
		})
	}
}

func TestTypedOptions(t *testing.T) {
	lcp := ppp.AppendUint32(ppp.AppendUint16(nil, ppp.OptMRU, 1400), ppp.OptMagic, 0x01020304)
	list, err := ppp.ParseOptions(ppp.ProtoLCP, lcp)
	if err != nil {
		t.Fatal(err)
	}
	for o := range list.All() {
		if o.Type == ppp.OptMRU && o.Uint16() != 1400 || o.Type == ppp.OptMagic && o.Uint32() != 0x01020304 {
			t.Errorf("option %v", o)
		}
	}
	wrong := ppp.Option{Data: []byte{1}}
	if wrong.Uint16() != 0 || wrong.Uint32() != 0 || wrong.IPv4().IsValid() || wrong.InterfaceID() != [8]byte{} {
		t.Error("a value of another length must read as nothing")
	}
	if got := ppp.OptionName(ppp.ProtoLCP, ppp.OptACFC); got != "Address-and-Control-Field-Compression" {
		t.Error(got)
	}
	if got := ppp.OptionName(ppp.ProtoLCP, 99); got != "LCP option 99" {
		t.Error(got)
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(string(bytes.ReplaceAll([]byte(s), []byte(" "), nil)))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func FuzzFrame(f *testing.F) {
	for _, s := range []string{"ff03c021", "21", "0021", "ff0321", "c021", "ff", "ffff"} {
		b, _ := hex.DecodeString(s)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, info, err := ppp.ParseFrame(b)
		if err != nil {
			return
		}
		for form := range 4 {
			frame := ppp.AppendFrame(nil, p, form&1 != 0, form&2 != 0, info)
			q, again, err := ppp.ParseFrame(frame)
			if err != nil || q != p || !bytes.Equal(again, info) {
				t.Fatalf("% x: %v % x became %v % x (%v)", b, p, info, q, again, err)
			}
		}
	})
}

func FuzzPacket(f *testing.F) {
	f.Add([]byte{1, 1, 0, 4})
	f.Add([]byte{9, 2, 0, 8, 0, 0, 0, 0, 9})
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ppp.ParsePacket(b)
		if err != nil {
			return
		}
		out := p.Append(nil)
		if !bytes.Equal(out, b[:len(out)]) {
			t.Fatalf("% x appends as % x", b, out)
		}
		for n := range out {
			if _, err := ppp.ParsePacket(out[:n]); err == nil {
				t.Fatalf("prefix of %d of % x parses", n, out)
			}
		}
		_, _, _ = p.Magic()
		_, _, _ = p.Rejected()
	})
}

func FuzzOptions(f *testing.F) {
	f.Add(uint16(ppp.ProtoLCP), []byte{1, 4, 5, 0xdc, 5, 6, 1, 2, 3, 4, 7, 2, 8, 2})
	f.Add(uint16(ppp.ProtoIPCP), []byte{3, 6, 10, 0, 0, 1})
	f.Add(uint16(ppp.ProtoIPv6CP), []byte{1, 10, 0, 0, 0, 0, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, proto uint16, b []byte) {
		list, err := ppp.ParseOptions(ppp.Protocol(proto), b)
		if err != nil {
			return
		}
		var again []byte
		ends := map[int]bool{0: true}
		for o := range list.All() {
			again = o.Append(again)
			ends[len(again)] = true
			_, _, _, _ = o.Uint16(), o.Uint32(), o.IPv4(), o.InterfaceID()
		}
		if !bytes.Equal(again, b) {
			t.Fatalf("% x appends as % x", b, again)
		}
		for n := range b {
			if _, err := ppp.ParseOptions(ppp.Protocol(proto), b[:n]); (err == nil) != ends[n] {
				t.Fatalf("prefix of %d of % x: %v", n, b, err)
			}
		}
	})
}

func TestCodecsDoNotAllocate(t *testing.T) {
	frame := ppp.AppendFrame(nil, ppp.ProtoLCP, false, false, ppp.Packet{Code: ppp.ConfigureRequest, Data: []byte{1, 4, 5, 0xdc, 5, 6, 1, 2, 3, 4}}.Append(nil))
	buf := make([]byte, 0, 64)
	if n := testing.AllocsPerRun(100, func() {
		proto, info, _ := ppp.ParseFrame(frame)
		p, _ := ppp.ParsePacket(info)
		list, _ := ppp.ParseOptions(proto, p.Data)
		for o := range list.All() {
			buf = o.Append(buf[:0])
		}
		buf = ppp.AppendHeader(buf[:0], proto, true, true)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
