package reliable

import (
	"encoding/binary"
	"errors"
	"time"

	"twinkey/proto/l2tp"
)

// Defaults (RFC 2661 5.8).
const (
	DefaultWindow  = 16
	DefaultBase    = time.Second
	DefaultCap     = 8 * time.Second
	DefaultRetries = 5
	maxQueue       = 4096 // messages that wait for the window
)

// ErrQueue says that more messages wait than may.
var ErrQueue = errors.New("too many control messages wait to be sent")

// Config of a channel; zero values mean the defaults.
type Config struct {
	Window    uint16        // how many messages the peer may send ahead
	RetryBase time.Duration // first retransmission
	RetryCap  time.Duration // longest interval
	Retries   int           // retransmissions before the peer counts as gone
	Hello     time.Duration // silence after which HELLO is sent; 0: never
	// Passive answers repetitions by repetitions and never repeats on its own: the peer
	// has not shown yet that it is where it says it is. Prove ends it.
	Passive bool
}

// Channel is one end of the reliable delivery of control messages (RFC 2661 5.8).
type Channel struct {
	c      Config
	tunnel uint16 // the peer's ID, in headers to it

	ns, nr  uint16    // next to send, next expected
	top     uint16    // behind the highest that was ever sent
	queue   []pending // oldest unacknowledged first
	flying  int       // of queue, those that were sent
	peerWin int
	cwnd    int // congestion window (appendix A)
	thresh  int
	credit  int // acknowledgements toward the next growth of cwnd

	rto    time.Duration
	due    time.Time // of the retransmission; zero: nothing flies
	tries  int
	heard  time.Time
	ackDue bool
	failed bool

	early     map[uint16][]byte
	delivered [][]byte
	out       [][]byte
}

type pending struct {
	ns    uint16
	msg   []byte
	hello bool
}

// New returns a channel at the start of its life.
func New(now time.Time, c Config) *Channel {
	if c.Window == 0 {
		c.Window = DefaultWindow
	}
	if c.RetryBase == 0 {
		c.RetryBase = DefaultBase
	}
	if c.RetryCap == 0 {
		c.RetryCap = DefaultCap
	}
	if c.Retries == 0 {
		c.Retries = DefaultRetries
	}
	return &Channel{c: c, peerWin: 4, cwnd: 1, thresh: 4, rto: c.RetryBase, heard: now}
}

// SetPeer notes the peer's tunnel ID and window; what waits is sent with them.
func (c *Channel) SetPeer(tunnel, window uint16) {
	c.tunnel, c.peerWin, c.thresh = tunnel, int(window), int(window)
	for i := range c.queue {
		binary.BigEndian.PutUint16(c.queue[i].msg[4:], tunnel)
	}
}

// Prove ends Passive: the peer has shown that it receives what we send.
func (c *Channel) Prove(now time.Time) {
	c.c.Passive = false
	c.arm(now)
}

// Send queues a message for the peer's session (0: the tunnel) with this body.
func (c *Channel) Send(now time.Time, session uint16, body []byte) error {
	return c.send(now, session, body, false)
}

func (c *Channel) send(now time.Time, session uint16, body []byte, hello bool) error {
	if len(c.queue) >= maxQueue {
		return ErrQueue
	}
	ns := c.ns
	if n := len(c.queue); n > 0 {
		ns = c.queue[n-1].ns + 1
	}
	h := l2tp.ControlHeader{TunnelID: c.tunnel, SessionID: session, Ns: ns, Nr: c.nr}
	c.queue = append(c.queue, pending{ns: h.Ns, msg: append(h.Append(make([]byte, 0, l2tp.ControlHeaderLen+len(body)), len(body)), body...), hello: hello})
	c.fill(now)
	return nil
}

// fill sends what the windows allow.
func (c *Channel) fill(now time.Time) {
	for c.flying < len(c.queue) && c.flying < min(c.cwnd, c.peerWin) {
		c.transmit(c.flying)
		c.flying++
		c.ns++
		if int16(c.ns-c.top) > 0 {
			c.top = c.ns
		}
		if c.due.IsZero() {
			c.arm(now)
		}
	}
}

// transmit sends queue[i] with the present Nr.
func (c *Channel) transmit(i int) {
	msg := append([]byte(nil), c.queue[i].msg...)
	binary.BigEndian.PutUint16(msg[10:], c.nr)
	c.ackDue = false
	c.out = append(c.out, msg)
}

func (c *Channel) arm(now time.Time) {
	c.due = time.Time{}
	if c.flying > 0 && !c.c.Passive {
		c.due = now.Add(c.rto)
	}
}

// Receive takes a whole control message whose header was parsed. What can be delivered
// is found by Next.
func (c *Channel) Receive(now time.Time, h l2tp.ControlHeader, msg []byte) {
	c.heard = now
	c.acknowledge(now, h.Nr)
	if len(msg) == l2tp.ControlHeaderLen {
		return // ZLB: its Ns counts for nothing
	}
	switch d := int16(h.Ns - c.nr); {
	case d < 0: // seen before: the acknowledgement was lost
		c.ackDue = true
		if c.c.Passive {
			for i := range c.flying {
				c.transmit(i)
			}
		}
	case d == 0:
		c.deliver(msg)
		for {
			m, ok := c.early[c.nr]
			if !ok {
				break
			}
			delete(c.early, c.nr)
			c.deliver(m)
		}
	case int(d) < int(c.c.Window): // early: kept until the gap is filled
		if c.early == nil {
			c.early = make(map[uint16][]byte)
		}
		c.early[h.Ns] = append([]byte(nil), msg...)
		c.ackDue = true
	}
}

func (c *Channel) deliver(msg []byte) {
	c.delivered = append(c.delivered, append([]byte(nil), msg...))
	c.nr++
	c.ackDue = true
}

// acknowledge drops what the peer has, and opens the congestion window.
func (c *Channel) acknowledge(now time.Time, nr uint16) {
	if len(c.queue) == 0 {
		return
	}
	first := c.queue[0].ns
	n := int(int16(nr - first))
	if n <= 0 || n > int(c.top-first) {
		return
	}
	clear(c.queue[:n])
	c.queue = c.queue[n:]
	if c.flying -= n; c.flying < 0 { // it had arrived although we were about to repeat it
		c.flying, c.ns = 0, nr
	}
	if len(c.queue) == 0 {
		c.queue = nil
	}
	for range n { // slow start, then congestion avoidance (appendix A)
		if c.cwnd < c.thresh {
			c.cwnd++
		} else if c.credit++; c.credit >= c.cwnd {
			c.credit = 0
			c.cwnd++
		}
	}
	c.cwnd = min(c.cwnd, c.peerWin)
	c.tries, c.rto = 0, c.c.RetryBase
	c.arm(now)
	c.fill(now)
}

// Next returns the next message in order.
func (c *Channel) Next() ([]byte, bool) {
	if len(c.delivered) == 0 {
		return nil, false
	}
	m := c.delivered[0]
	c.delivered = c.delivered[1:]
	return m, true
}

// Advance repeats what is due, and sends HELLO after silence.
func (c *Channel) Advance(now time.Time) {
	if !c.due.IsZero() && !now.Before(c.due) {
		if c.tries >= c.c.Retries {
			c.failed = true
			c.due = time.Time{}
			return
		}
		c.tries++
		c.thresh, c.cwnd = max(c.cwnd/2, 1), 1
		c.flying, c.ns = 1, c.queue[0].ns+1 // what is not acknowledged flies again as the window opens
		c.rto = min(2*c.rto, c.c.RetryCap)
		c.transmit(0)
		c.arm(now)
	}
	if c.c.Hello > 0 && len(c.queue) == 0 && now.Sub(c.heard) >= c.c.Hello && !c.c.Passive {
		_ = c.send(now, 0, l2tp.AppendBody(nil, 0, l2tp.HELLO), true) // the queue is empty
	}
}

// Heard notes that the peer lives: its calls pass data. A HELLO that it leaves
// unanswered is then no reason to end the tunnel.
func (c *Channel) Heard(now time.Time) {
	c.heard = now
	if c.flying == 1 && c.queue[0].hello {
		c.tries = 0
	}
}

// Failed says that the peer did not answer to the last repetition.
func (c *Channel) Failed() bool { return c.failed }

// Idle says that everything sent is acknowledged.
func (c *Channel) Idle() bool { return len(c.queue) == 0 }

// Deadline is when Advance wants to be called.
func (c *Channel) Deadline() time.Time {
	at := c.due
	if c.c.Hello > 0 && len(c.queue) == 0 && !c.c.Passive {
		if h := c.heard.Add(c.c.Hello); at.IsZero() || h.Before(at) {
			at = h
		}
	}
	return at
}

// Poll returns the next message to send; an acknowledgement that nothing carried is a ZLB.
func (c *Channel) Poll() ([]byte, bool) {
	if len(c.out) > 0 {
		m := c.out[0]
		c.out = c.out[1:]
		return m, true
	}
	if c.ackDue && c.tunnel != 0 {
		c.ackDue = false
		return l2tp.ControlHeader{TunnelID: c.tunnel, Ns: c.ns, Nr: c.nr}.Append(nil, 0), true
	}
	return nil, false
}
