package engine

import "sync/atomic"

type counter = atomic.Uint64

// Drops returns the counters of both paths by name.
func (e *Engine) dropCounts() map[string]uint64 {
	d, n := &e.drops, e.native.Counters
	return map[string]uint64{
		"unknown_spi":   d.UnknownSPI.Load(),
		"not_esp":       d.NotESP.Load(),
		"control_full":  d.ControlFull.Load(),
		"no_call":       d.NoCall.Load(),
		"withheld":      d.Withheld.Load(),
		"call_not_up":   d.NotUp.Load(),
		"bad_packet":    d.BadPacket.Load(),
		"too_big":       d.TooBig.Load(),
		"sa_exhausted":  d.Exhausted.Load(),
		"send_failed":   d.SendFailed.Load(),
		"device_failed": d.DeviceFailed.Load(),
		"path_errors":   d.PathErrors.Load(),

		"unprotected":       n.Unprotected,
		"stray_control":     n.Stray,
		"malformed_control": n.Malformed,
		"cookies_demanded":  n.Cookies,
		"overload":          n.Overload,
		"amplification":     n.Amplified,
	}
}
