package radius

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/md5"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"layeh.com/radius"

	"twinkey/ca/internal/source"
)

// inUse says whether somebody has a UDP port.
func inUse(a netip.AddrPort) bool {
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(a))
	if err != nil {
		return true
	}
	_ = c.Close()
	return false
}

// order is a request of RFC 5176, signed as it says and not as disconnect.go does.
func order(t testing.TB, code radius.Code, id byte, at time.Time, secret string, attrs ...*radius.AVP) []byte {
	t.Helper()
	p := &radius.Packet{Code: code, Identifier: id, Secret: []byte(secret)}
	p.Attributes = append(p.Attributes, attrs...)
	p.Add(typeEventTimestamp, binary.BigEndian.AppendUint32(nil, uint32(at.Unix())))
	p.Add(typeMessageAuthenticator, make(radius.Attribute, authLen))
	wire, err := p.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	h := hmac.New(md5.New, []byte(secret))
	h.Write(wire)
	copy(wire[len(wire)-authLen:], h.Sum(nil))
	sum := md5.Sum(append(bytes.Clone(wire), secret...))
	copy(wire[authAt:], sum[:])
	return wire
}

var (
	errLater = errors.New("later")
	here     = netip.MustParseAddrPort("127.0.0.1:4711")
)

// ordered is what a source orders, and what comes of it.
type ordered struct {
	ends    int
	changes []source.Change
	whom    string // the last one
	word    source.Word
	fail    error
}

func (o *ordered) End(_ context.Context, uid string, w source.Word) error {
	o.ends++
	o.whom, o.word = uid, w
	return o.fail
}

func (o *ordered) Change(_ context.Context, uid string, c source.Change, w source.Word) error {
	o.changes = append(o.changes, c)
	o.whom, o.word = uid, w
	return o.fail
}

// obeying is a source whose requests a test hands over, and what it orders.
func obeying(t testing.TB, change func(*Config)) (s *Source, obey func(from netip.AddrPort, b []byte, now time.Time) ([]byte, error), o *ordered) {
	t.Helper()
	s = overUDP(t, change, "127.0.0.1:1812")
	s.clients = clients{here.Addr(): s.secret}
	seen := newMemory(2 * s.cfg.Disconnect.Window)
	o = &ordered{}
	return s, func(from netip.AddrPort, b []byte, now time.Time) ([]byte, error) {
		return s.obey(context.Background(), from, b, now, seen, o)
	}, o
}

// An answer is signed twice, by what was asked.
func TestDisconnectAnswer(t *testing.T) {
	_, obey, _ := obeying(t, nil)
	now := time.Now()
	for name, attrs := range map[string][]*radius.AVP{"ACK": {avp(typeUserName, "alice"), avp(typeProxyState, "back")}, "NAK": {avp(typeProxyState, "back")}} {
		req := order(t, radius.CodeDisconnectRequest, 9, now, secretText, attrs...)
		b, err := obey(here, req, now)
		if err != nil {
			t.Fatal(err)
		}
		p, err := parse(b)
		if err != nil || p.id != 9 || p.Attributes[0].Type != typeMessageAuthenticator {
			t.Fatalf("%+v, %v", p, err)
		}
		if !radius.IsAuthenticResponse(b, req, []byte(secretText)) {
			t.Errorf("%s: the Response Authenticator is wrong", name)
		}
		unsigned := bytes.Clone(b)
		copy(unsigned[authAt:], req[authAt:headerLen])
		clear(unsigned[headerLen+2 : headerLen+2+authLen])
		h := hmac.New(md5.New, []byte(secretText))
		h.Write(unsigned)
		if !hmac.Equal(h.Sum(nil), p.Attributes[0].Attribute) {
			t.Errorf("%s: the Message-Authenticator is wrong", name)
		}
		if v, _ := p.Lookup(typeProxyState); string(v) != "back" {
			t.Errorf("%s: a proxy does not find back: %q", name, v)
		}
	}
}

func TestDisconnectIsBelievedOnlyIf(t *testing.T) {
	_, obey, o := obeying(t, nil)
	now := time.Now()
	alice := avp(typeUserName, "alice")
	good := func() []byte { return order(t, radius.CodeDisconnectRequest, 1, now, secretText, alice) }
	for name, tt := range map[string]struct {
		from netip.AddrPort
		b    []byte
		want error
	}{
		"from another address":   {netip.MustParseAddrPort("127.0.0.2:4711"), good(), errStranger},
		"another secret":         {here, order(t, radius.CodeDisconnectRequest, 1, now, "another", alice), errAuthenticator},
		"too old":                {here, order(t, radius.CodeDisconnectRequest, 1, now.Add(-302*time.Second), secretText, alice), errStale},
		"too new":                {here, order(t, radius.CodeDisconnectRequest, 1, now.Add(302*time.Second), secretText, alice), errStale},
		"another kind":           {here, order(t, radius.CodeAccessRequest, 1, now, secretText, alice), errStray},
		"a change, forged":       {here, order(t, radius.CodeCoARequest, 1, now, "another", alice, avp(typeFilterID, "admins")), errAuthenticator},
		"altered":                {here, func() []byte { b := good(); b[headerLen+3] ^= 1; return b }(), errAuthenticator},
		"altered, without a MAC": {here, resigned(good(), func(b []byte) { b[headerLen+3] ^= 1 }), errSignature},
		"unsigned": {here, resigned(good(), func(b []byte) {
			b[len(b)-2-authLen] = byte(typeReplyMessage) // what was the Message-Authenticator is something else
		}), errNoSignature},
		"cut": {here, good()[:30], errMalformed},
	} {
		if b, err := obey(tt.from, tt.b, now); !errors.Is(err, tt.want) || b != nil {
			t.Errorf("%s: % x, %v; want %v", name, b, err, tt.want)
		}
	}
	if o.ends != 0 || len(o.changes) != 0 {
		t.Errorf("%d were ended, %d changed", o.ends, len(o.changes))
	}
}

// resigned alters a request and makes its Request Authenticator anew, as somebody with a collision of MD5 could.
func resigned(b []byte, alter func([]byte)) []byte {
	alter(b)
	clear(b[authAt:headerLen])
	sum := md5.Sum(append(bytes.Clone(b), secretText...))
	copy(b[authAt:], sum[:])
	return b
}

// A repetition, the sender's or a stranger's with a recording, ends nobody again; what failed may be tried again.
func TestDisconnectRepeated(t *testing.T) {
	_, obey, o := obeying(t, nil)
	now := time.Now()
	b := order(t, radius.CodeDisconnectRequest, 1, now, secretText, avp(typeUserName, "alice"))
	o.fail = errLater
	if _, err := obey(here, b, now); err != nil {
		t.Fatal(err)
	}
	o.fail = nil
	first, err := obey(here, b, now)
	if err != nil || o.ends != 2 || first[0] != byte(radius.CodeDisconnectACK) {
		t.Fatalf("% x, %v, %d ends", first, err, o.ends)
	}
	for _, later := range []time.Duration{time.Second, 299 * time.Second} {
		if again, err := obey(here, b, now.Add(later)); err != nil || !bytes.Equal(again, first) || o.ends != 2 {
			t.Errorf("%s later: % x, %v, %d ends", later, again, err, o.ends)
		}
	}
	if _, err := obey(here, b, now.Add(302*time.Second)); !errors.Is(err, errStale) {
		t.Errorf("%v", err)
	}
	// The same wish at another time is another one.
	if _, err := obey(here, order(t, radius.CodeDisconnectRequest, 1, now.Add(5*time.Second), secretText, avp(typeUserName, "alice")), now.Add(5*time.Second)); err != nil || o.ends != 3 {
		t.Errorf("%v, %d ends", err, o.ends)
	}
}

// Orders is told when a request was made, and what tells it from others of that second; what it says comes too late is refused for good.
func TestRequestsHaveTheirTime(t *testing.T) {
	s, obey, o := obeying(t, nil)
	now := time.Unix(1_800_000_000, 0)
	for code, attrs := range map[radius.Code][]*radius.AVP{
		radius.CodeDisconnectRequest: {avp(typeUserName, "alice")},
		radius.CodeCoARequest:        {avp(typeUserName, "alice"), avp(typeFilterID, "admins")},
	} {
		for i, fail := range []error{nil, fmt.Errorf("too late: %w", source.ErrImpossible)} {
			o.fail, o.word = fail, source.Word{}
			at := now.Add(time.Duration(i-100) * time.Second)
			req := order(t, code, 1, at, secretText, attrs...)
			b, err := obey(here, req, now)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := causeOf(t, code, b), uint32(407*i); got != want { //nolint:gosec // a test
				t.Errorf("%s, %v: Error-Cause %d, want %d", code, fail, got, want)
			}
			if !o.word.Said.Equal(at) || !bytes.Equal(o.word.ID, req[authAt:headerLen]) || o.word.Why != code.String()+" by source "+s.name {
				t.Errorf("%s: %+v, made at %s", code, o.word, at)
			}
		}
	}
}

// Memory is bounded: who may ask fills it, and then waits.
func TestDisconnectMemory(t *testing.T) {
	_, obey, o := obeying(t, nil)
	now := time.Now()
	for i := range maxSeen {
		if _, err := obey(here, order(t, radius.CodeDisconnectRequest, byte(i), now, secretText, avp(typeUserName, fmt.Sprintf("user%d", i))), now); err != nil {
			t.Fatal(err)
		}
	}
	b := order(t, radius.CodeDisconnectRequest, 1, now, secretText, avp(typeUserName, "alice"))
	if _, err := obey(here, b, now); !errors.Is(err, errBusy) || o.ends != maxSeen {
		t.Errorf("%v, %d ends", err, o.ends)
	}
	later := now.Add(601 * time.Second)
	if _, err := obey(here, order(t, radius.CodeDisconnectRequest, 1, later, secretText, avp(typeUserName, "alice")), later); err != nil {
		t.Errorf("when the old ones are forgotten: %v", err)
	}
}

func TestSessionsAreBounded(t *testing.T) {
	var s sessions
	now := time.Now()
	for i := range maxSessions {
		s.note(source.Event{What: source.Start, Session: fmt.Sprint(i), UID: "alice"}, now)
	}
	late := source.Event{What: source.Start, Session: "one more", UID: "bob"}
	if s.note(late, now); len(s.byID) != maxSessions {
		t.Errorf("%d sessions", len(s.byID))
	}
	s.note(source.Event{What: source.Interim, Session: "7", UID: "alice"}, now.Add(sessionLife))
	s.note(late, now.Add(sessionLife+time.Second))
	if _, ok := s.user("7"); !ok || len(s.byID) != 2 {
		t.Errorf("%d sessions", len(s.byID))
	}
	if uid, ok := s.user("one more"); !ok || uid != "bob" {
		t.Errorf("%q, %v", uid, ok)
	}
}

func FuzzObey(f *testing.F) {
	_, obey, o := obeying(f, nil)
	now := time.Unix(1_800_000_000, 0)
	f.Add(order(f, radius.CodeDisconnectRequest, 1, now, secretText, avp(typeUserName, "alice")))
	f.Add(order(f, radius.CodeCoARequest, 1, now, secretText, avp(typeUserName, "alice"), avp(typeFilterID, "x")))
	f.Add(order(f, radius.CodeCoARequest, 1, now, secretText, avp(typeAcctSessionID, "x"), number(typeSessionTimeout, 1)))
	f.Add([]byte{40, 1, 0, 20})
	f.Fuzz(func(t *testing.T, b []byte) {
		before := o.ends + len(o.changes)
		reply, err := obey(here, b, now)
		if err != nil {
			if reply != nil || o.ends+len(o.changes) != before {
				t.Fatalf("not believed (%v), and obeyed", err)
			}
			return
		}
		if !radius.IsAuthenticRequest(b[:binary.BigEndian.Uint16(b[2:])], []byte(secretText)) {
			t.Fatalf("believed without a signature: % x", b)
		}
	})
}
