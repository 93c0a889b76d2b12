package engine

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"slices"
	"time"

	"twinkey/pkg/udpio"
	"twinkey/proto/esp"
	"twinkey/proto/gso"
	"twinkey/proto/ip"
	"twinkey/router/internal/calls"
)

const (
	// headroom holds ESP header and IV (at most 24 bytes), UDP (8), L2TP (6), PPP (4), or a
	// virtio-net header.
	headroom = 64
	// tailroom holds padding, trailer and the longest ICV.
	tailroom  = 48
	maxPacket = 65535
	udpLen    = 4 // offset of the length in a UDP header

	// arenaSize holds one train of ordinary segments, sealed, behind a batch of packets.
	arenaSize = 128 << 10
	arenaLow  = 80 << 10 // room that the next train should find
	maxTrains = 32

	// replyPause bounds the ICMP errors that a worker makes, as RFC 1812 section 4.3.2.8 demands.
	replyPause = 10 * time.Millisecond
)

// outbox is the sending half of a worker: one packet or train as it came, and the sealed
// datagrams that go next.
type outbox struct {
	split    gso.Splitter
	src      []byte // the packet or train stands at headroom
	arena    []byte
	used     int // bytes of arena
	next     int // the first train that was not sent yet
	n        int // trains
	open     bool
	train    [maxTrains]udpio.Train
	together *esp.Outbound // whose packets wait
	waiting  []esp.Pending
	fragment []byte        // stands at headroom
	reply    []byte        // an ICMP error to be
	quiet    time.Duration // no ICMP error before this long after the engine's start
}

func (o *outbox) init() {
	o.src = make([]byte, headroom+maxPacket+tailroom)
	o.arena = make([]byte, arenaSize)
	o.waiting = make([]esp.Pending, 0, udpio.MaxDatagrams)
	o.fragment = make([]byte, headroom+maxPacket+tailroom)
	o.reply = make([]byte, 0, headroom+ip.MinMTUv6)
}

// pending says whether something waits for room in the socket.
func (o *outbox) pending() bool { return o.next < o.n }

// reset forgets what was sent.
func (o *outbox) reset() { o.used, o.next, o.n, o.open = 0, 0, 0, false }

// outbound takes what waits in the queue, up to a turn, and sends it. A packet that comes alone is
// sent alone: nothing that was read waits for company.
func (w *worker) outbound() (did bool, err error) {
	o := &w.out
	if o.pending() {
		done, err := w.flush()
		if err != nil || !done {
			return false, err
		}
		did = true
	}
	for i := range turnReads {
		h, n, err := w.port.Queue.Read(o.src, headroom)
		if err != nil {
			return did, err
		}
		if n == 0 {
			break
		}
		did = true
		w.rest.took(n, h.Kind == gso.None, i == turnReads-1)
		if err := w.carry(h, n); err != nil {
			return did, err
		}
		if h.Kind == gso.None && w.rest.light() {
			break // a packet that comes alone waits for no look at the queue
		}
		if o.n > 1 || len(o.arena)-o.used < arenaLow {
			if done, err := w.flushFull(); err != nil || !done {
				return did, err
			}
		}
	}
	_, err = w.flush()
	return did, err
}

// flushFull sends the trains that are full, and keeps the last one for what the next read brings: a train
// from the interface, sealed, is somewhat longer than a message may be, and its end would go as a message of its
// own. done: the socket had room.
func (w *worker) flushFull() (done bool, err error) {
	o := &w.out
	if !o.open || o.n == 1 {
		return w.flush()
	}
	last := o.train[o.n-1]
	o.n--
	if done, err = w.flush(); err != nil || !done {
		o.train[o.n] = last
		o.n++
		return done, err
	}
	o.used = copy(o.arena, last.Buf[:last.N])
	last.Buf = o.arena
	o.train[0], o.n, o.open = last, 1, true
	return true, nil
}

// flush sends what is sealed. What the socket has no room for stays pending, and done is false.
func (w *worker) flush() (done bool, err error) {
	o := &w.out
	w.seals()
	for o.pending() {
		n, err := w.port.Conn.Send(o.train[o.next:o.n])
		o.next += n
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return false, err
			}
			w.e.drops.SendFailed.Add(1) // trouble with a destination is no failure
		}
		if n == 0 {
			o.open = false
			return false, nil
		}
	}
	o.reset()
	return true, nil
}

// carry seals the packet or train src[headroom:headroom+n] for its call, or drops and counts it.
func (w *worker) carry(h gso.Header, n int) error {
	o, d := &w.out, &w.e.drops
	p, err := ip.Parse(o.src[headroom : headroom+n])
	if err != nil {
		d.BadPacket.Add(1)
		return nil
	}
	src, dst := p.Src(), p.Dst()
	c := w.e.table.Routes().Lookup(src, dst)
	if c == nil && slices.ContainsFunc(w.e.nowhere(), func(p netip.Prefix) bool { return p.Contains(dst) }) {
		d.Withheld.Add(1)
		return w.answer(func(b []byte) ([]byte, error) { return ip.AppendProhibited(b, dst, p) })
	}
	if c == nil {
		d.NoCall.Add(1)
		select {
		case w.e.demand <- dst:
		default: // asked often enough
		}
		return nil
	}
	if !c.MaySend(src) {
		c.ForeignSource.Add(1)
		return nil
	}
	if !c.Filter().Enters(p) {
		c.Denied.Add(1)
		return nil
	}
	out := c.Out()
	if out == nil {
		d.NotUp.Add(1)
		return nil
	}
	prefix, next := out.Prefix4, uint8(esp.NextIPv4)
	if src.Is6() {
		prefix, next = out.Prefix6, esp.NextIPv6
	}
	if len(prefix) == 0 {
		d.NotUp.Add(1)
		return nil
	}
	short := out.Short && p.CanShorten()
	switch {
	case short && h.Kind == gso.None && !p.HeaderOK(): // the short form would heal it
		d.BadPacket.Add(1)
		return nil
	case short:
		prefix, next = nil, esp.NextShortIPv4
	case out.Bare:
		prefix = nil
	default:
		next = esp.NextUDP
	}
	syn, most := isSYN(p), out.Longest(short)
	// A checksum that we change, or that a fragment cuts off from what it sums, is completed first.
	cut := most > 0 && !p.DontFragment()
	if err := o.split.Reset(h, o.src, headroom, p.Len(), syn || cut || !out.LeaveChecksums); err != nil {
		d.BadPacket.Add(1)
		return nil
	}
	long := most > 0 && o.split.Largest() > most
	if long && !cut {
		return w.tooBig(p, most)
	}
	if out.Compress {
		w.lz4.flow = flowOf(c, p)
	}
	for {
		at, n, ok := o.split.Next()
		if !ok {
			return nil
		}
		if syn && most > 0 {
			ip.ClampMSS(p, most)
		}
		if long && n > most {
			err = w.fragments(c, out, prefix, next, o.src[at:at+n], most)
		} else {
			err = w.seal(c, out, prefix, next, o.src, at, n)
		}
		if err != nil {
			return err
		}
	}
}

// fragments seals the fragments of an IPv4 packet that is too long for its path and may be cut.
func (w *worker) fragments(c *calls.Call, out *calls.Outbound, prefix []byte, next uint8, pkt []byte, most int) error {
	p, err := ip.Parse(pkt)
	if err != nil {
		w.e.drops.BadPacket.Add(1)
		return nil
	}
	buf := w.out.fragment
	for f := range ip.Fragment(p, most, buf[headroom:headroom+most]) {
		if err := w.seal(c, out, prefix, next, buf, headroom, len(f)); err != nil {
			return err
		}
	}
	return nil
}

// isSYN says whether p is a TCP segment that offers an MSS.
func isSYN(p ip.Packet) bool {
	const flags, syn = 13, 0x02
	b := p.Payload()
	return p.Protocol() == ip.TCP && !p.Fragment() && len(b) > flags && b[flags]&syn != 0
}

// seal puts the packet src[at:at+n] behind the datagrams in the arena.
func (w *worker) seal(c *calls.Call, out *calls.Outbound, prefix []byte, next uint8, src []byte, at, n int) error {
	o := &w.out
	if o.n == maxTrains || len(o.arena)-o.used < n+headroom+tailroom {
		if err := w.flushAll(); err != nil {
			return err
		}
	}
	head, size := at-len(prefix), len(prefix)+n
	if next == esp.NextShortIPv4 {
		ip.Shorten(src[at:])
		head, size = at+ip.ShortBy, n-ip.ShortBy
	} else if len(prefix) > 0 {
		copy(src[head:], prefix)
		binary.BigEndian.PutUint16(src[head+udpLen:], uint16(len(prefix)+n)) //nolint:gosec // a packet is at most 64 KiB
	}
	if out.Compress {
		if m, ok := w.lz4.pack(out, src[head:head+size], src[at:at+n], next); ok {
			c.TxPacked.Add(1)
			c.TxSaved.Add(uint64(size - m)) //nolint:gosec // what is packed is shorter
			src, head, size = w.lz4.buf, headroom-len(out.PrefixComp), m
			if out.Bare {
				next = esp.NextCompressed
			}
		}
	}
	size, err := w.put(out.SA, o.arena[o.used:], src[head:], size, next)
	if err != nil {
		w.e.drops.Exhausted.Add(1)
		return nil
	}
	c.TxPackets.Add(1)
	c.TxBytes.Add(uint64(n)) //nolint:gosec // a length
	if !o.join(size, out) {
		o.train[o.n] = udpio.Train{Buf: o.arena[o.used:], N: size, Size: size, Addr: out.To}
		o.n++
		o.open = true
	}
	o.used += size
	return nil
}

// put seals src[:n] into dst, or has it wait for others where the cipher works on several packets together.
func (w *worker) put(sa *esp.Outbound, dst, src []byte, n int, next uint8) (size int, err error) {
	o := &w.out
	if !sa.Together() {
		pkt, err := sa.SealTo(dst, src, n, next)
		return len(pkt), err
	}
	if o.together != sa || len(o.waiting) == cap(o.waiting) {
		w.seals()
	}
	p, err := sa.Prepare(dst, src, n, next)
	if err != nil {
		return 0, err
	}
	o.together, o.waiting = sa, append(o.waiting, p)
	return len(p.Pkt), nil
}

// seals seals what waits for others. It comes before anything is sent.
func (w *worker) seals() {
	o := &w.out
	if len(o.waiting) == 0 {
		return
	}
	if err := o.together.Finish(o.waiting); err != nil {
		for _, p := range o.waiting { // what could not be sealed must not leave
			clear(p.Pkt)
		}
		w.e.drops.Exhausted.Add(uint64(len(o.waiting)))
	}
	clear(o.waiting)
	o.together, o.waiting = nil, o.waiting[:0]
}

// join adds the next n bytes of the arena to the last train, if they are a datagram that fits there.
func (o *outbox) join(n int, out *calls.Outbound) bool {
	if !o.open {
		return false
	}
	t := &o.train[o.n-1]
	if t.Addr != out.To || n > t.Size || t.N+n > udpio.MaxTrain || t.N >= t.Size*udpio.MaxDatagrams {
		return false
	}
	t.N += n
	o.open = n == t.Size // a shorter one ends it
	return true
}

// flushAll sends what is sealed, however long it takes: what is being taken apart needs the room.
func (w *worker) flushAll() error {
	for {
		if done, err := w.flush(); err != nil || done {
			return err
		}
		events, err := w.port.Wait.Wait([]bool{false, false}, []bool{false, true})
		if err != nil {
			return err
		}
		if events[1].Error {
			w.trouble()
		}
	}
}

// tooBig drops a packet or train that the path does not carry and tells its sender.
func (w *worker) tooBig(p ip.Packet, most int) error {
	w.e.drops.TooBig.Add(1)
	return w.answer(func(b []byte) ([]byte, error) { return ip.AppendTooBig(b, p.Dst(), p, most) })
}

// answer writes an ICMP error that a function appends, unless there was one just now. It comes
// from where the packet was to go: an address of our own would be refused as it comes in on the TUN
// interface, and senders believe any router on the way (RFC 1191 section 3).
func (w *worker) answer(with func(b []byte) ([]byte, error)) error {
	o := &w.out
	now := w.heard()
	if now < o.quiet {
		return nil
	}
	o.quiet = now + replyPause
	reply, err := with(o.reply[:headroom])
	if err != nil {
		return nil // the rules forbid an answer
	}
	if err := w.port.Queue.Write(gso.Header{}, reply, headroom); errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
