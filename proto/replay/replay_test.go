package replay_test

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"twinkey/proto/replay"
)

// script drives one window and says what it wants of it.
type script struct {
	*testing.T
	w replay.Window
}

func newScript(t *testing.T) *script { return &script{T: t} }

// accepts marks each number and expects it to be new, once.
func (s *script) accepts(seqs ...uint64) *script {
	s.Helper()
	for _, seq := range seqs {
		if !s.w.Fresh(seq) || !s.w.Mark(seq) {
			s.Errorf("%d is refused, top %d", seq, s.w.Top())
		}
		if s.w.Fresh(seq) || s.w.Mark(seq) {
			s.Errorf("%d is accepted twice, top %d", seq, s.w.Top())
		}
	}
	return s
}

func (s *script) refuses(seqs ...uint64) *script {
	s.Helper()
	for _, seq := range seqs {
		if s.w.Fresh(seq) || s.w.Mark(seq) {
			s.Errorf("%d is accepted, top %d", seq, s.w.Top())
		}
	}
	return s
}

// infers expects the low half of seq to be taken for seq.
func (s *script) infers(seqs ...uint64) *script {
	s.Helper()
	for _, seq := range seqs {
		if got := s.w.Infer(uint32(seq)); got != seq {
			s.Errorf("low half %#x inferred as %#x, want %#x, top %#x", uint32(seq), got, seq, s.w.Top())
		}
	}
	return s
}

func TestWindow(t *testing.T) {
	const size = replay.Size
	if size < 2048 {
		t.Errorf("the window has %d numbers", size)
	}
	t.Run("starts with 1", func(t *testing.T) { newScript(t).refuses(0).accepts(1, 2, 3).refuses(0, 1, 2, 3) })
	t.Run("in any order", func(t *testing.T) { newScript(t).accepts(9, 3, 7, 1, 8, 2).refuses(3, 9) })
	t.Run("as wide as it says", func(t *testing.T) {
		newScript(t).accepts(size+10).accepts(11, 12).refuses(10, 9, 1).accepts(size+11).refuses(11, 12).accepts(13)
	})
	t.Run("jump by a whole ring", func(t *testing.T) {
		newScript(t).accepts(5, 5+16*256).accepts(6+16*256).refuses(5, 6)
	})
	t.Run("far future", func(t *testing.T) {
		newScript(t).accepts(1, 1<<40).refuses(1, 2, 1<<40-size).accepts(1<<40-size+1, 1<<40-1, 1<<40+1)
	})
	t.Run("end of the number space", func(t *testing.T) {
		newScript(t).accepts(replay.Last).refuses(0, 1, replay.Last-size, replay.Last+1, math.MaxUint64).accepts(replay.Last - size + 1)
	})
	t.Run("failed checks leave no trace", func(t *testing.T) {
		s := newScript(t).accepts(10)
		s.w.Fresh(1 << 50) // a forger asks
		s.w.Infer(1 << 31)
		s.accepts(9, 11)
	})
}

// RFC 4303 appendix A2.2.
func TestInferHighHalf(t *testing.T) {
	const size = replay.Size
	t.Run("before the first wrap the high half is 0", func(t *testing.T) {
		newScript(t).infers(0, 1, 2, math.MaxUint32).accepts(1).infers(2, math.MaxUint32)
	})
	t.Run("case A: window in one subspace", func(t *testing.T) {
		const top = 5<<32 + 1<<20
		newScript(t).accepts(top).infers(top, top+1, top-size+1, top+1<<31, 6<<32, top-size+1<<32)
	})
	t.Run("case B: window spans two subspaces", func(t *testing.T) {
		const top = 5<<32 + 100
		newScript(t).accepts(top).infers(top, top+1, 5<<32, 5<<32-1, top-size+1, top-size+1<<32)
	})
	t.Run("at the corner", func(t *testing.T) {
		const top = 5<<32 + size - 1 // the window begins with the subspace
		newScript(t).accepts(top).infers(5<<32, 6<<32-1)
		newScript(t).accepts(top-1).infers(5<<32-1, 6<<32-2)
	})
	t.Run("at the end the number runs out rather than around", func(t *testing.T) {
		s := newScript(t).accepts(replay.Last)
		s.infers(replay.Last, replay.Last-size+1).refuses(s.w.Infer(5))
	})
}

// A stream with loss and reordering crosses 2^32 with only the low half on the wire.
func TestStreamAcrossTheWrap(t *testing.T) {
	const start, count = 1<<32 - 5000, 10000
	var w replay.Window
	w.Mark(start - 1)
	r := rand.New(rand.NewPCG(1, 2))
	order := make([]uint64, 0, count)
	for seq := uint64(start); seq < start+count; seq++ {
		if r.IntN(10) > 0 {
			order = append(order, seq)
		}
	}
	for block := range slices.Chunk(order, 500) { // reordered within a fraction of the window
		r.Shuffle(len(block), func(i, j int) { block[i], block[j] = block[j], block[i] })
	}
	for _, seq := range order {
		got := w.Infer(uint32(seq))
		if got != seq || !w.Fresh(got) || !w.Mark(got) {
			t.Fatalf("%#x inferred as %#x with top %#x", seq, got, w.Top())
		}
	}
	for _, seq := range order {
		if got := w.Infer(uint32(seq)); got == seq && w.Mark(got) {
			t.Fatalf("%#x accepted again", seq)
		}
	}
}

// Whatever the interleaving, no number is accepted twice, and within the window none is lost.
func TestConcurrentMark(t *testing.T) {
	const workers, count = 8, replay.Size / 2
	for round := range uint64(20) {
		var w replay.Window
		base := round * 1e9
		var accepted [count]atomic.Int32
		var wg sync.WaitGroup
		for g := range workers {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(round, uint64(g)))
				for _, i := range r.Perm(count) {
					if w.Mark(base + 1 + uint64(i)) {
						accepted[i].Add(1)
					}
				}
			})
		}
		wg.Wait()
		for i := range accepted {
			if n := accepted[i].Load(); n != 1 {
				t.Fatalf("round %d: number %d was accepted %d times", round, i+1, n)
			}
		}
	}
}

// naive is the window as RFC 4303 section 3.4.3 tells it: a set and a right edge.
type naive struct {
	top  uint64
	seen map[uint64]bool
}

func (n *naive) mark(seq uint64) bool {
	if seq == 0 || seq > replay.Last || n.seen[seq] || seq < n.top && n.top-seq >= replay.Size {
		return false
	}
	n.seen[seq] = true
	n.top = max(n.top, seq)
	return true
}

// infer takes the first number with that low half that is not left of the window, 0 if there is none any more.
func (n *naive) infer(low uint32) uint64 {
	bottom := uint64(0)
	if n.top >= replay.Size-1 {
		bottom = n.top - (replay.Size - 1)
	}
	for high := bottom >> 32; high <= math.MaxUint32; high++ {
		if seq := high<<32 | uint64(low); seq >= bottom {
			return seq
		}
	}
	return 0
}

// FuzzWindow plays numbers near, around and far from the right edge to the window and to the naive model.
func FuzzWindow(f *testing.F) {
	f.Add([]byte{0, 0, 1, 0, 0, 1, 1, 0xF, 0xF8, 2, 0xFF, 0xFF, 3, 1, 0})
	f.Add([]byte{2, 0, 1, 1, 0, 1, 1, 0x0F, 0xF7, 1, 0x0F, 0xF8, 1, 0x10, 0})
	f.Add([]byte{4, 0, 0, 3, 0, 1, 3, 255, 255, 0, 0, 1}) // the last number there is
	f.Add([]byte{4, 255, 255, 0, 0, 1, 1, 0, 1, 0, 0, 2})
	f.Fuzz(func(t *testing.T, ops []byte) {
		var w replay.Window
		n := naive{seen: map[uint64]bool{}}
		for ; len(ops) >= 3; ops = ops[3:] {
			arg := uint64(binary.BigEndian.Uint16(ops[1:]))
			seq := arg
			switch ops[0] % 5 {
			case 0:
				seq = n.top + arg%16
			case 1:
				seq = n.top - min(n.top, arg)
			case 2:
				seq = min(n.top, 1<<58) + arg<<16
			case 3:
				seq = n.infer(uint32(arg) << 16)
			case 4:
				seq = arg<<44 - 1
			}
			low := uint32(seq)
			if got, want := w.Infer(low), n.infer(low); got != want && (want != 0 || w.Fresh(got)) {
				t.Fatalf("low half %#x, top %#x: inferred %#x, want %#x", low, n.top, got, want)
			}
			fresh := w.Fresh(seq)
			got, want := w.Mark(seq), n.mark(seq)
			if got != want || fresh != want || w.Top() != n.top {
				t.Fatalf("%#x: fresh %v, marked %v, want %v; top %#x, want %#x", seq, fresh, got, want, w.Top(), n.top)
			}
		}
	})
}

func TestNoAllocation(t *testing.T) {
	var w replay.Window
	if n := testing.AllocsPerRun(1000, func() {
		seq := w.Infer(uint32(w.Top() + 1))
		if !w.Fresh(seq) || !w.Mark(seq) {
			t.Fatal("refused")
		}
	}); n != 0 {
		t.Errorf("%v allocations a packet", n)
	}
}

func BenchmarkFreshAndMark(b *testing.B) {
	var w replay.Window
	b.ReportAllocs()
	seq := uint64(0)
	for b.Loop() {
		seq++
		if got := w.Infer(uint32(seq)); !w.Fresh(got) || !w.Mark(got) {
			b.Fatal("refused")
		}
	}
}
