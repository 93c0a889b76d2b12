package tuntest_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"twinkey/pkg/tun/tuntest"
)

func buffers(n, size int) ([][]byte, []int) {
	bufs := make([][]byte, n)
	for i := range bufs {
		bufs[i] = make([]byte, size)
	}
	return bufs, make([]int, n)
}

func TestInjectAndDelivered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := tuntest.New("fake0", 1400, 8)
		for _, p := range []string{"one", "two", "three"} {
			if err := d.Inject(t.Context(), []byte(p)); err != nil {
				t.Fatal(err)
			}
		}
		bufs, sizes := buffers(8, 100)
		n, err := d.Read(bufs, sizes, 10)
		if n != 3 || err != nil || string(bufs[2][10:10+sizes[2]]) != "three" {
			t.Fatalf("read %d, %v", n, err)
		}
		if n, err := d.Write([][]byte{[]byte("..four")}, 2); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		if p, err := d.Delivered(t.Context()); string(p) != "four" || err != nil {
			t.Fatalf("%q, %v", p, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour) // costs no time in the bubble
		defer cancel()
		if _, err := d.Delivered(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

func TestPairCrosses(t *testing.T) {
	a, b := tuntest.Pair(1400, 2)
	if _, err := a.Write([][]byte{[]byte("1"), []byte("2"), []byte("3")}, 0); err != nil {
		t.Fatal(err)
	}
	bufs, sizes := buffers(8, 100)
	if n, err := b.Read(bufs, sizes, 0); n != 2 || err != nil { // no more than BatchSize
		t.Fatal(n, err)
	}
	if n, err := b.Read(bufs, sizes, 0); n != 1 || err != nil || bufs[0][0] != '3' {
		t.Fatal(n, err)
	}
}

func TestCloseUnblocksAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := tuntest.New("fake0", 1400, 1)
		results := make(chan error, 3)
		go func() { bufs, sizes := buffers(1, 100); _, err := d.Read(bufs, sizes, 0); results <- err }()
		go func() { _, err := d.Delivered(t.Context()); results <- err }()
		synctest.Wait()
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := <-results; !errors.Is(err, net.ErrClosed) {
				t.Error(err)
			}
		}
		if _, err := d.Write([][]byte{{1}}, 0); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		if err := d.Inject(t.Context(), []byte{1}); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
}
