package udpio

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"
)

// Conn is an open UDP socket. All methods may be called at the same time from any goroutine.
type Conn interface {
	// Read blocks until there is at least one datagram, then fills bufs[i], sizes[i] and
	// from[i] for i < n; the three should have the same length, BatchSize being as much as one call takes.
	// A datagram longer than its buffer is cut. IPv4 senders come as IPv4, never as mapped
	// IPv6. Nothing is kept. A *PathError is no reason to stop reading.
	Read(bufs [][]byte, sizes []int, from []netip.AddrPort) (n int, err error)

	// Write sends each of bufs as one datagram to the same destination, in order, and waits while
	// the socket's buffer is full. A datagram that is refused does not stop those after it; the
	// first refusal is returned as *PathError. Nothing is kept.
	Write(bufs [][]byte, to netip.AddrPort) error

	// LocalAddr is the bound address and port. The address is unspecified if all are served.
	LocalAddr() netip.AddrPort

	// Close unblocks Read and Write, which return net.ErrClosed then and ever after.
	Close() error
}

// BatchSize is how many datagrams one system call moves at most.
const BatchSize = 64

// PathError is trouble with one destination: an ICMP error, or a send that was refused.
// It is transient: the socket stays usable. An ICMP error can be forged by a stranger, so it is
// a hint, never a proof.
type PathError struct {
	To   netip.AddrPort // the destination concerned
	MTU  int            // bytes of IP packet that the path is said to carry; 0: not said
	Err  error          // a syscall.Errno
	ICMP bool           // reported by the network, not by this machine's own kernel
}

func (e *PathError) Error() string {
	by := "refused"
	if e.ICMP {
		by = "reported by the network"
	}
	if e.MTU > 0 {
		return fmt.Sprintf("path to %s: %s: %v (MTU %d)", e.To, by, e.Err, e.MTU)
	}
	return fmt.Sprintf("path to %s: %s: %v", e.To, by, e.Err)
}

func (e *PathError) Unwrap() error { return e.Err }

// TooBig says that the datagram did not fit the path or the outgoing interface.
func (e *PathError) TooBig() bool { return errors.Is(e.Err, syscall.EMSGSIZE) }

// Refused says that nothing listens on the destination's port.
func (e *PathError) Refused() bool { return errors.Is(e.Err, syscall.ECONNREFUSED) }

// Options of a socket.
type Options struct {
	// RcvBuf and SndBuf are the sizes of the kernel's buffers in bytes; 0 leaves the system's
	// default. With CAP_NET_ADMIN they are taken as they are, without it up to net.core.rmem_max
	// and wmem_max. Buffers tells what came of it.
	RcvBuf, SndBuf int
}
