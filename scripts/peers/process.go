//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// spent is what processes have used up so far, or between two looks.
type spent struct {
	user, system float64 // CPU seconds
	switches     float64 // context switches, wanted and not
}

func (a spent) cpu() float64 { return a.user + a.system }

func (a spent) minus(b spent) spent {
	return spent{a.user - b.user, a.system - b.system, a.switches - b.switches}
}

func (a spent) plus(b spent) spent {
	return spent{a.user + b.user, a.system + b.system, a.switches + b.switches}
}

// used looks at a process and all its threads. A process that is gone, or none (0), has used nothing.
func used(pid int) (s spent) {
	if pid == 0 {
		return s
	}
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	if stat, err := os.ReadFile(filepath.Join(dir, "stat")); err == nil {
		s.user, s.system = cpuTimes(string(stat))
	}
	threads, _ := filepath.Glob(filepath.Join(dir, "task", "*", "status")) // the pattern is well-formed
	for _, t := range threads {
		status, err := os.ReadFile(t) //nolint:gosec // in /proc
		if err != nil {
			continue // the thread has ended
		}
		s.switches += field(string(status), "voluntary_ctxt_switches") + field(string(status), "nonvoluntary_ctxt_switches")
	}
	return s
}

// cpuTimes are utime and stime of proc(5)'s stat in seconds. The name in front of them may hold blanks and brackets.
func cpuTimes(stat string) (user, system float64) {
	const (
		utime, stime = 11, 12 // counted from behind the name
		ticks        = 100    // a second: USER_HZ, which is the same on all machines that Go runs on
	)
	f := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(f) <= stime {
		return 0, 0
	}
	return number(f[utime]) / ticks, number(f[stime]) / ticks
}

// peakMiB is the most memory that a process has had resident.
func peakMiB(pid int) float64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	return field(string(status), "VmHWM") / 1024
}

// field is a number of proc(5)'s status; 0 if it is not there.
func field(status, name string) float64 {
	for line := range strings.Lines(status) {
		if v, ok := strings.CutPrefix(line, name+":"); ok {
			return number(strings.TrimSuffix(strings.TrimSpace(v), " kB"))
		}
	}
	return 0
}

func number(s string) float64 {
	v, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
	if err != nil {
		return 0
	}
	return v
}

// busy is the part of the machine's CPU time that was used between two looks at /proc/stat.
func busy(before, after string) float64 {
	total, idle := machineTimes(before)
	total2, idle2 := machineTimes(after)
	if total2 <= total {
		return 0
	}
	return 1 - (idle2-idle)/(total2-total)
}

func machineTimes(stat string) (total, idle float64) {
	line, _, _ := strings.Cut(stat, "\n")
	for i, f := range strings.Fields(line) {
		const idleField, waitField, guestField = 4, 5, 9
		if i == 0 || i >= guestField { // the name; what guests used is in user already
			continue
		}
		v := number(f)
		total += v
		if i == idleField || i == waitField {
			idle += v
		}
	}
	return total, idle
}
