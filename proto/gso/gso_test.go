package gso_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"twinkey/proto/gso"
	"twinkey/proto/ip"
)

// flow makes the packets of one flow as a host without offload would send them.
type flow struct {
	v6, udp bool
	options int // bytes of TCP options
	seq     uint32
	id      uint16
	port    uint16
	atomic  bool // DF
}

func (f *flow) packet(payload []byte, flags byte) []byte {
	l4 := 20
	b := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0, 10, 1, 0, 3, 10, 2, 0, 4}
	if f.atomic {
		b[6] = 0x40
	}
	if f.v6 {
		l4 = 40
		b = make([]byte, 40)
		b[0], b[6], b[7] = 0x60, 6, 64
		b[8], b[23], b[24], b[39] = 0xfd, 1, 0xfd, 2
	}
	var h []byte
	if f.udp {
		h = make([]byte, 8)
		binary.BigEndian.PutUint16(h[4:], uint16(8+len(payload)))
	} else {
		h = make([]byte, 20+f.options)
		binary.BigEndian.PutUint32(h[4:], f.seq)
		binary.BigEndian.PutUint32(h[8:], 77)
		h[12], h[13], h[15] = byte(len(h)/4)<<4, flags, 200
		for i := range f.options {
			h[20+i] = 1
		}
	}
	binary.BigEndian.PutUint16(h, 1000+f.port)
	binary.BigEndian.PutUint16(h[2:], 80)
	b = append(append(b, h...), payload...)
	if f.v6 {
		binary.BigEndian.PutUint16(b[4:], uint16(len(b)-40))
		if f.udp {
			b[6] = 17
		}
	} else {
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
		binary.BigEndian.PutUint16(b[4:], f.id)
		if f.udp {
			b[9] = 17
		}
		binary.BigEndian.PutUint16(b[10:], ip.Checksum(ip.Sum(0, b[:20])))
	}
	f.seq += uint32(len(payload))
	f.id++
	putSum(b, l4, f.udp, false)
	return b
}

// putSum writes the transport checksum, whole or the pseudo-header's part.
func putSum(b []byte, l4 int, udp, partial bool) {
	at := l4 + 16
	if udp {
		at = l4 + 6
	}
	p, err := ip.Parse(b)
	if err != nil {
		panic(err)
	}
	pseudo := p.PseudoSum(p.Protocol(), len(b)-l4)
	clear(b[at : at+2])
	if partial {
		binary.BigEndian.PutUint16(b[at:], ^ip.Checksum(pseudo))
		return
	}
	sum := ip.Checksum(ip.Sum(pseudo, b[l4:]))
	if sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(b[at:], sum)
}

func left(b []byte) []byte {
	l4, proto, _ := gso.Plain(b)
	b = bytes.Clone(b)
	putSum(b, l4, proto == ip.UDP, true)
	return b
}

func pattern(n int, seed uint64) []byte {
	rng := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// join puts packets through a Joiner as the receiving path does: each behind lead bytes
// of something, with a trailer behind it.
func join(j *gso.Joiner, pkts [][]byte, lead int, partial bool) (out []gso.Train) {
	take := func(t gso.Train, ok bool) {
		if ok {
			t.Buf = bytes.Clone(t.Buf)
			out = append(out, t)
		}
	}
	for i, p := range pkts {
		s := j.Slot(lead)
		for k := range lead {
			s[k] = 0xaa
		}
		copy(s[lead:], p)
		for k := range 18 {
			s[lead+len(p)+k] = 0xbb
		}
		if i%7 == 3 { // a forged one in between leaves no trace
			j.Drop()
			clear(j.Slot(lead)[:lead+len(p)])
			j.Drop()
			copy(j.Slot(lead)[lead:], p)
			s = s[:len(s):len(s)]
		}
		take(j.Put(s[lead:lead+len(p)], true, partial))
	}
	take(j.Flush())
	return out
}

// split takes a train apart as the sending path does: packets are used, and what lies before and behind is spoiled.
func split(t testing.TB, tr gso.Train, complete bool) (out [][]byte) {
	t.Helper()
	var s gso.Splitter
	buf := append(bytes.Clone(tr.Buf), make([]byte, 32)...)
	if err := s.Reset(tr.Header, buf, tr.At, len(tr.Buf)-tr.At, complete); err != nil {
		t.Fatal(err)
	}
	for {
		at, n, ok := s.Next()
		if !ok {
			return out
		}
		out = append(out, bytes.Clone(buf[at:at+n]))
		for i := at - 18; i < at+min(n, 20); i++ { // the prefix of a tunnel goes there, and headers are done with
			buf[i] = 0xcc
		}
	}
}

type namedFlow struct {
	name string
	flow flow
}

func flows() []namedFlow {
	return []namedFlow{
		{"TCP over IPv4", flow{options: 12, atomic: true}},
		{"TCP over IPv4 that may be fragmented", flow{options: 12, id: 0xfff0}},
		{"TCP over IPv6", flow{v6: true, options: 12, seq: 0xffffff00}},
		{"TCP without options", flow{atomic: true}},
		{"UDP over IPv4", flow{udp: true}},
		{"UDP over IPv6", flow{v6: true, udp: true}},
	}
}

// What is put together and taken apart again is what it was, checksums and all.
func TestTogetherAndApart(t *testing.T) {
	for _, f := range flows() {
		for _, size := range []int{1, 3, 13, 64, 536, 1348} {
			for _, last := range []int{size, (size + 1) / 2} {
				for _, partial := range []bool{false, true} {
					t.Run(fmt.Sprintf("%s/%d then %d/partial %v", f.name, size, last, partial), func(t *testing.T) {
						f := f.flow
						var pkts, sent [][]byte
						for i := range 40 {
							flags, n := byte(0x10), size
							if i == 39 {
								n = last
								flags = 0x18 // PSH ends a train
							}
							pkts = append(pkts, f.packet(pattern(n, uint64(i)), flags))
						}
						for _, p := range pkts {
							if partial {
								p = left(p)
							}
							sent = append(sent, p)
						}
						trains := join(gso.NewJoiner(2000), sent, 18, partial)
						if len(trains) != 1 || trains[0].Count != 40 {
							t.Fatalf("%d trains", len(trains))
						}
						if got := split(t, trains[0], true); !slices.EqualFunc(got, pkts, bytes.Equal) {
							t.Errorf("%d packets, not those that were sent", len(got))
						}
						if got := split(t, trains[0], false); len(got) != 40 || !bytes.Equal(got[7], left(pkts[7])) {
							t.Error("a checksum that is left is not the pseudo-header's")
						}
					})
				}
			}
		}
	}
}

// Everything that differs keeps packets apart, and each comes out as it went in.
func TestWhatDoesNotJoin(t *testing.T) {
	two := func(change func(f *flow, a, b []byte) [][]byte) func(flow) [][]byte {
		return func(f flow) [][]byte {
			a := f.packet(pattern(100, 1), 0x10)
			b := f.packet(pattern(100, 2), 0x10)
			return change(&f, a, b)
		}
	}
	fix := func(b []byte) []byte { // mends the sums after a change
		l4, proto, _ := gso.Plain(b)
		if b[0]>>4 == 4 {
			clear(b[10:12])
			binary.BigEndian.PutUint16(b[10:], ip.Checksum(ip.Sum(0, b[:20])))
		}
		putSum(b, l4, proto == ip.UDP, false)
		return b
	}
	tcp4 := flow{options: 12, atomic: true}
	tests := []struct {
		name string
		flow flow
		pkts func(flow) [][]byte
	}{
		{"a gap", tcp4, two(func(f *flow, a, _ []byte) [][]byte { return [][]byte{a, f.packet(pattern(100, 3), 0x10)} })},
		{"twice the same", tcp4, two(func(_ *flow, a, _ []byte) [][]byte { return [][]byte{a, a} })},
		{"a longer one behind", tcp4, func(f flow) [][]byte {
			return [][]byte{f.packet(pattern(100, 1), 0x10), f.packet(pattern(101, 2), 0x10)}
		}},
		{"an acknowledgement without data", tcp4, func(f flow) [][]byte {
			return [][]byte{f.packet(pattern(100, 1), 0x10), f.packet(nil, 0x10)}
		}},
		{"FIN", tcp4, func(f flow) [][]byte {
			return [][]byte{f.packet(pattern(100, 1), 0x10), f.packet(pattern(100, 1), 0x11)}
		}},
		{"behind PSH", tcp4, func(f flow) [][]byte {
			return [][]byte{f.packet(pattern(100, 1), 0x18), f.packet(pattern(100, 1), 0x10)}
		}},
		{"SYN", tcp4, func(f flow) [][]byte { return [][]byte{f.packet(pattern(9, 1), 2), f.packet(pattern(9, 1), 0x10)} }},
		{"another port", tcp4, two(func(_ *flow, a, b []byte) [][]byte { b[21]++; return [][]byte{a, fix(b)} })},
		{"another address", tcp4, two(func(_ *flow, a, b []byte) [][]byte { b[15]++; return [][]byte{a, fix(b)} })},
		{"another TTL", tcp4, two(func(_ *flow, a, b []byte) [][]byte { b[8]--; return [][]byte{a, fix(b)} })},
		{"another traffic class", tcp4, two(func(_ *flow, a, b []byte) [][]byte { b[1] = 4; return [][]byte{a, fix(b)} })},
		{"another window", tcp4, two(func(_ *flow, a, b []byte) [][]byte { b[34]++; return [][]byte{a, fix(b)} })},
		{"another acknowledgement", tcp4, two(func(_ *flow, a, b []byte) [][]byte { b[31]++; return [][]byte{a, fix(b)} })},
		{"other options", tcp4, two(func(_ *flow, a, b []byte) [][]byte { b[45]++; return [][]byte{a, fix(b)} })},
		{"identification that jumps, without DF", flow{options: 12}, two(func(_ *flow, a, b []byte) [][]byte { b[4]++; return [][]byte{a, fix(b)} })},
		{"a checksum that is wrong", tcp4, two(func(_ *flow, a, b []byte) [][]byte { b[36]++; return [][]byte{a, b} })},
		{"a first checksum that is wrong", tcp4, two(func(_ *flow, a, b []byte) [][]byte { a[36]++; return [][]byte{a, b} })},
		{"a payload that is damaged", flow{v6: true}, two(func(_ *flow, a, b []byte) [][]byte { b[150]++; return [][]byte{a, b} })},
		{"a fragment", tcp4, two(func(_ *flow, a, b []byte) [][]byte { b[6] |= 0x20; return [][]byte{a, b} })},
		{"IPv4 options", tcp4, two(func(_ *flow, a, b []byte) [][]byte {
			b = slices.Insert(b, 20, 1, 1, 1, 0)
			b[0] = 0x46
			return [][]byte{b, a, b}
		})},
		{"UDP without a checksum", flow{udp: true}, two(func(_ *flow, a, b []byte) [][]byte { clear(b[26:28]); return [][]byte{a, b} })},
		{"UDP with a length of its own", flow{udp: true}, two(func(_ *flow, a, b []byte) [][]byte { b[25]--; return [][]byte{a, b} })},
		{"ICMP", tcp4, two(func(_ *flow, a, b []byte) [][]byte { a[9], b[9] = 1, 1; return [][]byte{a, b} })},
	}
	for _, tt := range tests {
		for _, partial := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/%v", tt.name, partial), func(t *testing.T) {
				pkts := tt.pkts(tt.flow)
				trains := join(gso.NewJoiner(2000), pkts, 18, partial)
				if len(trains) != len(pkts) {
					t.Fatalf("%d packets made %d trains", len(pkts), len(trains))
				}
				for i, tr := range trains {
					if tr.Header != (gso.Header{}) || !bytes.Equal(tr.Buf[tr.At:], pkts[i]) {
						t.Errorf("packet %d: %+v, % x", i, tr.Header, tr.Buf[tr.At:])
					}
				}
			})
		}
	}
}

// Two flows that take turns: nothing is lost, nothing is mixed up, each stays in order.
func TestFlowsThatTakeTurns(t *testing.T) {
	a, b := flow{options: 12, atomic: true}, flow{v6: true, port: 1}
	var pkts [][]byte
	for i := range 60 {
		f := &a
		if i/3%2 == 1 {
			f = &b
		}
		pkts = append(pkts, f.packet(pattern(20, uint64(i)), 0x10))
	}
	var got [][]byte
	trains := join(gso.NewJoiner(2000), pkts, 16, false)
	for _, tr := range trains {
		got = append(got, split(t, tr, true)...)
	}
	if len(trains) != 20 || !slices.EqualFunc(got, pkts, bytes.Equal) {
		t.Errorf("%d trains, %d packets", len(trains), len(got))
	}
}

// No train is longer than an IP packet, nor has UDP more than 64 datagrams.
func TestTrainsEnd(t *testing.T) {
	for _, tt := range []struct {
		flow       flow
		size, want int
	}{{flow{options: 12, atomic: true}, 1400, 46}, {flow{v6: true}, 1000, 65}, {flow{udp: true}, 10, 64}} {
		f := tt.flow
		var pkts [][]byte
		for i := range 100 {
			pkts = append(pkts, f.packet(pattern(tt.size, uint64(i)), 0x10))
		}
		trains := join(gso.NewJoiner(2000), pkts, 0, false)
		if len(trains) < 2 || trains[0].Count != tt.want {
			t.Errorf("%d trains, first of %d", len(trains), trains[0].Count)
		}
	}
}

func TestAlone(t *testing.T) {
	f := flow{options: 12, atomic: true}
	var pkts [][]byte
	for i := range 10 {
		pkts = append(pkts, f.packet(pattern(100, uint64(i)), 0x10))
	}
	j := gso.NewJoiner(2000)
	j.Alone = true
	trains := join(j, pkts, 18, false)
	if len(trains) != 10 || trains[3].Header != (gso.Header{}) || !bytes.Equal(trains[3].Buf[trains[3].At:], pkts[3]) {
		t.Errorf("%d trains", len(trains))
	}
}

func TestPacketsFromElsewhere(t *testing.T) {
	f := flow{options: 12, atomic: true}
	a, b, c := f.packet(pattern(100, 1), 0x10), f.packet(pattern(100, 2), 0x10), f.packet(pattern(100, 3), 0x10)
	j := gso.NewJoiner(2000)
	var got [][]byte
	take := func(tr gso.Train, ok bool) {
		if ok {
			got = append(got, split(t, tr, true)...)
		}
	}
	j.Slot(10)
	take(j.Put(a, false, false)) // as one that was expanded
	copy(j.Slot(10)[10:], bytes.Repeat([]byte{9}, 500))
	take(j.Put(b, false, false))
	s := j.Slot(10)
	copy(s[4:], c) // not where it was expected
	take(j.Put(s[4:4+len(c)], false, false))
	take(j.Flush())
	if !slices.EqualFunc(got, [][]byte{a, b, c}, bytes.Equal) {
		t.Errorf("got %d packets", len(got))
	}
}

// A train that the kernel would never make is refused, whatever it says of itself.
func TestSplitterRefuses(t *testing.T) {
	f := flow{options: 12, atomic: true}
	pkt := f.packet(pattern(300, 1), 0x10)
	good := gso.Header{Kind: gso.TCP4, Partial: true, Headers: 52, Size: 100, ChecksumFrom: 20, ChecksumAt: 16}
	tests := []struct {
		name   string
		change func(h *gso.Header, p []byte) []byte
		err    error
	}{
		{"as it is", func(_ *gso.Header, p []byte) []byte { return p }, nil},
		{"no packet", func(_ *gso.Header, p []byte) []byte { return p[:19] }, gso.ErrHeader},
		{"kind 3", func(h *gso.Header, p []byte) []byte { h.Kind = 3; return p }, gso.ErrKind},
		{"IPv4 as IPv6", func(h *gso.Header, p []byte) []byte { h.Kind = gso.TCP6; return p }, gso.ErrHeader},
		{"segments of 0", func(h *gso.Header, p []byte) []byte { h.Size = 0; return p }, gso.ErrHeader},
		{"complete checksum", func(h *gso.Header, p []byte) []byte { h.Partial = false; return p }, gso.ErrHeader},
		{"transport header inside the IP header", func(h *gso.Header, p []byte) []byte { h.ChecksumFrom = 12; return p }, gso.ErrHeader},
		{"transport header behind the end", func(h *gso.Header, p []byte) []byte { h.ChecksumFrom = 340; return p }, gso.ErrHeader},
		{"TCP header of 16", func(_ *gso.Header, p []byte) []byte { p[32] = 0x40; return p }, gso.ErrHeader},
		{"TCP header behind the end", func(_ *gso.Header, p []byte) []byte { return p[:45] }, gso.ErrHeader},
		{"checksum elsewhere", func(h *gso.Header, p []byte) []byte { h.ChecksumAt = 6; return p }, gso.ErrHeader},
		{"one packet, checksum behind the end", func(h *gso.Header, p []byte) []byte { h.Kind, h.ChecksumFrom = gso.None, 400; return p }, gso.ErrHeader},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h, p := good, bytes.Clone(pkt)
			p = tt.change(&h, p)
			var s gso.Splitter
			if err := s.Reset(h, p, 0, len(p), true); err != tt.err {
				t.Errorf("err = %v, want %v", err, tt.err)
			}
		})
	}
}

func TestHeaderCodec(t *testing.T) {
	h := gso.Header{Kind: gso.UDP, Partial: true, Headers: 28, Size: 1300, ChecksumFrom: 20, ChecksumAt: 6}
	var b [gso.HeaderLen]byte
	h.Put(b[:])
	b[1] |= 0x80 // ECN
	var got gso.Header
	got.Parse(b[:])
	if got != h {
		t.Errorf("%+v", got)
	}
}

// FuzzSplit: whatever header stands in front of whatever packet, what comes out lies inside the buffer, is
// not more than went in plus headers, and ends.
func FuzzSplit(f *testing.F) {
	for _, fl := range flows() {
		p := fl.flow.packet(pattern(300, 1), 0x10)
		l4, proto, _ := gso.Plain(p)
		h := gso.Header{Kind: gso.TCP4, Partial: true, Size: 100, ChecksumFrom: uint16(l4), ChecksumAt: 16}
		switch {
		case proto == ip.UDP:
			h.Kind, h.ChecksumAt = gso.UDP, 6
		case l4 == 40:
			h.Kind = gso.TCP6
		}
		var b [gso.HeaderLen]byte
		h.Put(b[:])
		f.Add(b[:], p, true)
		f.Add(b[:], p, false)
	}
	f.Fuzz(func(t *testing.T, header, pkt []byte, complete bool) {
		if len(header) < gso.HeaderLen || len(pkt) > 0xffff {
			return
		}
		var h gso.Header
		h.Parse(header)
		buf := append(make([]byte, 20), pkt...)
		var s gso.Splitter
		if s.Reset(h, buf, 20, len(pkt), complete) != nil {
			return
		}
		payload := 0
		for i := 0; ; i++ {
			at, n, ok := s.Next()
			if !ok {
				break
			}
			if i > 0xffff || at < 20 || at+n > len(buf) {
				t.Fatalf("packet %d: %d bytes at %d", i, n, at)
			}
			payload += n
		}
		if payload < len(pkt) {
			t.Fatalf("%d bytes of %d came out", payload, len(pkt))
		}
	})
}

// FuzzJoin: any packets in any order come out again, each once, byte for byte.
func FuzzJoin(f *testing.F) {
	f.Add([]byte{0, 1, 0, 1, 2, 3, 0, 0, 4, 5, 5, 5}, uint8(18), true)
	f.Add([]byte{4, 4, 4, 4, 12, 12, 20, 20}, uint8(0), false)
	f.Fuzz(func(t *testing.T, script []byte, lead uint8, partial bool) {
		all := flows()
		var sent, want [][]byte
		for i, b := range script {
			fl := &all[int(b)%len(all)].flow
			p := fl.packet(pattern(int(b>>3)*3, uint64(i)), 0x10|b&8)
			if b == 255 {
				p[len(p)-1]++
			}
			want = append(want, bytes.Clone(p))
			if partial && b&16 != 0 && b != 255 {
				p = left(p)
			}
			sent = append(sent, p)
		}
		var got [][]byte
		for _, tr := range join(gso.NewJoiner(2000), sent, int(lead%33), partial) {
			got = append(got, split(t, tr, true)...)
		}
		if !slices.EqualFunc(got, want, bytes.Equal) {
			t.Fatalf("sent %d, got %d packets, or not the same", len(want), len(got))
		}
	})
}
