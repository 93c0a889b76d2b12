package engine

import (
	"errors"
	"net/netip"

	"twinkey/pkg/poller"
	"twinkey/pkg/tun"
	"twinkey/pkg/udpio"
)

// socketBuffer is that of each socket, bytes: a train of the largest TCP window that a LAN host is likely to have in
// flight, so that a busy core does not lose packets that were already paid for.
const socketBuffer = 4 << 20

// OpenPorts opens a socket for each queue, all on one address and port.
func OpenPorts(queues []tun.Queue, listen netip.AddrPort) (ports []Port, err error) {
	conns, err := udpio.Listen(listen, udpio.Options{Sockets: len(queues), RcvBuf: socketBuffer, SndBuf: socketBuffer})
	if err != nil {
		return nil, err // it names the address
	}
	for i, q := range queues {
		wait, err := poller.New(q.FD(), conns[i].FD())
		if err != nil {
			for _, c := range conns[i:] {
				err = errors.Join(err, c.Close())
			}
			return nil, errors.Join(err, ClosePorts(ports))
		}
		ports = append(ports, Port{Queue: q, Conn: conns[i], Wait: wait})
	}
	return ports, nil
}

// ClosePorts closes what no engine runs with.
func ClosePorts(ports []Port) error {
	var errs []error
	for _, p := range ports {
		errs = append(errs, p.Wait.Close(), p.Wait.Free(), p.Conn.Close())
	}
	return errors.Join(errs...)
}
