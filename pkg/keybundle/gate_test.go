package keybundle

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/semaphore"
)

func costing(mib uint32) Params {
	return Params{Salt: make([]byte, SaltLen), Time: 1, MemoryKiB: mib << 10, Threads: 1}
}

// Two fit at a time, the others wait their turn, the dear one has the room to itself, and nobody is forgotten.
func TestGateBoundsMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var using, most, alone atomic.Int64
		g := &Gate{room: semaphore.NewWeighted(128 << 10), size: 128 << 10}
		g.derive = func(_ []byte, p Params) (Proof, error) {
			n := using.Add(int64(p.MemoryKiB) >> 10)
			defer using.Add(-int64(p.MemoryKiB) >> 10)
			if p.MemoryKiB == 256<<10 {
				alone.Store(n)
			} else if n > most.Load() {
				most.Store(n)
			}
			time.Sleep(100 * time.Millisecond)
			return Proof{}, nil
		}
		began := time.Now()
		var wg sync.WaitGroup
		for i := range 21 {
			wg.Go(func() {
				p := costing(64)
				if i == 10 {
					p = costing(256)
				}
				if _, err := g.Derive(t.Context(), nil, p); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if most.Load() != 128 || alone.Load() != 256 {
			t.Errorf("%d MiB at a time, want 128; beside the dear one %d, want its own 256", most.Load(), alone.Load())
		}
		if took := time.Since(began); took < 1100*time.Millisecond || took > 1200*time.Millisecond {
			t.Errorf("took %v: twenty in pairs and one alone are eleven turns", took)
		}
	})
}

// Who comes when as many wait as may is told at once; who gives up makes room.
func TestGateIsBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &Gate{room: semaphore.NewWeighted(64 << 10), size: 64 << 10}
		free := make(chan struct{})
		g.derive = func([]byte, Params) (Proof, error) { <-free; return Proof{}, nil }
		ctx, giveUp := context.WithCancel(t.Context())
		gaveUp := make(chan error, gateQueue)
		go g.Derive(t.Context(), nil, costing(64)) //nolint:errcheck // it occupies the room
		synctest.Wait()
		for range gateQueue {
			go func() { _, err := g.Derive(ctx, nil, costing(64)); gaveUp <- err }()
		}
		synctest.Wait()
		if _, err := g.Derive(t.Context(), nil, costing(64)); !errors.Is(err, ErrBusy) {
			t.Errorf("one more: %v, want %v", err, ErrBusy)
		}
		giveUp()
		for range gateQueue {
			if err := <-gaveUp; !errors.Is(err, context.Canceled) {
				t.Errorf("given up: %v", err)
			}
		}
		close(free)
		if _, err := g.Derive(t.Context(), nil, costing(64)); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}

// What a directory may not ask for is refused before anybody waits for it.
func TestGateChecksCost(t *testing.T) {
	g := NewGate()
	g.derive = func([]byte, Params) (Proof, error) {
		t.Error("derived")
		return Proof{}, nil
	}
	if _, err := g.Derive(t.Context(), nil, costing(1<<20)); !errors.Is(err, ErrParams) {
		t.Errorf("a TiB: %v", err)
	}
}
