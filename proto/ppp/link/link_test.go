package link_test

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"twinkey/proto/ppp"
	"twinkey/proto/ppp/link"
	"twinkey/proto/wire"
)

func bare() link.Config { return link.Config{} }

func withIPv4(c link.IPv4Config) link.Config { return link.Config{IPv4: &c} }

func TestNothingAskedNothingSent(t *testing.T) {
	s := newScript(t, bare())
	s.sent("LCP Configure-Request")
	s.asks(ppp.ProtoLCP).sent("LCP Configure-Ack").happened()
	s.acks(ppp.ProtoLCP).sent().happened("LCPUp")
	if s.l.Phase() != link.Network {
		t.Errorf("phase = %v", s.l.Phase())
	}
	if !s.l.Deadline().IsZero() {
		t.Errorf("an idle link waits for %v", s.l.Deadline())
	}
}

// RFC 1661 4.6: Restart 3 s, Max-Configure 10.
func TestPeerThatNeverAnswers(t *testing.T) {
	s := newScript(t, bare())
	s.advance(3*time.Second - 1).sent("LCP Configure-Request")
	s.advance(1).sent("LCP Configure-Request")
	first := s.raw[0]
	if !bytes.Equal(first, s.raw[1]) {
		t.Error("a repeated Configure-Request must keep its Identifier")
	}
	s.advance(24 * time.Second).sent(strings.Split(strings.Repeat("LCP Configure-Request\n", 8), "\n")[:8]...)
	s.happened()
	s.advance(3 * time.Second).sent().happened(`Down no answer ""`)
	if s.l.Phase() != link.Dead || !s.l.Deadline().IsZero() {
		t.Errorf("phase %v, deadline %v", s.l.Phase(), s.l.Deadline())
	}
	s.l.Up(s.now)
	s.poll()
	s.sent("LCP Configure-Request")
}

func TestLCPOptions(t *testing.T) {
	all := link.Config{Rand: seeded(1), MRU: 1400, PFC: true, ACFC: true}
	tests := []struct {
		name    string
		config  link.Config
		options []byte
		answer  string
	}{
		{"all that we know", all, cat(option(1, 5, 0xdc), option(2, 0, 0, 0, 0), option(5, 1, 2, 3, 4), option(7), option(8)),
			"LCP Configure-Ack 010405dc0206000000000506010203040702" + "0802"},
		{"compression not configured", bare(), cat(option(7), option(8)), "LCP Configure-Reject 07020802"},
		{"MRU below what we can talk with", bare(), option(1, 0, 127), "LCP Configure-Nak 01040080"},
		{"MRU of the least", bare(), option(1, 0, 128), "LCP Configure-Ack 01040080"},
		{"an EAP-first offer loses its EAP alone", all, cat(option(1, 5, 0xdc), option(3, 0xc2, 0x27), option(5, 1, 2, 3, 4)),
			"LCP Configure-Reject 0304c227"},
		{"multilink and callback", all, cat(option(13, 6), option(17, 6, 0x4e), option(19, 1), option(5, 1, 2, 3, 4)),
			"LCP Configure-Reject 0d0306" + "1104064e" + "130301"},
		{"reject goes before nak", all, cat(option(1, 0, 1), option(99, 1)), "LCP Configure-Reject 630301"},
		{"magic number zero", all, option(5, 0, 0, 0, 0), "LCP Configure-Nak 0506..."},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newScript(t, tt.config)
			s.frames = nil
			s.asks(ppp.ProtoLCP, tt.options...).sent(tt.answer)
		})
	}
}

func cat(p ...[]byte) []byte { return bytes.Join(p, nil) }

func TestMalformedIsDroppedAndHarmless(t *testing.T) {
	tests := []struct {
		name  string
		frame []byte
		cause error
	}{
		{"empty", nil, wire.ErrTruncated},
		{"address alone", []byte{0xff, 0x03}, wire.ErrTruncated},
		{"no packet", []byte{0xff, 0x03, 0xc0, 0x21}, wire.ErrTruncated},
		{"length below the header", []byte{0xc0, 0x21, 1, 1, 0, 3}, wire.ErrLength},
		{"length beyond the frame", []byte{0xc0, 0x21, 1, 1, 0, 9, 1, 4, 5, 0xdc}, wire.ErrTruncated},
		{"option length 0", []byte{0xc0, 0x21, 1, 1, 0, 8, 1, 0, 5, 0xdc}, wire.ErrLength},
		{"option length 1", []byte{0xc0, 0x21, 1, 1, 0, 8, 1, 1, 5, 0xdc}, wire.ErrLength},
		{"option beyond the list", []byte{0xc0, 0x21, 1, 1, 0, 8, 1, 5, 5, 0xdc}, wire.ErrTruncated},
		{"MRU of three bytes", []byte{0xc0, 0x21, 1, 1, 0, 9, 1, 5, 5, 0xdc, 0}, wire.ErrLength},
		{"Code-Reject of nothing", []byte{0xc0, 0x21, 7, 1, 0, 4}, wire.ErrTruncated},
		{"Protocol-Reject of nothing", []byte{0xc0, 0x21, 8, 1, 0, 5, 0x80}, wire.ErrTruncated},
		{"echo without a magic number", []byte{0xc0, 0x21, 9, 1, 0, 7, 0, 0, 0}, wire.ErrTruncated},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newScript(t, bare())
			s.opened(ppp.ProtoLCP).happened("LCPUp")
			err := s.l.Receive(s.now, tt.frame)
			if pe, ok := errors.AsType[*wire.ParseError](err); !ok || !errors.Is(pe, tt.cause) {
				t.Errorf("err = %v, want %v", err, tt.cause)
			}
			s.poll()
			s.sent().happened()
		})
	}
}

// A reply counts once, and only with the Identifier and the options of the request.
func TestStaleReplies(t *testing.T) {
	s := newScript(t, link.Config{MRU: 1400})
	id, opts := s.lastID(ppp.ProtoLCP, ppp.ConfigureRequest), s.lastData(ppp.ProtoLCP, ppp.ConfigureRequest)
	s.sent("LCP Configure-Request 01040578")
	s.receive(ppp.ProtoLCP, ppp.ConfigureAck, id+1, opts, link.ErrStale)
	s.receive(ppp.ProtoLCP, ppp.ConfigureAck, id, option(1, 5, 0xdc), link.ErrStale)
	s.receive(ppp.ProtoLCP, ppp.ConfigureReject, id, option(7), link.ErrStale)
	s.asks(ppp.ProtoLCP).sent("LCP Configure-Ack").happened()
	s.receive(ppp.ProtoLCP, ppp.ConfigureAck, id, opts, nil).happened("LCPUp")
	s.receive(ppp.ProtoLCP, ppp.ConfigureAck, id, opts, link.ErrStale).sent().happened()
	// The peer's request once more, word for word: our Ack was lost.
	s.asks(ppp.ProtoLCP).sent("LCP Configure-Ack").happened()
	// Another request begins anew (RCR+ in Opened).
	s.asks(ppp.ProtoLCP, option(1, 4, 0)...).sent("LCP Configure-Request 01040578", "LCP Configure-Ack 01040400").happened()
	s.acks(ppp.ProtoLCP).happened("LCPUp")
	if s.l.PeerMRU() != 1024 {
		t.Errorf("PeerMRU = %d after renegotiation, want 1024", s.l.PeerMRU())
	}
}

func TestRejectedOptionsAreLeftOut(t *testing.T) {
	s := newScript(t, link.Config{Rand: seeded(1), MRU: 1400, PFC: true, ACFC: true})
	all := s.lastData(ppp.ProtoLCP, ppp.ConfigureRequest)
	s.sent("LCP Configure-Request 010405780506...")
	s.receive(ppp.ProtoLCP, ppp.ConfigureReject, s.lastID(ppp.ProtoLCP, ppp.ConfigureRequest), all[4:], nil).sent("LCP Configure-Request 01040578")
	s.receive(ppp.ProtoLCP, ppp.ConfigureNak, s.lastID(ppp.ProtoLCP, ppp.ConfigureRequest), option(1, 5, 0), nil).sent("LCP Configure-Request 01040500")
	// More than we can take: insisted until Max-Failure, then left out.
	for range 4 {
		s.receive(ppp.ProtoLCP, ppp.ConfigureNak, s.lastID(ppp.ProtoLCP, ppp.ConfigureRequest), option(1, 6, 0), nil)
	}
	s.sent("LCP Configure-Request 01040500", "LCP Configure-Request 01040500", "LCP Configure-Request 01040500", "LCP Configure-Request")
}

// RFC 1661 5.3, 4.6: after Max-Failure Configure-Naks they turn into Configure-Rejects.
func TestNaksTurnIntoRejects(t *testing.T) {
	s := newScript(t, bare())
	s.frames = nil
	for range 5 {
		s.asks(ppp.ProtoLCP, option(1, 0, 1)...).sent("LCP Configure-Nak 01040080")
	}
	s.asks(ppp.ProtoLCP, option(1, 0, 1)...).sent("LCP Configure-Reject 01040001")
}

func TestLoopIsFound(t *testing.T) {
	s := newScript(t, link.Config{Rand: seeded(3), IPv4: &link.IPv4Config{}})
	for i := 0; i < 100 && len(s.raw) > 0; i++ {
		frame := s.raw[0]
		s.raw = s.raw[1:]
		if err := s.l.Receive(s.now, frame); err != nil {
			t.Fatal(err)
		}
		s.poll()
	}
	s.happened(`Down looped back "looped back"`)
}

// A path that begins to loop after LCP has opened gives itself away by the echoes.
func TestLoopAfterOpening(t *testing.T) {
	s := newScript(t, link.Config{Rand: seeded(3), EchoInterval: time.Second, EchoFailures: 100})
	s.opened(ppp.ProtoLCP, option(5, 1, 2, 3, 4)...).happened("LCPUp")
	for range 4 {
		s.advance(time.Second)
		if err := s.l.Receive(s.now, s.raw[len(s.raw)-1]); err != link.ErrLooped {
			t.Fatalf("err = %v", err)
		}
	}
	s.poll()
	s.advance(10 * time.Second).happened(`Down looped back "looped back"`)
}

func TestEcho(t *testing.T) {
	s := newScript(t, link.Config{EchoInterval: 10 * time.Second, MRU: 1400})
	s.opened(ppp.ProtoLCP, append(option(1, 0, 200), option(5, 1, 2, 3, 4)...)...).happened("LCPUp")
	s.advance(10 * time.Second).sent("LCP Echo-Request 00000000")
	s.receive(ppp.ProtoLCP, ppp.EchoReply, s.lastID(ppp.ProtoLCP, ppp.EchoRequest), magic(0x01020304), nil)
	s.receive(ppp.ProtoLCP, ppp.EchoReply, s.lastID(ppp.ProtoLCP, ppp.EchoRequest)+1, magic(0x01020304), link.ErrStale)
	s.receive(ppp.ProtoLCP, ppp.EchoReply, s.lastID(ppp.ProtoLCP, ppp.EchoRequest), magic(9), link.ErrStale)
	s.advance(30*time.Second).sent("LCP Echo-Request 00000000", "LCP Echo-Request 00000000", "LCP Echo-Request 00000000").happened()
	// Data that passes forgives, and makes the next echo needless.
	s.l.Heard(s.now)
	s.advance(10 * time.Second).sent().happened()
	s.advance(30*time.Second).sent("LCP Echo-Request 00000000", "LCP Echo-Request 00000000", "LCP Echo-Request 00000000").happened()
	s.advance(10 * time.Second).sent("LCP Terminate-Request 6e6f206563686f").happened()
	s.advance(6 * time.Second).sent("LCP Terminate-Request 6e6f206563686f").happened(`Down peer silent "no echo"`)
}

// accel-ppp 204: a reply beyond the peer's MRU killed sessions.
func TestEchoReplyKeepsToThePeersMRU(t *testing.T) {
	s := newScript(t, bare())
	s.opened(ppp.ProtoLCP, option(1, 0, 200)...)
	data := append(magic(0), bytes.Repeat([]byte{0xaa}, 1000)...)
	s.receive(ppp.ProtoLCP, ppp.EchoRequest, 9, data, nil)
	if got := len(s.raw[len(s.raw)-1]); got != ppp.MaxHeader+200 {
		t.Errorf("reply frame has %d bytes, want header and 200", got)
	}
	s.receive(ppp.ProtoLCP, ppp.EchoRequest, 9, append(magic(7), "hello"...), nil)
	if got := frameString(t, s.raw[len(s.raw)-1]); got != "LCP Echo-Reply 0000000068656c6c6f" {
		t.Errorf("reply = %s", got)
	}
	s.receive(ppp.ProtoLCP, ppp.DiscardRequest, 9, magic(7), nil)
}

func TestUnknownCodesAndProtocols(t *testing.T) {
	s := newScript(t, bare())
	unknown := ppp.AppendFrame(nil, ppp.ProtoCCP, false, false, []byte{1, 1, 0, 4})
	s.frames = nil
	if err := s.l.Receive(s.now, unknown); err != link.ErrPhase {
		t.Errorf("before LCP is open: err = %v", err)
	}
	s.receive(ppp.ProtoLCP, 14, 5, []byte{1, 2}, nil).sent("LCP Code-Reject 0e0500060102")
	s.opened(ppp.ProtoLCP, option(1, 0, 128)...)
	long := ppp.AppendFrame(nil, 0x00cf, true, true, bytes.Repeat([]byte{1}, 300))
	for _, f := range [][]byte{unknown, long, ppp.AppendFrame(nil, ppp.ProtoIPv4, true, true, []byte{0x45}), {0x80, 0x20, 9}} {
		if err := s.l.Receive(s.now, f); err != nil {
			t.Errorf("% x: err = %v", f, err)
		}
	}
	s.poll()
	s.sent("LCP Protocol-Reject 80fd01010004", "LCP Protocol-Reject 00cf"+strings.Repeat("01", 128-4-2), "LCP Protocol-Reject 002145", "LCP Protocol-Reject 802009")
	// Nothing but an Echo-Request may be refused without ending the protocol.
	s.receive(ppp.ProtoLCP, ppp.CodeReject, 1, []byte{byte(ppp.EchoRequest), 1, 0, 4}, nil).happened("LCPUp")
	s.receive(ppp.ProtoLCP, ppp.CodeReject, 1, []byte{byte(ppp.ConfigureRequest), 1, 0, 4}, nil).sent("LCP Terminate-Request")
	s.receive(ppp.ProtoLCP, ppp.TerminateAck, 1, nil, nil).happened(`Down rejected by peer ""`)
}

func TestPeerTerminates(t *testing.T) {
	s := newScript(t, withIPv4(link.IPv4Config{}))
	s.opened(ppp.ProtoLCP).opened(ppp.ProtoIPCP).happened("LCPUp", "IPv4Up invalid IP invalid IP")
	s.receive(ppp.ProtoLCP, ppp.TerminateRequest, 8, []byte("bye\x00\x1b[31m"), nil).sent("LCP Terminate-Ack").happened("IPv4Down")
	if s.l.Phase() != link.Terminate {
		t.Errorf("phase = %v", s.l.Phase())
	}
	s.receive(ppp.ProtoLCP, ppp.TerminateRequest, 8, nil, nil).sent("LCP Terminate-Ack").happened()
	s.receive(ppp.ProtoIPCP, ppp.ConfigureRequest, 1, nil, link.ErrPhase)
	s.advance(3 * time.Second).sent().happened(`Down closed by peer "bye[31m"`)
	s.receive(ppp.ProtoLCP, ppp.ConfigureRequest, 1, nil, link.ErrPhase).sent()
}

func TestCloseAndDown(t *testing.T) {
	s := newScript(t, withIPv4(link.IPv4Config{}))
	s.opened(ppp.ProtoLCP).opened(ppp.ProtoIPCP)
	s.events = nil
	s.l.Close(s.now, "done")
	s.poll()
	s.sent("LCP Terminate-Request 646f6e65").happened("IPv4Down")
	s.receive(ppp.ProtoLCP, ppp.TerminateAck, s.lastID(ppp.ProtoLCP, ppp.TerminateRequest), nil, nil).happened(`Down closed "done"`)
	s.l.Close(s.now, "again")
	s.l.Down(s.now)
	s.poll()
	s.sent().happened()

	s.l.Up(s.now)
	s.poll()
	s.opened(ppp.ProtoLCP).opened(ppp.ProtoIPCP).happened("LCPUp", "IPv4Up invalid IP invalid IP")
	s.l.Down(s.now)
	s.poll()
	s.sent().happened("IPv4Down", `Down lower layer down ""`)
}

func TestIPCP(t *testing.T) {
	staff := func(a netip.Addr) bool { return a == addr("10.1.0.3") }
	tests := []struct {
		name   string
		config link.IPv4Config
		script func(*script)
	}{
		{"unnumbered", link.IPv4Config{}, func(s *script) {
			s.sent("IPCP Configure-Request").opened(ppp.ProtoIPCP).happened("IPv4Up invalid IP invalid IP")
		}},
		{"the peer's own address", link.IPv4Config{Local: addr("10.0.0.1"), Allow: staff}, func(s *script) {
			s.sent("IPCP Configure-Request 03060a000001").opened(ppp.ProtoIPCP, option(3, 10, 1, 0, 3)...).happened("IPv4Up 10.0.0.1 10.1.0.3")
		}},
		{"an address that is not the peer's is named the right one", link.IPv4Config{Allow: staff, Assign: addr("10.1.0.3")}, func(s *script) {
			s.sent("IPCP Configure-Request").asks(ppp.ProtoIPCP, option(3, 10, 1, 0, 4)...).sent("IPCP Configure-Nak 03060a010003")
		}},
		{"an address that is not the peer's, and none to offer", link.IPv4Config{Allow: staff}, func(s *script) {
			s.sent("IPCP Configure-Request").asks(ppp.ProtoIPCP, option(3, 10, 1, 0, 4)...).sent("IPCP Configure-Reject 03060a010004")
		}},
		{"without Allow only Assign is allowed", link.IPv4Config{Assign: addr("10.1.0.3")}, func(s *script) {
			s.sent("IPCP Configure-Request").asks(ppp.ProtoIPCP, option(3, 0, 0, 0, 0)...).sent("IPCP Configure-Nak 03060a010003")
			s.opened(ppp.ProtoIPCP, option(3, 10, 1, 0, 3)...).happened("IPv4Up invalid IP 10.1.0.3")
		}},
		{"multicast is nobody's address", link.IPv4Config{Allow: func(netip.Addr) bool { return true }}, func(s *script) {
			s.sent("IPCP Configure-Request").asks(ppp.ProtoIPCP, option(3, 224, 0, 0, 1)...).sent("IPCP Configure-Reject 0306e0000001")
		}},
		{"Van Jacobson, DNS and NBNS are rejected, the address is not", link.IPv4Config{Assign: addr("10.1.0.3")}, func(s *script) {
			s.sent("IPCP Configure-Request").asks(ppp.ProtoIPCP, cat(option(2, 0, 0x2d, 15, 1), option(3, 10, 1, 0, 3), option(129, 0, 0, 0, 0), option(132, 0, 0, 0, 0))...)
			s.sent("IPCP Configure-Reject 0206002d0f01" + "810600000000" + "840600000000")
		}},
		{"asking for an address", link.IPv4Config{Local: addr("0.0.0.0")}, func(s *script) {
			s.sent("IPCP Configure-Request 030600000000").asks(ppp.ProtoIPCP).sent("IPCP Configure-Ack")
			s.receive(ppp.ProtoIPCP, ppp.ConfigureNak, s.lastID(ppp.ProtoIPCP, ppp.ConfigureRequest), option(3, 10, 1, 0, 3), nil)
			s.sent("IPCP Configure-Request 03060a010003").acks(ppp.ProtoIPCP).happened("IPv4Up 10.1.0.3 invalid IP")
		}},
		{"asking for an address and getting none", link.IPv4Config{Local: addr("0.0.0.0")}, func(s *script) {
			s.frames = nil
			s.acks(ppp.ProtoIPCP).sent("IPCP Terminate-Request")
			s.receive(ppp.ProtoIPCP, ppp.TerminateAck, 1, nil, nil).sent("LCP Terminate-Request...")
			s.advance(6 * time.Second).happened(`Down no network protocol "no network protocol"`)
		}},
		{"our address is refused for good", link.IPv4Config{Local: addr("10.0.0.1")}, func(s *script) {
			for range 5 {
				s.sent("IPCP Configure-Request 03060a000001")
				s.receive(ppp.ProtoIPCP, ppp.ConfigureNak, s.lastID(ppp.ProtoIPCP, ppp.ConfigureRequest), option(3, 10, 9, 9, 9), nil)
			}
			s.sent("IPCP Terminate-Request")
		}},
		{"our address is rejected: unnumbered", link.IPv4Config{Local: addr("10.0.0.1")}, func(s *script) {
			s.asks(ppp.ProtoIPCP)
			s.receive(ppp.ProtoIPCP, ppp.ConfigureReject, s.lastID(ppp.ProtoIPCP, ppp.ConfigureRequest), option(3, 10, 0, 0, 1), nil)
			s.acks(ppp.ProtoIPCP).happened("IPv4Up invalid IP invalid IP")
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newScript(t, withIPv4(tt.config))
			s.asks(ppp.ProtoLCP)
			s.frames = nil
			s.acks(ppp.ProtoLCP).happened("LCPUp")
			tt.script(s)
		})
	}
}

func TestIPv6CP(t *testing.T) {
	own := [8]byte{7: 1}
	tests := []struct {
		name   string
		config link.IPv6Config
		script func(*script)
	}{
		{"both insist", link.IPv6Config{Interface: own}, func(s *script) {
			s.sent("IPV6CP Configure-Request 010a0000000000000001").opened(ppp.ProtoIPv6CP, option(1, 0, 0, 0, 0, 0, 0, 0, 2)...).happened("IPv6Up fe80::1 fe80::2")
		}},
		{"the peer has ours", link.IPv6Config{Interface: own}, func(s *script) {
			s.frames = nil
			s.asks(ppp.ProtoIPv6CP, option(1, 0, 0, 0, 0, 0, 0, 0, 1)...).sent("IPV6CP Configure-Nak 010a...")
		}},
		{"the peer asks for one", link.IPv6Config{Interface: own}, func(s *script) {
			s.frames = nil
			s.asks(ppp.ProtoIPv6CP, option(1, 0, 0, 0, 0, 0, 0, 0, 0)...).sent("IPV6CP Configure-Nak 010a...")
		}},
		{"the peer may not have it", link.IPv6Config{Interface: own, Allow: func(id [8]byte) bool { return id[7] == 3 }}, func(s *script) {
			s.frames = nil
			s.asks(ppp.ProtoIPv6CP, option(1, 0, 0, 0, 0, 0, 0, 0, 2)...).sent("IPV6CP Configure-Reject 010a0000000000000002")
			s.asks(ppp.ProtoIPv6CP, option(1, 0, 0, 0, 0, 0, 0, 0, 3)...).sent("IPV6CP Configure-Ack 010a0000000000000003")
		}},
		{"drawn, and changed at the peer's wish", link.IPv6Config{}, func(s *script) {
			s.frames = nil
			s.receive(ppp.ProtoIPv6CP, ppp.ConfigureNak, s.lastID(ppp.ProtoIPv6CP, ppp.ConfigureRequest), option(1, 0, 0, 0, 0, 0, 0, 0, 9), nil)
			s.sent("IPV6CP Configure-Request 010a0000000000000009").opened(ppp.ProtoIPv6CP).happened("IPv6Up fe80::9 invalid IP")
		}},
		{"header compression", link.IPv6Config{Interface: own}, func(s *script) {
			s.frames = nil
			s.asks(ppp.ProtoIPv6CP, option(2, 0, 0x4f)...).sent("IPV6CP Configure-Reject 0204004f")
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newScript(t, link.Config{Rand: seeded(5), IPv6: &tt.config})
			s.asks(ppp.ProtoLCP)
			s.frames = nil
			s.acks(ppp.ProtoLCP).happened("LCPUp")
			tt.script(s)
		})
	}
}

// RFC 8200 section 5: no IPv6 over less than 1280 bytes.
func TestNoIPv6OverASmallMRU(t *testing.T) {
	s := newScript(t, link.Config{IPv4: &link.IPv4Config{}, IPv6: &link.IPv6Config{Interface: [8]byte{7: 1}}})
	s.asks(ppp.ProtoLCP, option(1, 4, 0xff)...)
	s.frames = nil
	s.acks(ppp.ProtoLCP).sent("IPCP Configure-Request")
	s.asks(ppp.ProtoIPv6CP).sent("LCP Protocol-Reject 8057014d0004")
}

// lz is a method as RFC 1962 section 5.1 has it: type 0, a locally administered OUI, a subtype.
var lz = ppp.Option{Type: ppp.OptOUI, Data: []byte{0x02, 0x74, 0x6b, 1}}

// Each direction of compression stands for itself, and none is missed where it fails.
func TestCCP(t *testing.T) {
	const request, stac = "CCP Configure-Request 00060274" + "6b01", "CCP Configure-Reject 11050001" + "04"
	tests := []struct {
		name   string
		script func(*script)
		may    bool
	}{
		{"both ways", func(s *script) {
			s.opened(ppp.ProtoCCP, lz.Append(nil)...).happened("CCPUp")
		}, true},
		{"the peer expands nothing", func(s *script) {
			s.opened(ppp.ProtoCCP).happened("CCPUp")
		}, false},
		{"the peer sends none, but expands", func(s *script) {
			s.frames = nil
			s.receive(ppp.ProtoCCP, ppp.ConfigureReject, s.lastID(ppp.ProtoCCP, ppp.ConfigureRequest), lz.Append(nil), nil).sent("CCP Configure-Request")
			s.opened(ppp.ProtoCCP, lz.Append(nil)...).happened("CCPUp")
		}, true},
		{"another method goes, ours stays", func(s *script) {
			s.frames = nil
			s.asks(ppp.ProtoCCP, cat(option(17, 0, 1, 4), lz.Append(nil))...).sent(stac)
			s.opened(ppp.ProtoCCP, lz.Append(nil)...).happened("CCPUp")
		}, true},
		{"a vendor's other method is not ours", func(s *script) {
			s.frames = nil
			s.asks(ppp.ProtoCCP, option(0, 0x02, 0x74, 0x6b, 2)...).sent("CCP Configure-Reject 00060274" + "6b02").happened()
		}, false},
		{"the peer would rather send something else", func(s *script) {
			for range 5 {
				s.frames = nil
				s.receive(ppp.ProtoCCP, ppp.ConfigureNak, s.lastID(ppp.ProtoCCP, ppp.ConfigureRequest), option(17, 0, 1, 4), nil)
			}
			s.sent("CCP Configure-Request")
		}, false},
		{"the peer does not know CCP", func(s *script) {
			s.frames = nil
			s.receive(ppp.ProtoLCP, ppp.ProtocolReject, 9, []byte{0x80, 0xfd, 1, 1, 0, 4}, nil).sent().happened()
			s.opened(ppp.ProtoIPCP).happened("IPv4Up invalid IP invalid IP")
		}, false},
		{"the peer takes it back", func(s *script) {
			s.opened(ppp.ProtoCCP, lz.Append(nil)...).happened("CCPUp")
			s.asks(ppp.ProtoCCP).happened("CCPDown")
			s.acks(ppp.ProtoCCP).happened("CCPUp")
		}, false},
		{"the peer does not take what was compressed", func(s *script) {
			s.opened(ppp.ProtoCCP, lz.Append(nil)...).happened("CCPUp")
			s.receive(ppp.ProtoLCP, ppp.ProtocolReject, 9, []byte{0x00, 0xfd, 1}, nil).sent().happened("CCPDown")
		}, false},
		{"its end is the end of nothing else", func(s *script) {
			s.opened(ppp.ProtoIPCP).opened(ppp.ProtoCCP, lz.Append(nil)...).happened("IPv4Up invalid IP invalid IP", "CCPUp")
			s.receive(ppp.ProtoCCP, ppp.TerminateRequest, 3, nil, nil).sent("CCP Terminate-Ack").happened("CCPDown")
		}, false},
		{"resets are answered", func(s *script) {
			s.frames = nil
			s.receive(ppp.ProtoCCP, ppp.ResetRequest, 5, nil, link.ErrPhase).sent()
			s.opened(ppp.ProtoCCP, lz.Append(nil)...).happened("CCPUp")
			s.receive(ppp.ProtoCCP, ppp.ResetRequest, 5, nil, nil).sent("CCP Reset-Ack")
			s.receive(ppp.ProtoCCP, ppp.ResetAck, 5, nil, link.ErrStale).sent()
			s.receive(ppp.ProtoCCP, 16, 6, []byte{1}, nil).sent("CCP Code-Reject 100600" + "0501").happened()
		}, true},
		{"it goes down with LCP", func(s *script) {
			s.opened(ppp.ProtoCCP, lz.Append(nil)...).happened("CCPUp")
			s.receive(ppp.ProtoLCP, ppp.TerminateRequest, 3, nil, nil).happened("CCPDown")
		}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newScript(t, link.Config{IPv4: &link.IPv4Config{}, Method: lz})
			s.asks(ppp.ProtoLCP)
			s.frames = nil
			s.acks(ppp.ProtoLCP).happened("LCPUp").sent("IPCP Configure-Request", request)
			tt.script(s)
			if may := s.l.MayCompress(); may != tt.may {
				t.Errorf("MayCompress = %v, want %v", may, tt.may)
			}
		})
	}
}

func TestProtocolRejectEndsOneProtocolOnly(t *testing.T) {
	s := newScript(t, link.Config{IPv4: &link.IPv4Config{}, IPv6: &link.IPv6Config{Interface: [8]byte{7: 1}}})
	s.opened(ppp.ProtoLCP).opened(ppp.ProtoIPCP).opened(ppp.ProtoIPv6CP).happened("LCPUp", "IPv4Up invalid IP invalid IP", "IPv6Up fe80::1 invalid IP")
	s.receive(ppp.ProtoLCP, ppp.ProtocolReject, 1, []byte{0x80, 0x57, 1}, nil).sent().happened("IPv6Down")
	s.receive(ppp.ProtoLCP, ppp.ProtocolReject, 2, []byte{0x80, 0x57, 1}, nil).sent().happened()
	s.receive(ppp.ProtoLCP, ppp.ProtocolReject, 3, []byte{0x00, 0x21, 1}, nil).sent("LCP Terminate-Request...").happened("IPv4Down")
}

func TestNetworkDataIsNotOurs(t *testing.T) {
	s := newScript(t, withIPv4(link.IPv4Config{}))
	data := ppp.AppendFrame(nil, ppp.ProtoIPv4, true, true, []byte{0x45})
	if err := s.l.Receive(s.now, data); err != link.ErrPhase {
		t.Errorf("err = %v, want %v", err, link.ErrPhase)
	}
	s.opened(ppp.ProtoLCP)
	if err := s.l.Receive(s.now, data); err != link.ErrNetworkData {
		t.Errorf("err = %v, want %v", err, link.ErrNetworkData)
	}
}

func TestPrefixIsWhatThePeerTakes(t *testing.T) {
	tests := []struct {
		options []byte
		want    []byte
	}{
		{nil, []byte{0xff, 0x03, 0x00, 0x21}},
		{option(7), []byte{0xff, 0x03, 0x21}},
		{option(8), []byte{0x00, 0x21}},
		{cat(option(7), option(8)), []byte{0x21}},
	}
	for _, tt := range tests {
		s := newScript(t, link.Config{PFC: true, ACFC: true})
		s.asks(ppp.ProtoLCP, tt.options...)
		if got := s.l.AppendPrefix(nil, ppp.ProtoIPv4); len(got) != 4 {
			t.Errorf("before LCP is open: % x", got)
		}
		s.acks(ppp.ProtoLCP)
		if got := s.l.AppendPrefix(nil, ppp.ProtoIPv4); !bytes.Equal(got, tt.want) {
			t.Errorf("options % x: prefix % x, want % x", tt.options, got, tt.want)
		}
		if got := s.l.AppendPrefix(nil, ppp.ProtoLCP); len(got) != 4 {
			t.Errorf("LCP prefix % x", got)
		}
	}
}
