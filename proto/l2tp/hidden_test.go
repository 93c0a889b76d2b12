package l2tp_test

import (
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"twinkey/proto/l2tp"
	"twinkey/proto/secret"
	"twinkey/proto/wire"
)

// zeros is a source of bytes that are all 0.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func key(s string) secret.Key { return secret.New([]byte(s)) }

func TestHiddenAVPsAreRevealed(t *testing.T) {
	s := key("tunnel secret")
	for n := range 70 { // one to five blocks of MD5
		name := strings.Repeat("n", n)
		avps, err := l2tp.Hide(zeros{}, s, l2tp.Text(l2tp.AVPProxyAuthenName, name), l2tp.Uint16(l2tp.AVPAssignedSessionID, 9))
		if err != nil {
			t.Fatal(err)
		}
		msg := encode(l2tp.ICRQ, avps...)
		if bytes.Contains(msg, []byte("nnnn")) {
			t.Fatal("the name stands in the clear")
		}
		m, err := l2tp.ParseMessage(msg)
		if err != nil {
			t.Fatal(err)
		}
		if !m.HasHidden() || m.AssignedSessionID() != 0 {
			t.Error("a hidden AVP is read before it is revealed")
		}
		if err := m.Unhide(s); err != nil {
			t.Fatal(err)
		}
		if m.Text(l2tp.AVPProxyAuthenName) != name || m.AssignedSessionID() != 9 || m.HasHidden() {
			t.Errorf("name %q, session %d", m.Text(l2tp.AVPProxyAuthenName), m.AssignedSessionID())
		}
	}
}

// RFC 2661 4.3 has no test vector. This one is worked out by its formula, step by step.
func TestHidingByTheFormula(t *testing.T) {
	avps, err := l2tp.Hide(zeros{}, key("s3cret"), l2tp.Text(l2tp.AVPCalledNumber, "+4989123456789012"))
	if err != nil {
		t.Fatal(err)
	}
	p := append([]byte{0, 17}, "+4989123456789012"...) // Length of Original Value, Original Value
	p = append(p, make([]byte, 32-len(p))...)          // padding to two blocks
	b1 := md5.Sum(append([]byte{0, 21}, "s3cret"+strings.Repeat("\x00", 16)...))
	c1 := make([]byte, 16)
	for i := range c1 {
		c1[i] = p[i] ^ b1[i]
	}
	b2 := md5.Sum(append([]byte("s3cret"), c1...))
	c2 := make([]byte, 16)
	for i := range c2 {
		c2[i] = p[16+i] ^ b2[i]
	}
	if want := append(c1, c2...); !bytes.Equal(avps[1].Value, want) {
		t.Errorf("hidden as\n%x, want\n%x", avps[1].Value, want)
	}
}

// The vector that most closely precedes an AVP counts (RFC 2661 4.4.1).
func TestNearestRandomVector(t *testing.T) {
	s := key("s")
	one, _ := l2tp.Hide(zeros{}, s, l2tp.Text(l2tp.AVPCalledNumber, "1"))
	two, _ := l2tp.Hide(strings.NewReader(strings.Repeat("other", 20)), s, l2tp.Text(l2tp.AVPCallingNumber, "2"))
	m, err := l2tp.ParseMessage(encode(l2tp.ICRQ, append(one, two...)...))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Unhide(s); err != nil || m.Text(l2tp.AVPCalledNumber) != "1" || m.Text(l2tp.AVPCallingNumber) != "2" {
		t.Errorf("%q, %q, %v", m.Text(l2tp.AVPCalledNumber), m.Text(l2tp.AVPCallingNumber), err)
	}
}

func TestBadHiddenAVPs(t *testing.T) {
	s := key("s")
	icrq, rv := avp(m, 0, 0, "000a"), avp(m, 0, 36, strings.Repeat("00", 16))
	// sub enciphers a subformat as a peer might that lies about the length.
	sub := func(typ byte, subformat string) string {
		p, _ := hex.DecodeString(subformat)
		b := md5.Sum(append([]byte{0, typ}, "s"+strings.Repeat("\x00", 16)...))
		for i := range p {
			p[i] ^= b[i]
		}
		return hex.EncodeToString(p)
	}
	for _, tt := range []struct {
		name string
		avp  string
		key  secret.Key
		want error // nil: passed over
	}{
		{"Original Value beyond the AVP", avp(m|h, 0, 14, sub(14, "00030001")), s, wire.ErrLength},
		{"Original Value of 65,535", avp(m|h, 0, 14, sub(14, "ffff0001")), s, wire.ErrLength},
		{"no room for its length", avp(m|h, 0, 14, "00"), s, wire.ErrLength},
		{"empty", avp(m|h, 0, 14, ""), s, wire.ErrLength},
		{"revealed with the wrong length for its type", avp(m|h, 0, 14, sub(14, "000101")), s, wire.ErrLength},
		{"revealed as 0", avp(m|h, 0, 14, sub(14, "00020000")), s, wire.ErrValue},
		{"no secret", avp(m|h, 0, 14, sub(14, "00020001")), secret.Key{}, l2tp.ErrHidden},
		{"no secret, not mandatory", avp(h, 0, 25, sub(25, "000400000001")), secret.Key{}, nil},
		{"beyond the AVP, not mandatory", avp(h, 0, 25, sub(25, "000500000001")), s, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			msg, err := l2tp.ParseMessage(control(icrq, rv, tt.avp))
			if err != nil {
				t.Fatal(err)
			}
			if err := msg.Unhide(tt.key); !errors.Is(err, tt.want) {
				t.Errorf("err = %v, want %v", err, tt.want)
			}
			if msg.AssignedSessionID() != 0 || msg.Has(l2tp.AVPPhysicalChannelID) || msg.HasHidden() || msg.Ignored != 1 {
				t.Error("it is still there")
			}
		})
	}
}

func TestHideRefuses(t *testing.T) {
	for _, tt := range []struct {
		name string
		avp  l2tp.AVP
		key  secret.Key
		want error
	}{
		{"what must not be hidden", l2tp.Text(l2tp.AVPHostName, "x"), key("s"), l2tp.ErrHidden},
		{"without a secret", l2tp.Text(l2tp.AVPCalledNumber, "x"), secret.Key{}, l2tp.ErrHidden},
		{"what does not fit", l2tp.Bytes(l2tp.AVPCalledNumber, make([]byte, l2tp.MaxHidden+1)), key("s"), wire.ErrLength},
	} {
		if _, err := l2tp.Hide(zeros{}, tt.key, tt.avp); !errors.Is(err, tt.want) {
			t.Errorf("%s: err = %v, want %v", tt.name, err, tt.want)
		}
	}
	if avps, err := l2tp.Hide(zeros{}, key("s"), l2tp.Bytes(l2tp.AVPCalledNumber, make([]byte, l2tp.MaxHidden))); err != nil || len(avps[1].Value) != l2tp.MaxValue {
		t.Errorf("the longest value: %v", err)
	}
	if _, err := l2tp.Hide(strings.NewReader("short"), key("s"), l2tp.Text(l2tp.AVPCalledNumber, "x")); err == nil {
		t.Error("hides without randomness")
	}
}

// RFC 2661 4.4.3: MD5 over the message's type, the secret and the challenge.
func TestChallengeResponse(t *testing.T) {
	challenge := []byte("sixteen bytes of")
	r := l2tp.ChallengeResponse(l2tp.SCCRP, key("secret"), challenge)
	if want := md5.Sum([]byte("\x02secretsixteen bytes of")); r != want {
		t.Errorf("%x, want %x", r, want)
	}
	reply := func(typ l2tp.MessageType, avps ...l2tp.AVP) *l2tp.Message {
		m, err := l2tp.ParseMessage(encode(typ, avps...))
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	good := l2tp.Bytes(l2tp.AVPChallengeResponse, r[:])
	for _, tt := range []struct {
		name string
		m    *l2tp.Message
		key  secret.Key
		want bool
	}{
		{"right", reply(l2tp.SCCRP, good), key("secret"), true},
		{"of another message", reply(l2tp.SCCCN, good), key("secret"), false},
		{"of another secret", reply(l2tp.SCCRP, good), key("Secret"), false},
		{"none", reply(l2tp.SCCRP), key("secret"), false},
		{"without a secret", reply(l2tp.SCCRP, good), secret.Key{}, false},
	} {
		if got := tt.m.CheckResponse(tt.key, challenge); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}
