package reliable_test

import (
	"bytes"
	"testing"
	"time"

	"twinkey/proto/l2tp"
	"twinkey/proto/l2tp/reliable"
)

// end is one end of a pair; it numbers what it sends from 0 and checks what it gets.
type end struct {
	c         *reliable.Channel
	sent, got int
}

// FuzzChannel drives a pair by bytes: who acts, and what becomes of each datagram. Whatever
// is lost, doubled or swapped, messages come in order and once, and nothing grows
// without bound; when the weather clears, everything arrives.
func FuzzChannel(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15})
	f.Add(bytes.Repeat([]byte{0, 0, 2, 6, 3}, 30))
	f.Fuzz(func(t *testing.T, script []byte) {
		now := start
		ends := [2]*end{}
		for i := range ends {
			c := reliable.New(now, reliable.Config{Retries: 1 << 20, Hello: time.Minute})
			c.SetPeer(now, uint16(i+1), uint16(1+len(script)%20))
			ends[i] = &end{c: c}
		}
		var wire [2][][]byte // to each end
		poll := func(i int) {
			for b, ok := ends[i].c.Poll(); ok; b, ok = ends[i].c.Poll() {
				wire[1-i] = append(wire[1-i], bytes.Clone(b))
			}
		}
		take := func(i, at int) {
			if at >= len(wire[i]) {
				return
			}
			msg := wire[i][at]
			wire[i] = append(wire[i][:at], wire[i][at+1:]...)
			ends[i].take(t, now, msg)
		}
		for _, b := range script {
			i := int(b & 1)
			switch b >> 1 & 7 {
			case 0, 1:
				if ends[i].c.Send(now, message(ends[i].sent)) == nil {
					ends[i].sent++
				}
			case 2:
				poll(i)
			case 3:
				take(i, 0)
			case 4: // out of turn
				take(i, int(b>>4))
			case 5: // lost
				if len(wire[i]) > 0 {
					wire[i] = wire[i][1:]
				}
			case 6: // doubled
				if len(wire[i]) > 0 {
					wire[i] = append(wire[i], wire[i][0])
				}
			case 7:
				now = now.Add(time.Duration(b>>4) * 500 * time.Millisecond)
				for _, e := range ends {
					e.c.Advance(now)
				}
			}
			if _, early := ends[i].c.Queued(); early >= reliable.DefaultWindow {
				t.Fatalf("%d early messages are kept", early)
			}
		}
		for range 100 + 4*len(script) { // fair weather, a window of 1 at worst
			for i := range ends {
				poll(i)
				for len(wire[i]) > 0 {
					take(i, 0)
				}
			}
			if ends[0].c.Idle() && ends[1].c.Idle() {
				break
			}
			now = now.Add(8 * time.Second)
			ends[0].c.Advance(now)
			ends[1].c.Advance(now)
		}
		if ends[0].got != ends[1].sent || ends[1].got != ends[0].sent {
			t.Fatalf("sent %d and %d, arrived %d and %d", ends[0].sent, ends[1].sent, ends[1].got, ends[0].got)
		}
	})
}

func (e *end) take(t *testing.T, now time.Time, msg []byte) {
	h, err := l2tp.ParseControlHeader(msg)
	if err != nil {
		t.Fatal(err)
	}
	for ok := e.c.Receive(now, h, msg) == reliable.Due; ok; msg, ok = e.c.Next() {
		e.c.Accept()
		switch v, typ, _ := l2tp.PeekType(msg); {
		case v == 0: // HELLO
		case int(typ) != e.got:
			t.Fatalf("message %d came, %d was expected", typ, e.got)
		default:
			e.got++
		}
	}
}
