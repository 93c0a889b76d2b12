package config

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
)

// TCPAddress is where a server listens, as package net takes it: an address of this machine or a name of one, or
// nothing for all of them, and a port. It also is a flag's value (pflag's TextVar).
type TCPAddress string

// hostName tells names from addresses with a slip in them: no name ends in a label of digits alone.
var hostName = regexp.MustCompile(`^([A-Za-z0-9_-]+\.)*[A-Za-z0-9_-]*[A-Za-z][A-Za-z0-9_-]*\.?$`)

// UnmarshalText takes what has the form; whether the address is this machine's shows when it is listened on.
func (a *TCPAddress) UnmarshalText(b []byte) error {
	in := string(b)
	bad := func(why string) error {
		return fmt.Errorf("%q is nothing to listen on: %s; write an address and a port such as 192.0.2.10:8700 or [2001:db8::1]:8700, or :8700 for all addresses", in, why)
	}
	host, port, err := net.SplitHostPort(in)
	if err != nil {
		if addr, ok := err.(*net.AddrError); ok { //nolint:errorlint // it is never wrapped
			return bad(addr.Err)
		}
		return bad(err.Error())
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return bad(fmt.Sprintf("%q is no port, which is a number up to 65535", port))
	}
	if _, err := netip.ParseAddr(host); err != nil && host != "" && !hostName.MatchString(host) {
		return bad(fmt.Sprintf("%q is no address", host))
	}
	*a = TCPAddress(in)
	return nil
}

// MarshalText is the address as it was written.
func (a TCPAddress) MarshalText() ([]byte, error) { return []byte(a), nil }
