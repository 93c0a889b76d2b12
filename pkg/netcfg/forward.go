//go:build linux

package netcfg

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// The kernel's switches; /proc/sys/net shows those of the reader's network namespace.
const (
	forward4 = "/proc/sys/net/ipv4/ip_forward"
	forward6 = "/proc/sys/net/ipv6/conf/all/forwarding"
)

// Forwarding says whether this machine passes packets on. Without it a router links its LAN to
// nobody; the caller warns, and sets it only if the operator asked for that. A kernel
// without IPv6 does not forward it.
func Forwarding() (ip4, ip6 bool, err error) {
	if ip4, err = readSwitch(forward4); err != nil {
		return false, false, err
	}
	ip6, err = readSwitch(forward6)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return ip4, ip6, err
}

// EnableForwarding switches it on for IPv4, and for IPv6 if ip6 says so (which makes the kernel
// ignore router advertisements, so nobody should be surprised by it). undo puts back what was there.
func EnableForwarding(ip6 bool) (undo func() error, err error) {
	var done undoList
	files := []string{forward4}
	if ip6 {
		files = append(files, forward6)
	}
	for _, f := range files {
		on, err := readSwitch(f)
		if err == nil && !on {
			if err = writeSwitch(f, "1"); err == nil {
				done.push(func() error { return writeSwitch(f, "0") })
			}
		}
		if err != nil {
			if uerr := done.run(); uerr != nil {
				return func() error { return nil }, fmt.Errorf("%w; and going back: %w", err, uerr)
			}
			return func() error { return nil }, err
		}
	}
	return done.run, nil
}

func readSwitch(file string) (bool, error) {
	b, err := os.ReadFile(file) //nolint:gosec // one of two constants
	if err != nil {
		return false, fmt.Errorf("reading whether the kernel forwards: %w", err)
	}
	b = bytes.TrimSpace(b)
	return len(b) > 0 && b[0] != '0', nil
}

func writeSwitch(file, value string) error {
	if err := os.WriteFile(file, []byte(value), 0o600); err != nil {
		return fmt.Errorf("switching forwarding: %w", err)
	}
	return nil
}
