package appliance

import (
	"twinkey/proto/ip"
	"twinkey/proto/pmtu"
	"twinkey/router/internal/native"
	"twinkey/router/internal/settings"
)

const smallest = 1280 // bytes; IPv6 asks for no less

// MTU is the largest private packet, in bytes: what the configuration says, or the most that any of the allowed
// suites carries on a path of 1,500 bytes. A call that carries less says so to senders by itself.
func MTU(s *settings.Settings) int {
	if s.Tun.MTU != 0 {
		return s.Tun.MTU
	}
	six := s.Listen.Addr().Is6() && !s.Listen.Addr().IsUnspecified()
	n := smallest
	for _, suite := range s.Suites {
		if s.Data.Headers == "compact" {
			n = max(n, native.Fits(pmtu.Ethernet, six, suite.ImplicitIV(), 0)+ip.ShortBy)
		} else {
			n = max(n, native.Fits(pmtu.Ethernet, six, suite, native.InnerFull))
		}
	}
	return n
}
