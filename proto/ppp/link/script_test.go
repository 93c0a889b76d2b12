package link_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"twinkey/proto/ppp"
	"twinkey/proto/ppp/link"
)

// start is when every script begins.
var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// source is a reproducible randomness for a link.
type source struct{ r *rand.Rand }

func seeded(seed uint64) source { return source{rand.New(rand.NewPCG(seed, 0))} }

func (s source) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(s.r.Uint32())
	}
	return len(b), nil
}

// script drives one link by hand: frames in the notation of the helpers below, time moved
// by advance.
type script struct {
	t      *testing.T
	l      *link.Link
	now    time.Time
	frames []string // sent and not yet expected
	raw    [][]byte
	events []string
}

func newScript(t *testing.T, c link.Config) *script {
	t.Helper()
	s := &script{t: t, l: link.New(c), now: start}
	s.l.Up(s.now)
	s.poll()
	return s
}

func (s *script) poll() {
	for {
		o, ok := s.l.Poll()
		if !ok {
			return
		}
		if o.Frame == nil {
			s.events = append(s.events, eventString(o.Event))
			continue
		}
		s.raw = append(s.raw, o.Frame)
		s.frames = append(s.frames, frameString(s.t, o.Frame))
	}
}

func eventString(e link.Event) string {
	switch e.Kind {
	case link.IPv4Up, link.IPv6Up:
		return fmt.Sprintf("%v %v %v", e.Kind, e.Local, e.Peer)
	case link.Down:
		return fmt.Sprintf("%v %v %q", e.Kind, e.Reason, e.Text)
	}
	return e.Kind.String()
}

// frameString is a frame without its Identifier: "IPCP Configure-Request 0306c0000201".
func frameString(t *testing.T, frame []byte) string {
	t.Helper()
	proto, info, err := ppp.ParseFrame(frame)
	if err != nil {
		t.Fatalf("frame % x: %v", frame, err)
	}
	p, err := ppp.ParsePacket(info)
	if err != nil {
		t.Fatalf("frame % x: %v", frame, err)
	}
	return strings.TrimSpace(fmt.Sprintf("%v %v %x", proto, p.Code, p.Data))
}

// sent expects these frames to have been sent since it was asked last; "..." at the end of
// one stands for any data.
func (s *script) sent(want ...string) *script {
	s.t.Helper()
	ok := len(want) == len(s.frames)
	for i := 0; ok && i < len(want); i++ {
		if head, open := strings.CutSuffix(want[i], "..."); open {
			ok = strings.HasPrefix(s.frames[i], head)
		} else {
			ok = s.frames[i] == want[i]
		}
	}
	if !ok {
		s.t.Fatalf("at %v sent\n\t%s\nwant\n\t%s", s.now.Sub(start), strings.Join(s.frames, "\n\t"), strings.Join(want, "\n\t"))
	}
	s.frames = nil
	return s
}

// happened expects these events since it was asked last.
func (s *script) happened(want ...string) *script {
	s.t.Helper()
	if got := strings.Join(s.events, "\n\t"); got != strings.Join(want, "\n\t") {
		s.t.Fatalf("at %v events\n\t%s\nwant\n\t%s", s.now.Sub(start), got, strings.Join(want, "\n\t"))
	}
	s.events = nil
	return s
}

// receive hands the link a control packet and expects this error.
func (s *script) receive(proto ppp.Protocol, code ppp.Code, id uint8, data []byte, want error) *script {
	s.t.Helper()
	frame := ppp.AppendFrame(nil, proto, false, false, ppp.Packet{Code: code, ID: id, Data: data}.Append(nil))
	if err := s.l.Receive(s.now, frame); err != want {
		s.t.Fatalf("%v %v %x: err = %v, want %v", proto, code, data, err, want)
	}
	s.poll()
	return s
}

// lastID is the Identifier of the last frame of this protocol and code.
func (s *script) lastID(proto ppp.Protocol, code ppp.Code) uint8 {
	s.t.Helper()
	for i := len(s.raw) - 1; i >= 0; i-- {
		if p, info, _ := ppp.ParseFrame(s.raw[i]); p == proto && info[0] == byte(code) {
			return info[1]
		}
	}
	s.t.Fatalf("no %v %v was sent", proto, code)
	return 0
}

// lastData is the Data of the last frame of this protocol and code.
func (s *script) lastData(proto ppp.Protocol, code ppp.Code) []byte {
	s.t.Helper()
	for i := len(s.raw) - 1; i >= 0; i-- {
		if p, info, _ := ppp.ParseFrame(s.raw[i]); p == proto && info[0] == byte(code) {
			return info[4:]
		}
	}
	s.t.Fatalf("no %v %v was sent", proto, code)
	return nil
}

// acks has the peer acknowledge our last request.
func (s *script) acks(proto ppp.Protocol) *script {
	s.t.Helper()
	return s.receive(proto, ppp.ConfigureAck, s.lastID(proto, ppp.ConfigureRequest), s.lastData(proto, ppp.ConfigureRequest), nil)
}

// asks has the peer send a Configure-Request, with Identifier 77.
func (s *script) asks(proto ppp.Protocol, options ...byte) *script {
	s.t.Helper()
	return s.receive(proto, ppp.ConfigureRequest, 77, options, nil)
}

// opened brings a protocol up without options on the peer's side.
func (s *script) opened(proto ppp.Protocol, options ...byte) *script {
	s.t.Helper()
	s.asks(proto, options...)
	s.acks(proto)
	s.frames = nil
	return s
}

// advance moves the clock by d, stopping at each deadline as a real owner would.
func (s *script) advance(d time.Duration) *script {
	end := s.now.Add(d)
	for {
		next := s.l.Deadline()
		if next.IsZero() || next.After(end) {
			break
		}
		if next.After(s.now) {
			s.now = next
		}
		s.l.Advance(s.now)
		s.poll()
	}
	s.now = end
	s.l.Advance(s.now)
	s.poll()
	return s
}

func option(typ uint8, data ...byte) []byte { return ppp.Option{Type: typ, Data: data}.Append(nil) }

func magic(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }
