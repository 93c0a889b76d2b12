package link

import (
	"io"
	"net/netip"

	"twinkey/proto/ppp"
)

// verdict gathers the answer to a Configure-Request.
type verdict struct{ naks, rejects []byte }

// nak names a value that would do, or rejects the option if it may not.
func (v *verdict) nak(o ppp.Option, may bool, better []byte) {
	if !may {
		v.reject(o)
		return
	}
	v.naks = append(v.naks, better...)
}

func (v *verdict) reject(o ppp.Option) { v.rejects = o.Append(v.rejects) }

// answer is one of three: a rejected option goes before one with a bad value (RFC 1661
// section 5.4), and without either the whole list comes back as it was.
func (v *verdict) answer(list ppp.Options) (ppp.Code, []byte) {
	switch {
	case len(v.rejects) > 0:
		return ppp.ConfigureReject, v.rejects
	case len(v.naks) > 0:
		return ppp.ConfigureNak, v.naks
	}
	return ppp.ConfigureAck, list.Bytes()
}

// ipcpOptions is what IPCP negotiates.
type ipcpOptions struct {
	cfg   *IPv4Config
	local netip.Addr // as we ask for it now; the zero Addr: we ask for none
	peer  netip.Addr // as it has asked and been granted; the zero Addr: none
}

func (o *ipcpOptions) reset() {
	*o = ipcpOptions{cfg: o.cfg, peer: o.peer}
	if o.cfg.Local.Is4() {
		o.local = o.cfg.Local
	}
}

func (o *ipcpOptions) appendRequest(b []byte) []byte {
	if o.local.IsValid() {
		b = ppp.AppendIPv4(b, ppp.OptIPAddress, o.local)
	}
	return b
}

func (o *ipcpOptions) agreed() netip.Addr { return o.local }

func (o *ipcpOptions) judge(list ppp.Options, mayNak bool) (ppp.Code, []byte) {
	var v verdict
	var peer netip.Addr
	for opt := range list.All() {
		if opt.Type != ppp.OptIPAddress {
			v.reject(opt)
			continue
		}
		peer = opt.IPv4()
		switch {
		case o.allows(peer):
		case o.cfg.Assign.Is4():
			v.nak(opt, mayNak, ppp.AppendIPv4(nil, opt.Type, o.cfg.Assign))
		default:
			v.reject(opt)
		}
	}
	code, reply := v.answer(list)
	if code == ppp.ConfigureAck {
		o.peer = peer
	}
	return code, reply
}

func (o *ipcpOptions) allows(a netip.Addr) bool {
	if !unicast(a) {
		return false
	}
	if o.cfg.Allow == nil {
		return a == o.cfg.Assign
	}
	return o.cfg.Allow(a)
}

// unicast tells whether a host may have the address.
func unicast(a netip.Addr) bool {
	return a.Is4() && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

func (o *ipcpOptions) nak(opt ppp.Option, last bool) Reason {
	if opt.Type != ppp.OptIPAddress || !o.local.IsValid() {
		return NoReason
	}
	if a := opt.IPv4(); o.cfg.Local.IsUnspecified() && unicast(a) {
		o.local = a
		return NoReason
	}
	if last {
		return Rejected // it is this address or no traffic at all
	}
	return NoReason
}

func (o *ipcpOptions) ack() Reason {
	if o.local.IsValid() && o.local.IsUnspecified() {
		return Rejected // we asked for an address, and were told that 0.0.0.0 is fine
	}
	return NoReason
}

func (o *ipcpOptions) reject(opt ppp.Option) Reason {
	if opt.Type != ppp.OptIPAddress {
		return NoReason
	}
	if o.cfg.Local.IsUnspecified() {
		return Rejected // without an address there is nothing to send from
	}
	o.local = netip.Addr{}
	return NoReason
}

// ipv6cpOptions is what IPV6CP negotiates.
type ipv6cpOptions struct {
	cfg   *IPv6Config
	rand  io.Reader
	local [8]byte // as we ask for it now; zero asks the peer for one
	hint  [8]byte // identifier of our last Configure-Nak
	peer  [8]byte // as it has asked and been granted
	left  bool    // we ask for none any more
}

func (o *ipv6cpOptions) reset() {
	*o = ipv6cpOptions{cfg: o.cfg, rand: o.rand, local: o.cfg.Interface, peer: o.peer}
	if !o.fixed() {
		o.local = o.draw()
	}
}

func (o *ipv6cpOptions) fixed() bool { return o.cfg.Interface != [8]byte{} }

// draw makes an identifier with the universal/local bit clear (RFC 5072 section 4.1,
// case 3); zero if there is no randomness.
func (o *ipv6cpOptions) draw() (id [8]byte) {
	if o.rand == nil {
		return id
	}
	if _, err := io.ReadFull(o.rand, id[:]); err != nil {
		return [8]byte{}
	}
	id[0] &^= 0x02
	return id
}

func (o *ipv6cpOptions) appendRequest(b []byte) []byte {
	if !o.left {
		b = ppp.Option{Type: ppp.OptInterfaceID, Data: o.local[:]}.Append(b)
	}
	return b
}

func (o *ipv6cpOptions) agreed() (id [8]byte) {
	if !o.left {
		id = o.local
	}
	return id
}

func (o *ipv6cpOptions) judge(list ppp.Options, mayNak bool) (ppp.Code, []byte) {
	var v verdict
	var peer [8]byte
	for opt := range list.All() {
		if opt.Type != ppp.OptInterfaceID {
			v.reject(opt)
			continue
		}
		peer = opt.InterfaceID()
		switch zero := [8]byte{}; {
		case peer == zero || peer == o.local:
			// Another one is named; where none can be drawn, "Configure-Reject".
			if o.hint = o.draw(); o.hint != zero && o.hint == o.local {
				o.hint[7] ^= 1
			}
			v.nak(opt, mayNak && o.hint != zero, ppp.Option{Type: opt.Type, Data: o.hint[:]}.Append(nil))
		case o.cfg.Allow != nil && !o.cfg.Allow(peer):
			v.reject(opt)
		}
	}
	code, reply := v.answer(list)
	if code == ppp.ConfigureAck {
		o.peer = peer
	}
	return code, reply
}

func (o *ipv6cpOptions) nak(opt ppp.Option, last bool) Reason {
	if opt.Type != ppp.OptInterfaceID || o.left {
		return NoReason
	}
	if last {
		if o.fixed() {
			return Rejected
		}
		o.left = true
		return NoReason
	}
	if o.fixed() {
		return NoReason
	}
	// "different from the one in the last Configure-Nak sent": the peer's wish is unique;
	// else both have drawn alike, or the link is looped.
	if id := opt.InterfaceID(); id != o.hint && id != [8]byte{} {
		o.local = id
	} else {
		o.local = o.draw()
	}
	return NoReason
}

func (o *ipv6cpOptions) ack() Reason {
	if !o.left && o.local == [8]byte{} {
		return Rejected // zero is a question, not an identifier
	}
	return NoReason
}

func (o *ipv6cpOptions) reject(opt ppp.Option) Reason {
	if opt.Type == ppp.OptInterfaceID {
		o.left = true
	}
	return NoReason
}

// linkLocal is the address that an identifier makes (RFC 5072 section 5); the zero Addr
// for identifier zero.
func linkLocal(id [8]byte) netip.Addr {
	if id == [8]byte{} {
		return netip.Addr{}
	}
	a := [16]byte{0: 0xfe, 1: 0x80}
	copy(a[8:], id[:])
	return netip.AddrFrom16(a)
}
