package l2tp_test

import (
	"bytes"
	"testing"

	"twinkey/proto/l2tp"
)

// What parses appends back and parses the same, and no prefix of it parses. What was
// passed over is not appended back, so the property is that of what was kept.
func FuzzMessage(f *testing.F) {
	for typ, avps := range every() {
		f.Add(encode(typ, avps...), "secret")
	}
	hidden, err := l2tp.Hide(zeros{}, key("secret"), l2tp.Text(l2tp.AVPCalledNumber, "5551212"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(encode(l2tp.ICRQ, hidden...), "secret")
	f.Add(l2tp.AppendZLB(nil, l2tp.ControlHeader{TunnelID: 1}), "")
	f.Add(l2tp.AppendMessage(nil, l2tp.ControlHeader{}, l2tp.VendorTwinkey, 1, l2tp.AVP{Vendor: l2tp.VendorTwinkey, Type: 1, Mandatory: true}), "")
	f.Fuzz(func(t *testing.T, msg []byte, s string) {
		before := bytes.Clone(msg)
		m, err := l2tp.ParseMessage(msg)
		if err == nil {
			roundTrip(t, m)
			for n := range min(len(msg), 64) {
				if _, err := l2tp.ParseMessage(msg[:n]); err == nil {
					t.Fatalf("the first %d bytes of %x parse", n, msg)
				}
			}
			if m.Unhide(key(s)) == nil {
				_ = m.Missing()
				roundTrip(t, m)
			}
			_, _ = m.CallErrors()
			_, _ = m.ACCM()
			_, _ = m.Q931Cause()
			_ = m.Result()
		}
		if !bytes.Equal(msg, before) {
			t.Fatal("parsing wrote to its input")
		}
	})
}

func roundTrip(t *testing.T, m *l2tp.Message) {
	t.Helper()
	b := again(m)
	if len(b) > l2tp.MaxMessage { // what was revealed is never longer than what was hidden
		t.Fatalf("%d bytes", len(b))
	}
	n, err := l2tp.ParseMessage(b)
	if err != nil {
		t.Fatalf("%x does not parse: %v", b, err)
	}
	if c := again(n); !bytes.Equal(b, c) || n.Ignored != 0 || len(n.AVPs) != len(m.AVPs) {
		t.Fatalf("appends back as\n%x, then as\n%x", b, c)
	}
}

func FuzzData(f *testing.F) {
	for _, h := range forms() {
		f.Add(l2tp.AppendData(nil, h, []byte("payload")))
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		h, p, err := l2tp.ParseData(msg)
		if err != nil {
			return
		}
		b := l2tp.AppendData(nil, h, p)
		h2, p2, err := l2tp.ParseData(b)
		if err != nil || h2 != h || !bytes.Equal(p, p2) {
			t.Fatalf("%+v % x appends back as %+v % x, %v", h, p, h2, p2, err)
		}
		for n := range min(h.Len(), 64) {
			if _, _, err := l2tp.ParseData(b[:n]); err == nil {
				t.Fatalf("the first %d bytes of %x parse", n, b)
			}
		}
	})
}
