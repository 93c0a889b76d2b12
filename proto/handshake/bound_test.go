package handshake_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"errors"
	"slices"
	"testing"

	"twinkey/proto/handshake"
)

// elsewhere is an initiator's configuration whose router has to be asked.
func elsewhere(p party) handshake.TunnelConfig {
	c := tunnelConfig(p, 0x1001, true)
	c.Sign, c.Router = nil, nil
	return c
}

// untilVouched runs a tunnel's handshake up to where message 3 is due.
func untilVouched(t *testing.T, d dialogue) *handshake.Tunnel {
	t.Helper()
	for turn := 1; turn <= 2; turn++ {
		from, to := d.sides(turn)
		msg, err := from.Write()
		if err == nil {
			err = to.Read(msg)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return d.i.(*handshake.Tunnel)
}

// finish carries message 3.
func finish(d dialogue) error {
	msg, err := d.i.Write()
	if err != nil {
		return err
	}
	return d.r.Read(msg)
}

func signed(t *testing.T, by party, s handshake.Statement) []byte {
	t.Helper()
	digest := s.Digest()
	b, err := ecdsa.SignASN1(rand.Reader, by.sign, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A signature that is fetched from elsewhere does what one that is made at once does.
func TestVouchLater(t *testing.T) {
	a, b := newParty(t, "ra"), newParty(t, "rb")
	for name, bound := range map[string][]byte{"for whoever holds the key": nil, "for one user": []byte("10.1.1.3")} {
		d := newTunnel(t, elsewhere(a), tunnelConfig(b, 0x2002, true))
		early := handshake.Voucher{Router: a.router, Signature: []byte("too early")}
		if err := d.i.(*handshake.Tunnel).Vouch(early); !errors.Is(err, handshake.ErrState) {
			t.Errorf("%s: vouched for before there is anything to sign: %v", name, err)
		}
		i := untilVouched(t, d)
		if _, err := i.Write(); !errors.Is(err, handshake.ErrState) {
			t.Errorf("%s: message 3 without a signature: %v", name, err)
		}
		for _, v := range []handshake.Voucher{
			{Router: a.router},
			{Signature: []byte{1}},
			{Router: a.router, Signature: make([]byte, 257)},
			{Router: make([]byte, handshake.MaxRouter+1), Signature: []byte{1}},
			{Router: a.router, Signature: []byte{1}, Bound: make([]byte, handshake.MaxBound+1)},
		} {
			if err := i.Vouch(v); !errors.Is(err, handshake.ErrConfig) {
				t.Errorf("%s: certificate of %d bytes, signature of %d, bound to %d: %v", name, len(v.Router), len(v.Signature), len(v.Bound), err)
			}
		}
		s, ok := i.Statement()
		if !ok || s.Control != a.control.Public || !bytes.Equal(s.Certificate, a.cert) {
			t.Fatalf("%s: statement %+v, %v", name, s, ok)
		}
		s.Bound = bound
		if err := i.Vouch(handshake.Voucher{Router: a.router, Bound: bound, Signature: signed(t, a, s)}); err != nil {
			t.Fatal(err)
		}
		if err := finish(d); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if r, ok := d.r.(*handshake.Tunnel).Result(); !ok || !bytes.Equal(r.Peer.Bound, bound) {
			t.Errorf("%s: the responder hears %q", name, r.Peer.Bound)
		}
		if _, ok := i.Statement(); ok {
			t.Errorf("%s: there is still something to sign", name)
		}
	}
}

// What a router has signed for one user is good for no other of the group, for no other address, and not without them.
func TestBoundSignatureIsForOneUser(t *testing.T) {
	a, b := newParty(t, "ra"), newParty(t, "rb")
	bound, other := []byte("10.1.1.3"), slices.Concat(a.cert, []byte("of the same group"))
	for name, tt := range map[string]struct {
		says handshake.Statement // what is signed, besides hash and key
		show []byte              // what the initiator says it is bound to
	}{
		"another's certificate": {handshake.Statement{Certificate: other, Bound: bound}, bound},
		"another address":       {handshake.Statement{Certificate: a.cert, Bound: bound}, []byte("10.1.1.4")},
		"shown as not bound":    {handshake.Statement{Certificate: a.cert, Bound: bound}, nil},
		"signed as not bound":   {handshake.Statement{Certificate: a.cert}, bound},
		"cut in another place": {handshake.Statement{
			Certificate: a.cert[:len(a.cert)-1], Bound: slices.Concat(a.cert[len(a.cert)-1:], bound)}, bound},
	} {
		d := newTunnel(t, elsewhere(a), tunnelConfig(b, 0x2002, true))
		i := untilVouched(t, d)
		s, _ := i.Statement()
		tt.says.Hash, tt.says.Control = s.Hash, s.Control
		if err := i.Vouch(handshake.Voucher{Router: a.router, Bound: tt.show, Signature: signed(t, a, tt.says)}); err != nil {
			t.Fatal(err)
		}
		if err := finish(d); !errors.Is(err, handshake.ErrVerify) || !errors.Is(err, errForged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
