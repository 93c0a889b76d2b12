package native

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"twinkey/pkg/twincert"
	"twinkey/proto/handshake"
)

// Signer is the router that vouches for the tunnels that we begin: we ourselves, or, on a user's own machine, the router in
// front of it.
type Signer interface {
	// Sign calls done once, before it returns or later; then from where the Endpoint's methods are called. It waits for nothing.
	Sign(now time.Time, s handshake.Statement, done func(now time.Time, v handshake.Voucher, err error))
}

// LocalSigner signs at once.
type LocalSigner struct {
	Router []byte                              // TLS certificate, DER
	By     func(digest []byte) ([]byte, error) // by the key of Router, low-S
}

// Sign implements Signer.
func (l LocalSigner) Sign(now time.Time, s handshake.Statement, done func(time.Time, handshake.Voucher, error)) {
	d := s.Digest()
	signature, err := l.By(d[:])
	done(now, handshake.Voucher{Router: l.Router, Signature: signature}, err)
}

// Held is what a router holds a tunnel to that one of its users begins from their own machine: calls in it are of the user
// whose certificate was shown, from this address, until then.
//
//	| seconds since 1970 (8) | address (4 or 16) |
type Held struct {
	Address netip.Addr
	Until   time.Time
}

// ErrHeld says that a tunnel is used for what its router has not vouched for.
var ErrHeld = errors.New("the router in front has not vouched for this")

// Append appends h as it stands in a handshake.Statement.
func (h Held) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(h.Until.Unix())) //nolint:gosec // after 1970
	return append(b, h.Address.AsSlice()...)
}

// ParseHeld is the inverse of Append.
func ParseHeld(b []byte) (Held, error) {
	if len(b) < 8 {
		return Held{}, fmt.Errorf("%w: what it is held to is cut", ErrHeld)
	}
	seconds := binary.BigEndian.Uint64(b)
	a, ok := netip.AddrFromSlice(b[8:])
	if !ok || a.Is4In6() || seconds>>40 != 0 {
		return Held{}, fmt.Errorf("%w: what it is held to cannot be read", ErrHeld)
	}
	return Held{Address: a, Until: time.Unix(int64(seconds), 0)}, nil //nolint:gosec // 40 bits
}

// introduce has our router vouch for us (initiator). Where it has to be asked, other tunnels go on meanwhile; this one
// waits for as long as its set-up may take.
func (t *tunnelState) introduce(now time.Time) error {
	s, ok := t.hs.Statement()
	if !ok {
		return errUnexpected
	}
	hs := t.hs
	t.e.c.Self().Signer.Sign(now, s, func(now time.Time, v handshake.Voucher, err error) {
		if t.hs != hs || t.closing || t.e.tunnels[t.id] != t {
			return // given up meanwhile
		}
		if err == nil {
			err = hs.Vouch(v)
		}
		if err == nil {
			err = t.connect(now)
		}
		if err != nil {
			t.endSessions(now, "no router vouches for us: "+err.Error())
			t.close(now, resultTunnelAuth, "not authorized")
			return
		}
		t.settle(now)
	})
	return nil
}

// hold notes what the far router holds this tunnel to (terminator).
func (t *tunnelState) hold(now time.Time, bound []byte, c *twincert.Certificate) error {
	if len(bound) == 0 {
		return nil
	}
	h, err := ParseHeld(bound)
	switch {
	case err != nil:
		return err
	case c.Role != twincert.User:
		return fmt.Errorf("%w: it shows the certificate of %s %s", ErrHeld, c.Role, c.Name)
	case now.After(h.Until):
		return fmt.Errorf("%w: its word was good until %s", ErrHeld, h.Until.UTC().Format(time.DateTime))
	}
	t.held = &h
	return nil
}

// mayHold says whether a call of this certificate may be in the tunnel.
func (t *tunnelState) mayHold(c *twincert.Certificate) error {
	if t.held != nil && c.ID() != t.cert.ID() {
		return fmt.Errorf("%w: the tunnel is %s's, the call %s's", ErrHeld, t.cert.Name, c.Name)
	}
	return nil
}

// overheld says whether the word for the tunnel is no longer good.
func (t *tunnelState) overheld(now time.Time) bool { return t.held != nil && now.After(t.held.Until) }
