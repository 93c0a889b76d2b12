package tun

import "twinkey/proto/gso"

// Device is an open TUN interface.
type Device interface {
	// Name is the interface's name as the kernel gave it.
	Name() string
	// MTU asks the kernel for the interface's MTU in bytes.
	MTU() (int, error)
	// Queues are the device's, always the same.
	Queues() []Queue
	// Kind names the back end in logs and in status output: "offload" or "water".
	Kind() string
	// Close lets calls under way finish, then takes the interface away.
	Close() error
}

// Queue is one queue of a Device. Read belongs to one goroutine at a time and so does Write.
type Queue interface {
	// Read puts one packet or train at buf[at:], where 64 KiB should have room; n is its length and
	// 0 if nothing waits. at is at least gso.HeaderLen, and the bytes before it may be written to.
	// After Close the error is net.ErrClosed.
	Read(buf []byte, at int) (h gso.Header, n int, err error)
	// Write hands the packet or train buf[at:] to the kernel; at as for Read. Nothing is kept.
	// What the kernel refuses is lost.
	Write(h gso.Header, buf []byte, at int) error
	// Trains says whether Write takes trains, and packets whose checksums are to be completed.
	Trains() bool
	// FD is readable when Read has something. It is -1 if the kernel does not know this queue.
	FD() int
}

// MaxQueues is how many queues the kernel lets a device have (MAX_TAP_QUEUES).
const MaxQueues = 256
