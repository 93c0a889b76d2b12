package udpio

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"
)

// Conn is an open UDP socket. Receive and Trouble belong to one goroutine at a time and so does Send;
// the other methods may be called from anywhere.
type Conn interface {
	// Receive fills ts[i] for i < n with what waits in the socket: at most len(ts[i].Buf) bytes
	// each, which should hold 64 KiB; a datagram that is longer is cut. It sets N, Size and
	// Addr. The buffers are held until the next Receive. 0 and no error: nothing waits. IPv4 senders come as IPv4, never as mapped IPv6.
	Receive(ts []Train) (n int, err error)
	// Send sends ts in order and returns how many were sent or refused; fewer than len(ts): the
	// socket is full, and the next train has been shortened to what is left of it. A refusal
	// does not stop those after it; the first one is returned as *PathError. Nothing is kept.
	Send(ts []Train) (n int, err error)
	// Write sends each of bufs as one datagram, in order, and waits a moment where the socket is
	// full. Errors as in Send.
	Write(bufs [][]byte, to netip.AddrPort) error
	// Trouble takes one ICMP error out of the socket's queue; nil if there is none.
	Trouble() *PathError
	// FD is readable when Receive has something, writable when Send has, and in error when Trouble
	// has. It is -1 if the kernel does not know this Conn.
	FD() int
	// Offload says whether trains are sent whole.
	Offload() bool
	// LocalAddr is the bound address and port. The address is unspecified if all are served.
	LocalAddr() netip.AddrPort
	// Close lets calls under way finish. All later ones fail with net.ErrClosed.
	Close() error
}

// Train is one or more datagrams, see the package's documentation.
type Train struct {
	Buf  []byte
	N    int // bytes in use of Buf
	Size int // bytes of every datagram but the last
	Addr netip.AddrPort
}

const (
	// BatchSize is how many messages one system call moves at most.
	BatchSize = 64
	// MaxDatagrams is how many datagrams a train has at most (UDP_MAX_SEGMENTS of older kernels).
	MaxDatagrams = 64
	// MaxTrain is how many bytes a train that is sent has at most: with its headers it is one IP packet
	// inside the kernel.
	MaxTrain = 65535 - 60 - 8
)

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

// Options of sockets.
type Options struct {
	// Sockets is how many share the port; 0 is 1.
	Sockets int
	// RcvBuf and SndBuf are the sizes of the kernel's buffers in bytes; 0 leaves the system's
	// default. With CAP_NET_ADMIN they are taken as they are, without it up to net.core.rmem_max
	// and wmem_max. Buffers tells what came of it.
	RcvBuf, SndBuf int
	// NoOffload sends and receives every datagram as a message of its own.
	NoOffload bool
}
