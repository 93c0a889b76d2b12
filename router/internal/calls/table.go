package calls

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"twinkey/proto/esp"
)

// Slots is how many inbound security associations a router holds at the most.
const Slots = 1 << 16

// ErrFull says that every slot is taken.
var ErrFull = errors.New("every SPI slot is taken")

// Inbound is one inbound security association. It is immutable once installed.
type Inbound struct {
	SPI uint32
	SA  *esp.Inbound
	// Call is whose data the association carries; nil: a tunnel's control messages.
	Call *Call
	// Tunnel is the local tunnel ID that the association belongs to.
	Tunnel uint16

	used atomic.Bool
}

// FirstUse is true for exactly one caller: the one that opened the first packet. A peer
// that sends on a new association has got its key, so the old one may be left.
func (in *Inbound) FirstUse() bool { return !in.used.Load() && in.used.CompareAndSwap(false, true) }

// Table finds a call by SPI or by addresses. Readers call Inbound and Routes from any
// goroutine; everything else belongs to the control loop.
type Table struct {
	slots  [Slots]atomic.Pointer[Inbound]
	routes atomic.Pointer[Routes]

	free []uint16 // slots given back, last one first
	next int      // slots below were given out at least once
}

// NewTable returns an empty table.
func NewTable() *Table {
	t := &Table{}
	t.routes.Store(&Routes{})
	return t
}

// Inbound returns the association that spi names, or nil.
func (t *Table) Inbound(spi uint32) *Inbound {
	in := t.slots[uint16(spi)].Load()
	if in == nil || in.SPI != spi {
		return nil
	}
	return in
}

// Reserve takes a slot and returns a fresh SPI for it, drawn from rand. Nothing is
// found under it until Install.
func (t *Table) Reserve(rand io.Reader) (uint32, error) {
	var gen [2]byte
	for gen == [2]byte{} { // 0 would make SPIs below 65,536, of which 0 to 255 are reserved (RFC 4303 2.1)
		if _, err := io.ReadFull(rand, gen[:]); err != nil {
			return 0, fmt.Errorf("drawing an SPI: %w", err)
		}
	}
	var slot uint16
	switch {
	case t.next < Slots: // a slot rests as long as possible before it is used again
		slot = uint16(t.next)
		t.next++
	case len(t.free) > 0:
		slot = t.free[0]
		t.free = t.free[1:]
	default:
		return 0, ErrFull
	}
	return uint32(binary.BigEndian.Uint16(gen[:]))<<16 | uint32(slot), nil
}

// Install makes in found under its SPI, which Reserve gave.
func (t *Table) Install(in *Inbound) { t.slots[uint16(in.SPI)].Store(in) }

// Release gives spi back; what was installed there is found no more.
func (t *Table) Release(spi uint32) {
	t.slots[uint16(spi)].Store(nil)
	t.free = append(t.free, uint16(spi))
}

// Routes returns the present snapshot, valid for as long as the caller likes.
func (t *Table) Routes() *Routes { return t.routes.Load() }

// SetRoutes swaps the snapshot.
func (t *Table) SetRoutes(r *Routes) { t.routes.Store(r) }
