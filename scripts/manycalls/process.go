//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"twinkey/scripts/lab"
)

// memory is the resident set of the near and of the far router, in bytes.
type memory struct{ near, far float64 }

func (m memory) max(n memory) memory { return memory{max(m.near, n.near), max(m.far, n.far)} }

// Lines of /proc/PID/status (proc(5)).
const (
	residentNow  = "VmRSS:"
	residentPeak = "VmHWM:"
)

func (s *set) memory(what string) (m memory, err error) {
	if m.near, err = resident(s.Routers[s.siteA.Name], what); err == nil {
		m.far, err = resident(s.Routers[s.siteB.Name], what)
	}
	return m, err
}

// resident reads one of the lines above, in bytes.
func resident(p *lab.Process, what string) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		return 0, fmt.Errorf("asking the memory of %s: %w", p.Name, err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, what); ok {
			kib, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 64)
			return kib * 1024, err
		}
	}
	return 0, fmt.Errorf("asking the memory of %s: /proc does not tell %s", p.Name, what)
}

// cpu is the processor time of both routers.
func (s *set) cpu() (sum time.Duration, err error) {
	for _, p := range s.Routers {
		t, err := processorTime(p)
		if err != nil {
			return 0, err
		}
		sum += t
	}
	return sum, nil
}

// processorTime reads utime and stime, fields 14 and 15 of /proc/PID/stat, in hundredths of a second.
func processorTime(p *lab.Process) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID()))
	if err != nil {
		return 0, fmt.Errorf("asking the processor time of %s: %w", p.Name, err)
	}
	// The name, field 2, may hold anything; it ends with the last parenthesis.
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	const utime, stime = 14 - 3, 15 - 3
	var ticks int64
	for _, i := range []int{utime, stime} {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("asking the processor time of %s: %w", p.Name, err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}

// memoryEvery is how often memory is looked at under load.
const memoryEvery = 50 * time.Millisecond

// watch returns the largest memory until ctx ends.
func (s *set) watch(ctx context.Context) (most memory, err error) {
	for {
		m, err := s.memory(residentNow)
		if err != nil {
			return most, err
		}
		most = most.max(m)
		if rest(ctx, memoryEvery) != nil {
			return most, nil
		}
	}
}
