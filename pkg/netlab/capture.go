//go:build linux

package netlab

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// pcap file format (draft-ietf-opsawg-pcap):
//
//	file    magic(4) major(2) minor(2) zone(4) sigfigs(4) snaplen(4) linktype(4)
//	packet  seconds(4) nanoseconds(4) captured(4) original(4) bytes...
//
// in the writer's byte order; the magic tells which, and that fractions are nanoseconds.
const (
	pcapMagicNano    = 0xa1b23c4d
	pcapFileHeader   = 24 // bytes
	pcapPacketHeader = 16
	linktypeEthernet = 1
	linktypeRaw      = 101   // bare IP packets
	snaplen          = 65536 // a GSO train and its Ethernet header may be cut by 14 bytes, nothing else
	captureBuffer    = 32 << 20
)

// Capture writes the packets of one interface to a pcap file until it is closed.
type Capture struct {
	file  *os.File
	sock  *os.File
	done  chan struct{}
	once  sync.Once
	err   error // of the copying goroutine, to be read after done
	count int
	drops uint32
}

// Capture starts writing what the interface receives and sends to file, a new pcap file. Lab.Close closes it if the
// caller does not.
func (h *Host) Capture(ifname, file string) (*Capture, error) {
	c := &Capture{done: make(chan struct{})}
	linktype := uint32(linktypeEthernet)
	err := h.Do(func() (err error) {
		ifi, err := net.InterfaceByName(ifname)
		if err != nil {
			return err
		}
		if len(ifi.HardwareAddr) == 0 && ifi.Flags&net.FlagLoopback == 0 {
			linktype = linktypeRaw // a TUN interface has no Ethernet header
		}
		c.sock, err = packetSocket(ifi.Index)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("capturing on %s of %s: %w", ifname, h.name, err)
	}
	if c.file, err = os.Create(file); err != nil { //nolint:gosec // the caller's choice
		return nil, errors.Join(fmt.Errorf("capturing on %s of %s: %w", ifname, h.name, err), c.sock.Close())
	}
	go c.copy(linktype)
	h.lab.onClose(c.Close)
	return c, nil
}

// packetSocket opens an AF_PACKET socket that sees one interface only: bound with protocol 0 it is deaf until it knows
// its interface.
func packetSocket(ifindex int) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), "packet socket")
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, captureBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, captureBuffer) // as much as is allowed; drops are counted
	}
	all := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: ifindex}); err != nil {
		return nil, errors.Join(os.NewSyscallError("bind", err), f.Close())
	}
	// A bridge shows what it passes from port to port only while it is promiscuous.
	promisc := &unix.PacketMreq{Ifindex: int32(ifindex), Type: unix.PACKET_MR_PROMISC} //nolint:gosec // an interface index
	if err := unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, promisc); err != nil {
		return nil, errors.Join(os.NewSyscallError("setsockopt", err), f.Close())
	}
	return f, nil
}

func (c *Capture) copy(linktype uint32) {
	defer close(c.done)
	w := bufio.NewWriterSize(c.file, 1<<20)
	b := make([]byte, 0, pcapFileHeader)
	for _, v := range []uint32{pcapMagicNano, 0, 0, 0, snaplen, linktype} {
		b = binary.NativeEndian.AppendUint32(b, v)
	}
	binary.NativeEndian.PutUint16(b[4:], 2)
	binary.NativeEndian.PutUint16(b[6:], 4)
	if _, c.err = w.Write(b); c.err != nil {
		return
	}
	pkt := make([]byte, snaplen)
	for {
		n, err := c.sock.Read(pkt)
		if errors.Is(err, os.ErrDeadlineExceeded) { // set by Close, and nothing is left to read
			break
		}
		if errors.Is(err, unix.ENETDOWN) { // the interface went down; it may come back
			continue
		}
		if err != nil {
			c.err = err
			break
		}
		now := time.Now()
		b = b[:0]
		//nolint:gosec // the format's own widths
		for _, v := range []uint32{uint32(now.Unix()), uint32(now.Nanosecond()), uint32(n), uint32(n)} {
			b = binary.NativeEndian.AppendUint32(b, v)
		}
		if _, c.err = w.Write(append(b, pkt[:n]...)); c.err != nil {
			return
		}
		c.count++
	}
	c.err = errors.Join(c.err, w.Flush())
}

// drainTime is how long Close goes on reading: what was sent before Close is in the socket by then.
const drainTime = 50 * time.Millisecond

// Close takes what has arrived up to now, ends the capture and completes the file. It returns an error if packets
// were missed. It may be called more than once.
func (c *Capture) Close() error {
	c.once.Do(func() {
		err := c.sock.SetReadDeadline(time.Now().Add(drainTime))
		<-c.done
		if rc, rerr := c.sock.SyscallConn(); rerr == nil {
			_ = rc.Control(func(fd uintptr) {
				if st, serr := unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS); serr == nil {
					c.drops = st.Drops
				}
			})
		}
		if c.drops > 0 {
			err = errors.Join(err, fmt.Errorf("capture %s: %d packets were missed", c.file.Name(), c.drops))
		}
		c.err = errors.Join(err, c.err, c.sock.Close(), c.file.Close())
	})
	return c.err
}

// Packets is how many packets the file holds. Ask after Close.
func (c *Capture) Packets() int {
	<-c.done
	return c.count
}
