package reliable

// maxWindow bounds how many messages fly at once, whatever window a peer announces.
const maxWindow = 64

// congestion is the sender's window (RFC 2661 appendix A), in messages.
type congestion struct {
	peer   int // announced by the receiver
	cwnd   int
	thresh int // ssthresh
	acks   int // since cwnd last grew, in congestion avoidance
	cut    bool
}

func newCongestion(peer int) congestion { return congestion{peer: peer, cwnd: 1, thresh: peer} }

// announce takes the peer's window.
func (c *congestion) announce(peer int) {
	c.peer = min(peer, maxWindow)
	if !c.cut {
		c.thresh = c.peer
	}
}

// limit is how many messages may fly.
func (c *congestion) limit() int { return min(c.cwnd, c.peer) }

// acknowledged grows cwnd for one acknowledgement of something new.
func (c *congestion) acknowledged() {
	switch {
	case c.cwnd >= c.peer: // never above the receiver's window
		return
	case c.cwnd < c.thresh:
		c.cwnd++
		return
	}
	if c.acks++; c.acks >= c.cwnd {
		c.acks = 0
		c.cwnd++
	}
}

// lost notes that a message had to be repeated.
func (c *congestion) lost() {
	c.thresh, c.cwnd, c.acks, c.cut = max(c.limit()/2, 1), 1, 0, true
}
