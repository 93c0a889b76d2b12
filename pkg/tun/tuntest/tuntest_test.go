package tuntest_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"twinkey/pkg/tun/tuntest"
	"twinkey/proto/gso"
)

func TestInjectAndDelivered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := tuntest.New("fake0", 1400)
		for _, p := range []string{"one", "two", "three"} {
			if err := d.Inject(t.Context(), []byte(p)); err != nil {
				t.Fatal(err)
			}
		}
		<-d.Ready()
		buf := make([]byte, 100)
		for _, want := range []string{"one", "two", "three", ""} {
			if _, n, err := d.Read(buf, 10); err != nil || string(buf[10:10+n]) != want {
				t.Fatalf("read %q, %v", buf[10:10+n], err)
			}
		}
		pkt := append(make([]byte, 2), "an IP packet, of 20 bytes or more"...)
		if err := d.Write(gso.Header{}, pkt, 2); err != nil {
			t.Fatal(err)
		}
		if p, err := d.Delivered(t.Context()); string(p) != string(pkt[2:]) || err != nil {
			t.Fatalf("%q, %v", p, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour) // costs no time in the bubble
		defer cancel()
		if _, err := d.Delivered(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

func TestCloseUnblocksAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := tuntest.New("fake0", 1400)
		delivered := make(chan error)
		go func() { _, err := d.Delivered(t.Context()); delivered <- err }()
		synctest.Wait()
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		<-d.Ready()
		if err := <-delivered; !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		if _, _, err := d.Read(make([]byte, 10), 0); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		if err := d.Write(gso.Header{}, make([]byte, 20), 0); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		if err := d.Inject(t.Context(), []byte{1}); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
}
