package tun

// Device is an open TUN interface.
//
// Read may run on one goroutine while Write runs on another; neither may run twice at the
// same time on the same Device. Close may be called at any time, by anybody and more than
// once; a blocked Read then returns net.ErrClosed.
type Device interface {
	// Name is the interface's name as the kernel gave it.
	Name() string

	// MTU asks the kernel for the interface's MTU in bytes.
	MTU() (int, error)

	// Read blocks until there is at least one packet, then fills bufs[i][offset:] and
	// sizes[i] (bytes, without the offset) for i < n. Bytes before offset are not touched.
	// The buffers belong to the caller again when it returns. A packet that is longer than
	// its buffer is cut, so buffers of offset + MTU bytes suffice.
	// After Close the error is net.ErrClosed.
	Read(bufs [][]byte, sizes []int, offset int) (n int, err error)

	// Write hands the packets bufs[i][offset:] to the kernel and returns how many it took.
	// One that the kernel refuses does not stop the others: all are tried and the first
	// refusal is returned. Nothing of bufs is kept.
	Write(bufs [][]byte, offset int) (n int, err error)

	// BatchSize is the largest number of packets that one Read returns: the length that
	// bufs and sizes should have.
	BatchSize() int

	// Kind names the back end in logs and in status output, such as "water".
	Kind() string

	Close() error
}
