package replay

import "sync/atomic"

const (
	perBlock = 16  // sequence numbers a word
	blocks   = 256 // words in the ring, 2 KiB

	// Size is the width of the window in sequence numbers: the newest number marked and
	// the Size-1 before it can be told apart. One block less than the ring holds, since
	// the newest block may have just begun (RFC 6479 section 2).
	Size = (blocks - 1) * perBlock

	// Last is the largest number that a window takes: the one whose age fills its bits.
	Last = 1<<(64-perBlock)*blocks*perBlock - 1
)

// Window remembers which of the last Size sequence numbers were seen. The zero value is
// ready; number 0 is never fresh (RFC 4303 section 3.3.3: the first packet carries 1).
// It must not be copied after first use and is safe for concurrent use.
type Window struct {
	top  atomic.Uint64 // highest number marked
	ring [blocks]atomic.Uint64
}

// Top is the highest number marked so far, 0 before the first.
func (w *Window) Top() uint64 { return w.top.Load() }

// Infer returns the full sequence number of a packet that carries the low half: the
// smallest that is not left of the window (RFC 4303 appendix A2.2, both cases at once).
// While the window still reaches back before number 0, the high half is 0.
func (w *Window) Infer(low uint32) uint64 {
	top := w.top.Load()
	if top < Size-1 {
		return uint64(low)
	}
	bottom := top - (Size - 1)
	return bottom + uint64(low-uint32(bottom)) // the difference is meant modulo 2^32
}

// Fresh reports whether seq is in or right of the window and not marked. It is asked
// before the integrity check and promises nothing: only Mark decides.
func (w *Window) Fresh(seq uint64) bool {
	if seq == 0 || seq > Last || w.late(seq) {
		return false
	}
	slot, age, bit := place(seq)
	return unseen(w.ring[slot].Load(), age, bit)
}

// Mark records seq, whose packet has passed the integrity check, and reports whether this
// call was the first to do so. On false the packet is a replay or came too late.
func (w *Window) Mark(seq uint64) bool {
	if seq == 0 || seq > Last || w.late(seq) {
		return false
	}
	slot, age, bit := place(seq)
	for {
		old := w.ring[slot].Load()
		if !unseen(old, age, bit) {
			return false
		}
		marked := old | bit
		if old>>perBlock < age {
			marked = age<<perBlock | bit
		}
		if w.ring[slot].CompareAndSwap(old, marked) {
			break
		}
	}
	for {
		top := w.top.Load()
		if seq <= top || w.top.CompareAndSwap(top, seq) {
			return true
		}
	}
}

// late reports whether seq lies left of the window.
func (w *Window) late(seq uint64) bool {
	top := w.top.Load()
	return seq < top && top-seq >= Size
}

// place finds the word of seq, the age that the word must have, and the bit in it.
func place(seq uint64) (slot, age, bit uint64) {
	block := seq / perBlock
	return block % blocks, block / blocks, 1 << (seq % perBlock)
}

// unseen reports whether word has not recorded bit of the block of that age.
func unseen(word, age, bit uint64) bool {
	have := word >> perBlock
	return have < age || have == age && word&bit == 0
}
