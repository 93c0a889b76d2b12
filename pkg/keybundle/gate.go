package keybundle

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync/atomic"

	"golang.org/x/sync/semaphore"
)

// ErrBusy says that more logins wait for their turn than may.
var ErrBusy = errors.New("too many logins at once")

const (
	// gateMemory is what derivations for each core may take together, KiB: one of the usual cost.
	gateMemory = 64 << 10
	// gateQueue is how many logins may wait. At a tenth of a second each it is what people still wait for.
	gateQueue = 64
)

// Gate bounds the memory and the cores that Argon2id takes: a derivation is made to cost 64 MiB, and somebody who tries
// passwords at a hundred connections must not take a router's for packets, nor the CA's for anything else. Use NewGate.
type Gate struct {
	room    *semaphore.Weighted // KiB
	size    int64
	waiting atomic.Int64
	here    atomic.Int64 // who derives or waits
	garbage atomic.Int64 // KiB that derivations have left since they were collected
	derive  func([]byte, Params) (Proof, error)
}

// NewGate lets one derivation of the usual cost go on for each core.
func NewGate() *Gate {
	size := int64(runtime.NumCPU()) * gateMemory
	return &Gate{room: semaphore.NewWeighted(size), size: size, derive: Derive}
}

// Derive is Derive when its turn has come. Besides that one's errors there are ErrBusy, and ctx's.
func (g *Gate) Derive(ctx context.Context, password []byte, p Params) (Proof, error) {
	if err := p.Check(); err != nil {
		return Proof{}, err
	}
	g.here.Add(1)
	weight := min(int64(p.MemoryKiB), g.size) // one that is dearer than all of the room has it to itself
	if !g.room.TryAcquire(weight) {
		if g.waiting.Add(1) > gateQueue {
			g.waiting.Add(-1)
			g.here.Add(-1)
			return Proof{}, ErrBusy
		}
		err := g.room.Acquire(ctx, weight)
		g.waiting.Add(-1)
		if err != nil {
			g.here.Add(-1)
			return Proof{}, fmt.Errorf("waiting for other logins: %w", err)
		}
	}
	defer g.room.Release(weight)
	proof, err := g.derive(password, p)
	g.sweep(p)
	return proof, err
}

// sweep sees to what derivations took, which is garbage now. Left to the collector it would grow to several times as much, and stay with
// the process for minutes. While others are here it is collected, for them to use, as soon as it is that of one of the usual cost: to
// have pages from the kernel anew costs half as much as Argon2id itself, since that reads each before it writes. The last one gives all of it back.
func (g *Gate) sweep(p Params) {
	left := g.garbage.Add(int64(p.MemoryKiB))
	switch {
	case g.here.Add(-1) == 0:
		g.garbage.Store(0)
		debug.FreeOSMemory()
	case left >= gateMemory:
		g.garbage.Store(0)
		runtime.GC()
	}
}
