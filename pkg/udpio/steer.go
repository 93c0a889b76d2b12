//go:build linux

package udpio

import (
	"fmt"
	"os"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// steer makes the kernel choose among n sockets that share a port by the low half of a
// datagram's first word, so that all packets of one ESP association reach the same one. A
// datagram that is too short for it, or begins with zeros, reaches the first.
func steer(fd, n int) error {
	const spi = 0 // the filter sees the payload of UDP
	prog, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtLen},
		bpf.JumpIf{Cond: bpf.JumpLessThan, Val: 4, SkipTrue: 4},
		bpf.LoadAbsolute{Off: spi, Size: 4},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xffff},
		bpf.ALUOpConstant{Op: bpf.ALUOpMod, Val: uint32(n)}, //nolint:gosec // a handful
		bpf.RetA{},
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		return fmt.Errorf("assembling the filter: %w", err)
	}
	filter := make([]unix.SockFilter, len(prog))
	for i, p := range prog {
		filter[i] = unix.SockFilter{Code: p.Op, Jt: p.Jt, Jf: p.Jf, K: p.K}
	}
	err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF,
		&unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}) //nolint:gosec // a handful
	return os.NewSyscallError("SO_ATTACH_REUSEPORT_CBPF", err)
}
