package netlab

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
)

// Frames yields the packets of a file that Capture wrote, as they were on the wire (with their Ethernet headers, if the
// interface had them). A frame is valid until the next one. The sequence ends with the first error; a file cut in the middle of
// a packet is one.
func Frames(file string) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		f, err := os.Open(file) //nolint:gosec // the caller's choice
		if err != nil {
			yield(nil, fmt.Errorf("reading a capture: %w", err))
			return
		}
		defer func() { _ = f.Close() }() // only read
		if err := frames(bufio.NewReaderSize(f, 1<<20), yield); err != nil {
			yield(nil, fmt.Errorf("reading capture %s: %w", file, err))
		}
	}
}

var errNoCapture = errors.New("not a file of this package")

func frames(r io.Reader, yield func([]byte, error) bool) error {
	var file [pcapFileHeader]byte
	if _, err := io.ReadFull(r, file[:]); err != nil {
		return err
	}
	if binary.NativeEndian.Uint32(file[:]) != pcapMagicNano {
		return errNoCapture
	}
	var head [pcapPacketHeader]byte
	buf := make([]byte, snaplen)
	for {
		if _, err := io.ReadFull(r, head[:]); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		n := binary.NativeEndian.Uint32(head[8:])
		if n > snaplen {
			return errNoCapture
		}
		if _, err := io.ReadFull(r, buf[:n]); err != nil {
			return err
		}
		if !yield(buf[:n], nil) {
			return nil
		}
	}
}
