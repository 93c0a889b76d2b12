package reliable

import (
	"encoding/binary"
	"errors"
	"time"

	"twinkey/proto/l2tp"
)

// Defaults (RFC 2661 5.8). Native mode opens many calls at once and splits flights, hence
// a window above the RFC's 4.
const (
	DefaultWindow  = 16
	DefaultBase    = time.Second
	DefaultCap     = 8 * time.Second
	DefaultRetries = 5
	DefaultQueue   = 4096

	unknownWindow = 4 // of a peer that has not said (RFC 2661 4.4.3)

	// amplification bounds what a Passive channel sends, in bytes for each that came: what
	// RFC 9000 8.1 allows towards an address that may be a victim's.
	amplification = 3
	reached       = -1 // credit of a peer that is known to be there
)

// Errors of Send.
var (
	ErrQueue = errors.New("too many control messages wait to be sent")
	ErrOver  = errors.New("control channel is closed")
)

// Config of a channel; zero values mean the defaults.
type Config struct {
	Window    uint16        // how many messages the peer may send ahead, at most 64
	RetryBase time.Duration // from sending to the first repetition
	RetryCap  time.Duration // longest time between two repetitions
	Retries   int           // repetitions before the peer counts as gone
	Queue     int           // how many messages may wait for an acknowledgement or the window
	Hello     time.Duration // silence after which HELLO is sent; 0: never
	Passive   bool          // until Prove, nothing is repeated by a timer
}

// Arrival says what became of a message that was received.
type Arrival uint8

// The arrivals.
const (
	Due       Arrival = iota // next in order: act on it, and say Accept
	Early                    // kept, Next will give it back
	Duplicate                // seen before; its acknowledgement is sent again
	Beyond                   // outside the window; dropped
)

// Channel is one end of the reliable delivery of control messages.
type Channel struct {
	c      Config
	tunnel uint16 // the peer's ID, in headers to it; 0: not known yet

	queue  []pending // not acknowledged, oldest first
	flying int       // of queue: sent, and not given up as lost
	next   uint16    // number of the next message that is queued
	top    uint16    // number behind the highest that was ever sent
	window congestion
	timer  timer
	failed bool
	closed bool // Finish or Stop was called
	credit int  // bytes that may be sent to a peer that was not Reached

	in    inbound
	heard time.Time // anything
	data  time.Time // by Heard
	ack   [l2tp.ControlHeaderLen]byte
}

// inbound is what was received.
type inbound struct {
	next   uint16            // number that is expected next: our Nr
	early  map[uint16][]byte // by number
	ackDue bool
}

// pending is a message that is not acknowledged.
type pending struct {
	ns    uint16
	msg   []byte
	hello bool
	due   bool // to be sent by the next Poll
}

// timer is that of retransmission.
type timer struct {
	interval time.Duration
	at       time.Time // zero: it doesn't run
	tries    int
}

// New returns a channel on which nothing was sent or received.
func New(now time.Time, c Config) *Channel {
	if c.Window == 0 {
		c.Window = DefaultWindow
	}
	c.Window = min(c.Window, maxWindow)
	if c.RetryBase == 0 {
		c.RetryBase = DefaultBase
	}
	if c.RetryCap == 0 {
		c.RetryCap = DefaultCap
	}
	if c.Retries == 0 {
		c.Retries = DefaultRetries
	}
	if c.Queue == 0 {
		c.Queue = DefaultQueue
	}
	return &Channel{c: c, window: newCongestion(unknownWindow), timer: timer{interval: c.RetryBase}, heard: now}
}

// Window is the receive window to announce to the peer.
func (c *Channel) Window() uint16 { return c.c.Window }

// Cycle is how long it takes from sending a message to giving the peer up: 31 s by
// default, the full retransmission cycle of RFC 2661 5.7.
func (c *Channel) Cycle() time.Duration {
	var d time.Duration
	for i, step := 0, c.c.RetryBase; i <= c.c.Retries; i++ {
		d += step
		step = min(2*step, c.c.RetryCap)
	}
	return d
}

// SetPeer notes the peer's tunnel ID and window, also for messages that wait.
func (c *Channel) SetPeer(now time.Time, tunnel, window uint16) {
	c.tunnel = tunnel
	c.window.announce(int(window))
	for _, p := range c.queue {
		setTunnel(p.msg, tunnel)
	}
	c.fill(now)
}

// SetHello changes the silence after which HELLO is sent; 0: never.
func (c *Channel) SetHello(d time.Duration) { c.c.Hello = d }

// Reached notes that the peer has used the tunnel ID that we gave it: it receives what is
// sent to it, as far as a guess at 16 bits can be excluded. A Passive channel no
// longer counts bytes, but has still no timer.
func (c *Channel) Reached() { c.credit = reached }

// Prove ends Passive: the peer has shown that it receives what we send.
func (c *Channel) Prove(now time.Time) {
	if c.c.Passive {
		c.c.Passive = false
		c.heard = now
		c.arm(now)
	}
}

// Send queues a whole control message, which the channel keeps; it fills in Tunnel ID, Ns
// and Nr.
func (c *Channel) Send(now time.Time, msg []byte) error {
	switch {
	case c.closed:
		return ErrOver
	case len(c.queue) >= c.c.Queue:
		return ErrQueue
	}
	c.push(now, msg, false)
	return nil
}

// Finish queues the last message: those that were never sent are dropped, and it waits for
// no congestion window. Send fails from now on.
func (c *Channel) Finish(now time.Time, msg []byte) {
	if c.closed {
		return
	}
	c.closed = true
	kept := 0
	for kept < len(c.queue) && before(c.queue[kept].ns, c.top) {
		kept++
	}
	clear(c.queue[kept:])
	c.queue, c.next = c.queue[:kept], c.top
	c.window.cwnd = max(c.window.cwnd, kept+1)
	c.push(now, msg, false)
}

// Stop drops everything that waits; what arrives is still acknowledged.
func (c *Channel) Stop() {
	c.closed = true
	c.queue, c.flying, c.timer.at = nil, 0, time.Time{}
}

// Mute is Stop, and nothing is acknowledged from now on.
func (c *Channel) Mute() {
	c.Stop()
	c.in.ackDue, c.tunnel = false, 0
}

func (c *Channel) push(now time.Time, msg []byte, hello bool) {
	setTunnel(msg, c.tunnel)
	binary.BigEndian.PutUint16(msg[8:], c.next)
	c.queue = append(c.queue, pending{ns: c.next, msg: msg, hello: hello})
	c.next++
	c.fill(now)
}

func setTunnel(msg []byte, id uint16) { binary.BigEndian.PutUint16(msg[4:], id) }

// fill lets as many messages fly as the windows allow.
func (c *Channel) fill(now time.Time) {
	limit := c.window.limit()
	if len(c.queue) > 0 && c.queue[0].hello {
		limit++ // a peer that leaves HELLO unanswered still gets what stands behind it
	}
	for c.flying < len(c.queue) && c.flying < limit {
		p := &c.queue[c.flying]
		p.due = true
		c.flying++
		if !before(p.ns, c.top) {
			c.top = p.ns + 1
		}
	}
	if c.timer.at.IsZero() {
		c.arm(now)
	}
}

// before compares numbers modulo 2^16 (RFC 2661 5.8).
func before(a, b uint16) bool { return int16(a-b) < 0 }

// arm starts the timer of retransmission anew, if there is anything to repeat.
func (c *Channel) arm(now time.Time) {
	c.timer.at = time.Time{}
	if c.flying > 0 && !c.c.Passive {
		c.timer.at = now.Add(c.timer.interval)
	}
}

// Receive takes a message whose header is h, acts on its acknowledgement and says what is
// to be done with it. It copies what it keeps. A message is in order when Due is returned,
// or when it comes from Next: the caller then acts on it after Accept, or leaves it, and it
// counts as not received.
func (c *Channel) Receive(now time.Time, h l2tp.ControlHeader, msg []byte) Arrival {
	c.heard = now
	if c.credit != reached {
		c.credit += amplification * len(msg)
	}
	c.acknowledge(now, h.Nr)
	if len(msg) == l2tp.ControlHeaderLen {
		return Duplicate // a ZLB has nothing to deliver, and its Ns moves nothing
	}
	ahead := int(int16(h.Ns - c.in.next))
	switch {
	case ahead == 0:
		return Due
	case ahead < 0: // the acknowledgement was lost, so it is repeated
		c.in.ackDue = true
		c.answer()
		return Duplicate
	case ahead >= int(c.c.Window):
		return Beyond
	}
	if c.in.early == nil {
		c.in.early = make(map[uint16][]byte)
	}
	if _, ok := c.in.early[h.Ns]; !ok { // the first to come counts: a later one with its number is a repetition
		c.in.early[h.Ns] = append([]byte(nil), msg...)
	}
	c.in.ackDue = true
	return Early
}

// Accept counts the message that is due as received.
func (c *Channel) Accept() {
	c.in.next++
	c.in.ackDue = true
	c.answer()
}

// answer repeats what a peer lacks that has asked again, or has asked whether we are there.
func (c *Channel) answer() {
	if c.c.Passive {
		for i := range c.queue[:c.flying] {
			c.queue[i].due = true
		}
	}
}

// Next returns an early message that is due now; it is the caller's.
func (c *Channel) Next() ([]byte, bool) {
	m, ok := c.in.early[c.in.next]
	delete(c.in.early, c.in.next)
	return m, ok
}

// acknowledge drops what the peer has. An Nr that was said before, or of what was never
// sent, says nothing.
func (c *Channel) acknowledge(now time.Time, nr uint16) {
	if len(c.queue) == 0 {
		return
	}
	first := c.queue[0].ns
	n := int(nr - first)
	if n == 0 || n > int(c.top-first) {
		return
	}
	clear(c.queue[:n])
	if c.queue = c.queue[n:]; len(c.queue) == 0 {
		c.queue = nil
	}
	c.flying = max(c.flying-n, 0) // less: it had arrived although we were about to repeat it
	c.window.acknowledged()
	c.timer.tries, c.timer.interval = 0, c.c.RetryBase
	c.arm(now)
	c.fill(now)
}

// Advance repeats what is due, and sends HELLO after silence.
func (c *Channel) Advance(now time.Time) {
	if !c.timer.at.IsZero() && !now.Before(c.timer.at) {
		c.expire(now)
	}
	if at := c.helloAt(); !at.IsZero() && !now.Before(at) {
		c.push(now, l2tp.AppendMessage(nil, l2tp.ControlHeader{}, 0, l2tp.HELLO), true)
	}
}

// expire repeats the oldest message, or gives the peer up.
func (c *Channel) expire(now time.Time) {
	if c.timer.tries >= c.c.Retries {
		if !c.queue[0].hello || now.Sub(c.data) > max(c.c.Hello, c.c.RetryCap) {
			c.failed = true
			c.Mute()
			return
		}
		c.timer.tries-- // its calls pass data: HELLO is repeated until they don't
	}
	c.timer.tries++
	c.window.lost()
	for i := range c.queue[:c.flying] {
		c.queue[i].due = i == 0
	}
	c.queue[0].due = true
	c.flying = 1
	c.timer.interval = min(2*c.timer.interval, c.c.RetryCap)
	c.arm(now)
	c.fill(now)
}

// helloAt is when HELLO is sent if nothing is heard until then; zero: not now.
func (c *Channel) helloAt() time.Time {
	if c.c.Hello <= 0 || len(c.queue) > 0 || c.c.Passive || c.closed {
		return time.Time{}
	}
	return c.heard.Add(c.c.Hello)
}

// Heard notes that the peer lives, since its calls pass data that was authenticated.
func (c *Channel) Heard(now time.Time) { c.heard, c.data = now, now }

// Failed says that the peer is gone: it left the last repetition unanswered.
func (c *Channel) Failed() bool { return c.failed }

// Idle says that everything that was sent is acknowledged.
func (c *Channel) Idle() bool { return len(c.queue) == 0 }

// Queued is how many messages are not acknowledged, and how many wait for a gap to be
// filled.
func (c *Channel) Queued() (out, early int) { return len(c.queue), len(c.in.early) }

// Deadline is when Advance wants to be called; zero: nothing is pending.
func (c *Channel) Deadline() time.Time {
	if !c.timer.at.IsZero() {
		return c.timer.at
	}
	return c.helloAt()
}

// Poll returns the next message to send, valid until the next call of any method. An
// acknowledgement that no message carried is a ZLB.
func (c *Channel) Poll() ([]byte, bool) {
	for i := range c.queue[:c.flying] {
		p := &c.queue[i]
		if !p.due {
			continue
		}
		if !c.spend(len(p.msg)) {
			return nil, false
		}
		p.due, c.in.ackDue = false, false
		binary.BigEndian.PutUint16(p.msg[10:], c.in.next) // the Nr of a repetition is the present one (RFC 2661 5.8)
		return p.msg, true
	}
	if !c.in.ackDue || c.tunnel == 0 || !c.spend(l2tp.ControlHeaderLen) {
		return nil, false
	}
	c.in.ackDue = false
	return l2tp.AppendZLB(c.ack[:0], l2tp.ControlHeader{TunnelID: c.tunnel, Ns: c.top, Nr: c.in.next}), true
}

// spend says whether n bytes may be sent, and counts them.
func (c *Channel) spend(n int) bool {
	switch {
	case !c.c.Passive || c.credit == reached:
		return true
	case c.credit < n:
		return false
	}
	c.credit -= n
	return true
}
