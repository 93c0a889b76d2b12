package l2tp_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"twinkey/proto/l2tp"
	"twinkey/proto/wire"
)

// forms are the 16 forms of the data header: length, sequence, offset, priority or not.
func forms() []l2tp.DataHeader {
	var all []l2tp.DataHeader
	for i := range 16 {
		h := l2tp.DataHeader{TunnelID: 7, SessionID: 9, HasLength: i&1 != 0, Priority: i&8 != 0}
		if i&2 != 0 {
			h.Sequenced, h.Ns, h.Nr = true, 0x0102, 0
		}
		if i&4 != 0 {
			h.HasOffset, h.OffsetSize = true, uint16(i)
		}
		all = append(all, h)
	}
	return all
}

func TestDataHeaderInAllItsForms(t *testing.T) {
	payload := []byte{0xff, 0x03, 0xc0, 0x21}
	for _, want := range forms() {
		msg := l2tp.AppendData(nil, want, payload)
		got, p, err := l2tp.ParseData(msg)
		if err != nil || got != want || !bytes.Equal(p, payload) {
			t.Errorf("%+v reads as %+v, % x, %v", want, got, p, err)
		}
		if len(msg) != want.Len()+len(payload) {
			t.Errorf("%+v: Len() = %d, message of %d", want, want.Len(), len(msg))
		}
		for n := range want.Len() { // no part of a header is one
			if _, _, err := l2tp.ParseData(msg[:n]); err == nil {
				t.Errorf("%+v: the first %d bytes parse", want, n)
			}
		}
		if _, p, err := l2tp.ParseData(append(msg, 0)); want.HasLength && (err != nil || len(p) != len(payload)) {
			t.Errorf("%+v: padding behind Length: % x, %v", want, p, err)
		}
	}
	if min := l2tp.AppendMinimal(nil, 7, 9); hex.EncodeToString(min) != "000200070009" || !bytes.Equal(min, l2tp.AppendData(nil, forms()[0], nil)) {
		t.Errorf("minimal header % x", min)
	}
}

func TestBadData(t *testing.T) {
	for _, tt := range []struct{ name, hex string }{
		{"control message", "c80200080000000000000000"},
		{"L2F", "000100070009"},
		{"Length beyond the datagram", "4002 0009 0007 0009"},
		{"Length inside the header", "4002 0007 0007 0009"},
		{"Offset beyond the datagram", "0202 0007 0009 0001"},
		{"Offset beyond Length", "4202 000a 0007 0009 0001 00"},
		{"Offset of 65,535", "0202 0007 0009 ffff 00"},
		{"empty", ""},
	} {
		b, err := hex.DecodeString(string(bytes.ReplaceAll([]byte(tt.hex), []byte(" "), nil)))
		if err != nil {
			t.Fatal(err)
		}
		_, p, err := l2tp.ParseData(b)
		if _, ok := errors.AsType[*wire.ParseError](err); !ok || p != nil {
			t.Errorf("%s: payload % x, err = %v", tt.name, p, err)
		}
	}
}

// Length is optional, and cannot say 65,536.
func TestLengthIsLeftOutWhereItDoesNotFit(t *testing.T) {
	big := make([]byte, 65_528)
	_, p, err := l2tp.ParseData(l2tp.AppendData(nil, l2tp.DataHeader{HasLength: true}, big))
	if err != nil || len(p) != len(big) {
		t.Errorf("%d bytes, %v", len(p), err)
	}
}
