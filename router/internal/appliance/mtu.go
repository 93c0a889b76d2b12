package appliance

import (
	"twinkey/proto/esp"
	"twinkey/router/internal/settings"
)

// What stands around a private packet on the public path, in bytes.
const (
	pathMTU  = 1500
	ipv4UDP  = 20 + 8
	ipv6UDP  = 40 + 8
	inner    = 8 + 6 + 4 // UDP, L2TP, uncompressed PPP header
	smallest = 1280      // IPv6 asks for no less
)

// MTU is the largest private packet, in bytes: what the configuration says, or the most that any of the allowed
// suites carries on a path of 1,500 bytes. A call that carries less says so to senders by itself.
func MTU(s *settings.Settings) int {
	if s.Tun.MTU != 0 {
		return s.Tun.MTU
	}
	outer := ipv4UDP
	if s.Listen.Addr().Is6() && !s.Listen.Addr().IsUnspecified() {
		outer = ipv6UDP
	}
	n := smallest
	for _, suite := range s.Suites {
		n = max(n, fits(suite, pathMTU-outer, s.Data.Headers == "compact"))
	}
	return n
}

// fits is the largest private packet that a suite carries in a datagram of size bytes.
func fits(s esp.Suite, size int, compact bool) int {
	if compact {
		return s.ImplicitIV().Fits(size)
	}
	return s.Fits(size) - inner
}
