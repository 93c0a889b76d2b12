package l2tp_test

import (
	"testing"

	"twinkey/proto/l2tp"
)

// Each benchmark writes one message and reads it.

func BenchmarkZLB(b *testing.B) {
	b.ReportAllocs()
	var m l2tp.Message
	buf := make([]byte, 0, l2tp.MaxMessage)
	for b.Loop() {
		if err := zlb(&m, buf); err != nil {
			b.Fatal(err)
		}
	}
}

func zlb(m *l2tp.Message, buf []byte) error {
	return m.Parse(l2tp.AppendZLB(buf, l2tp.ControlHeader{TunnelID: 7, Ns: 3, Nr: 4}))
}

func BenchmarkHello(b *testing.B) {
	b.ReportAllocs()
	var m l2tp.Message
	buf := make([]byte, 0, l2tp.MaxMessage)
	for b.Loop() {
		if err := hello(&m, buf); err != nil {
			b.Fatal(err)
		}
	}
}

func hello(m *l2tp.Message, buf []byte) error {
	return m.Parse(l2tp.AppendMessage(buf, l2tp.ControlHeader{TunnelID: 7, Ns: 3, Nr: 4}, 0, l2tp.HELLO))
}

func benchmark(b *testing.B, typ l2tp.MessageType) {
	b.ReportAllocs()
	var m l2tp.Message
	buf := make([]byte, 0, l2tp.MaxMessage)
	avps := every()[typ]
	for b.Loop() {
		if err := m.Parse(l2tp.AppendMessage(buf, l2tp.ControlHeader{TunnelID: 7, Ns: 3, Nr: 4}, 0, typ, avps...)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSCCRQ(b *testing.B)   { benchmark(b, l2tp.SCCRQ) }
func BenchmarkSCCRP(b *testing.B)   { benchmark(b, l2tp.SCCRP) }
func BenchmarkSCCCN(b *testing.B)   { benchmark(b, l2tp.SCCCN) }
func BenchmarkICRQ(b *testing.B)    { benchmark(b, l2tp.ICRQ) }
func BenchmarkICRP(b *testing.B)    { benchmark(b, l2tp.ICRP) }
func BenchmarkICCN(b *testing.B)    { benchmark(b, l2tp.ICCN) }
func BenchmarkCDN(b *testing.B)     { benchmark(b, l2tp.CDN) }
func BenchmarkStopCCN(b *testing.B) { benchmark(b, l2tp.StopCCN) }

func BenchmarkData(b *testing.B) {
	b.ReportAllocs()
	buf := make([]byte, 1500)
	for b.Loop() {
		l2tp.AppendMinimal(buf[:0], 7, 9)
		if _, _, err := l2tp.ParseData(buf); err != nil {
			b.Fatal(err)
		}
	}
}

func TestNoAllocations(t *testing.T) {
	var m l2tp.Message
	buf := make([]byte, 0, l2tp.MaxMessage)
	avps, data := every()[l2tp.SCCRQ], l2tp.AppendData(nil, l2tp.DataHeader{HasLength: true, Sequenced: true}, make([]byte, 1400))
	for _, tt := range []struct {
		name string
		f    func() error
	}{
		{"ZLB", func() error { return zlb(&m, buf) }},
		{"HELLO", func() error { return hello(&m, buf) }},
		{"SCCRQ", func() error {
			return m.Parse(l2tp.AppendMessage(buf, l2tp.ControlHeader{}, 0, l2tp.SCCRQ, avps...))
		}},
		{"data", func() error { _, _, err := l2tp.ParseData(data); return err }},
	} {
		if n := testing.AllocsPerRun(100, func() {
			if err := tt.f(); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", tt.name, n)
		}
	}
}
