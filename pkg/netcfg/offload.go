//go:build linux

package netcfg

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/safchain/ethtool"
)

// receiveOffloads make an interface that joins TCP segments into trains (rx-gro, which network cards have on by
// themselves) do so with UDP datagrams that
// only pass through (linux/netdev_features.h).
var receiveOffloads = []string{"rx-udp-gro-forwarding"}

// JoinTrains switches on receive offloads of the interfaces that have an address within prefixes, where they
// are off, and returns their names. undo switches off what was switched on. An interface that has no such
// switch is passed over; errors are of those that have one and refuse.
func JoinTrains(prefixes []netip.Prefix) (links []string, undo func() error, err error) {
	undo = func() error { return nil }
	names, err := linksWithin(prefixes)
	if err != nil || len(names) == 0 {
		return nil, undo, err
	}
	tool, err := ethtool.NewEthtool()
	if err != nil {
		return nil, undo, fmt.Errorf("opening ethtool's socket: %w", err)
	}
	before := map[string]map[string]bool{}
	undo = func() error {
		var errs []error
		for name, set := range before {
			if err := tool.Change(name, set); err != nil && !vanished(name) {
				errs = append(errs, fmt.Errorf("switching offloads of %s back: %w", name, err))
			}
		}
		tool.Close()
		return errors.Join(errs...)
	}
	var errs []error
	for _, name := range names {
		has, ferr := tool.Features(name)
		if ferr != nil {
			continue
		}
		on, off := map[string]bool{}, map[string]bool{}
		for _, f := range receiveOffloads {
			if is, known := has[f]; known && !is {
				on[f], off[f] = true, false
			}
		}
		if len(on) == 0 {
			continue
		}
		if cerr := tool.Change(name, on); cerr != nil {
			errs = append(errs, fmt.Errorf("switching offloads of %s on: %w", name, cerr))
			continue
		}
		before[name] = off
		links = append(links, name)
	}
	return links, undo, errors.Join(errs...)
}

func vanished(name string) bool {
	_, err := net.InterfaceByName(name)
	return err != nil
}

// linksWithin are the interfaces that have an address within one of prefixes.
func linksWithin(prefixes []netip.Prefix) (names []string, err error) {
	ifs, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("listing interfaces: %w", err)
	}
	for _, i := range ifs {
		addrs, err := i.Addrs()
		if err != nil {
			continue // it went away
		}
		if i.Flags&net.FlagLoopback == 0 && anyWithin(addrs, prefixes) {
			names = append(names, i.Name)
		}
	}
	return names, nil
}

func anyWithin(addrs []net.Addr, prefixes []netip.Prefix) bool {
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err != nil {
			continue
		}
		for _, want := range prefixes {
			if want.Contains(p.Addr().Unmap()) {
				return true
			}
		}
	}
	return false
}
