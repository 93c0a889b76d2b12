//go:build linux

package netlab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Lab is a set of hosts and switches and the cables between them. Its methods may be called from any goroutine.
type Lab struct {
	dir string // where the namespaces are bound

	mu      sync.Mutex
	hosts   []*Host
	closers []func() error // captures that still run
	closed  bool
}

// Switch is an Ethernet switch: a bridge in a namespace without addresses.
type Switch struct{ host *Host }

const bridgeName = "br0"

// New makes an empty laboratory. It needs EnsurePrivileges. When ctx ends, Close is called.
func New(ctx context.Context) (*Lab, error) {
	if !inside.Load() {
		return nil, fmt.Errorf("%w: EnsurePrivileges was not called first, or failed", ErrPrivileges)
	}
	dir, err := os.MkdirTemp(runDir, "lab-")
	if err != nil {
		return nil, fmt.Errorf("making a laboratory: %w", err)
	}
	l := &Lab{dir: dir}
	context.AfterFunc(ctx, func() { _ = l.Close() }) // the error is for whoever closes it himself
	return l, nil
}

// Host makes a host: a network namespace with its loopback up. IPv6 addresses are usable at once, without the wait
// for duplicates.
func (l *Lab) Host(name string) (*Host, error) {
	if name == "" || name != filepath.Base(name) {
		return nil, fmt.Errorf("making host %q: not a name", name)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, fmt.Errorf("making host %s: %w", name, os.ErrClosed)
	}
	if slices.ContainsFunc(l.hosts, func(h *Host) bool { return h.name == name }) {
		return nil, fmt.Errorf("making host %s: %w", name, os.ErrExist)
	}
	h, err := newHost(name, filepath.Join(l.dir, name))
	if err != nil {
		return nil, fmt.Errorf("making host %s: %w", name, err)
	}
	h.lab = l
	l.hosts = append(l.hosts, h)
	return h, nil
}

// Switch makes a switch to Attach hosts to.
func (l *Lab) Switch(name string) (*Switch, error) {
	h, err := l.Host(name)
	if err != nil {
		return nil, err
	}
	err = h.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = bridgeName
		// No multicast snooping: without a querier it would lose IPv6 neighbour discovery after a while.
		snooping := false
		br := &netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping}
		if err := netlink.LinkAdd(br); err != nil {
			return fmt.Errorf("making switch %s: %w", name, err)
		}
		return netlink.LinkSetUp(br)
	})
	if err != nil {
		return nil, err
	}
	return &Switch{h}, nil
}

// Link joins two hosts by a cable. An invalid (zero) prefix gives an interface without address.
func (l *Lab) Link(a *Host, ifA string, addrA netip.Prefix, b *Host, ifB string, addrB netip.Prefix) error {
	err := a.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = ifA
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: ifB, PeerNamespace: netlink.NsFd(b.fd())})
	})
	if err != nil {
		return fmt.Errorf("linking %s %s to %s %s: %w", a.name, ifA, b.name, ifB, err)
	}
	if err := errors.Join(a.configure(ifA, addrA), b.configure(ifB, addrB)); err != nil {
		return err
	}
	return errors.Join(a.carrier(ifA), b.carrier(ifB))
}

// Attach joins a host to a switch by a cable.
func (l *Lab) Attach(h *Host, ifname string, addr netip.Prefix, s *Switch) error {
	port := "to-" + h.name
	if len(port) >= unix.IFNAMSIZ {
		port = port[:unix.IFNAMSIZ-1]
	}
	if err := l.Link(h, ifname, addr, s.host, port, netip.Prefix{}); err != nil {
		return err
	}
	return s.host.Do(func() error {
		p, err := netlink.LinkByName(port)
		if err != nil {
			return fmt.Errorf("attaching %s: %w", h.name, err)
		}
		br, err := netlink.LinkByName(bridgeName)
		if err != nil {
			return fmt.Errorf("attaching %s: %w", h.name, err)
		}
		if err := netlink.LinkSetMaster(p, br); err != nil {
			return fmt.Errorf("attaching %s: %w", h.name, err)
		}
		return nil
	})
}

// Capture writes what crosses the switch, all ports, to a pcap file.
func (s *Switch) Capture(file string) (*Capture, error) { return s.host.Capture(bridgeName, file) }

// Close ends captures and lets go of the namespaces, with which the kernel takes the interfaces away once no process
// is left in them: stop those first. It may be called more than once.
func (l *Lab) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	var errs []error
	for _, c := range l.closers {
		errs = append(errs, c())
	}
	for _, h := range l.hosts {
		errs = append(errs, h.close())
	}
	return errors.Join(append(errs, os.RemoveAll(l.dir))...)
}

func (l *Lab) onClose(f func() error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closers = append(l.closers, f)
}
