//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"twinkey/pkg/netlab"
	"twinkey/scripts/lab"
)

// figures are the values of one candidate in one round, by name.
type figures map[string]float64

// scenario is a condition of the WAN and what is measured under it.
type scenario struct {
	name  string
	what  []string
	apply func(context.Context, *site) error
}

const shaped = 100e6 // bit/s

func scenarios() []scenario {
	return []scenario{
		{"on", []string{"rtt", "tcp1", "rev", "tcp4", "udp1300", "udp64"}, func(context.Context, *site) error { return nil }},
		{"off", []string{"tcp1", "tcp4"}, func(ctx context.Context, s *site) error {
			for i := range 2 {
				if err := s.sh(ctx, i, "for f in gso tso gro tx-udp-segmentation; do ethtool -K wan0 $f off; done"); err != nil {
					return err
				}
			}
			return nil
		}},
		{"100M", []string{"tcp1"}, func(_ context.Context, s *site) error {
			return errors.Join(s.RA.Shape("wan0", shaped/8), s.RB.Shape("wan0", shaped/8))
		}},
	}
}

// measure runs a candidate in one scenario. It is set up anew and leaves nothing.
func measure(ctx context.Context, c candidate, sc scenario, seconds int) (f figures, err error) {
	s, err := newSite(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := c.up(ctx, s); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, s.logs())
	}
	if err := sc.apply(ctx, s); err != nil {
		return nil, err
	}
	if err := answers(ctx, s); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, s.logs())
	}
	server := s.HostB.Command(ctx, "iperf3", "-s", "--forceflush")
	if err := server.Start(); err != nil {
		return nil, fmt.Errorf("starting iperf3: %w", err)
	}
	defer func() { _ = server.Process.Kill(); _ = server.Wait() }()
	time.Sleep(300 * time.Millisecond)
	f = figures{}
	for _, w := range sc.what {
		if w == "rtt" {
			if f["rtt"], err = rtt(ctx, s); err != nil {
				return nil, err
			}
			continue
		}
		if err := f.stream(ctx, s, w, seconds); err != nil {
			return nil, fmt.Errorf("%s: %w", w, err)
		}
	}
	if s.pids[0] != 0 {
		f["rss"] = max(rss(s.pids[0]), rss(s.pids[1]))
	}
	return f, nil
}

// answers waits until a ping crosses.
func answers(ctx context.Context, s *site) error {
	for end := time.Now().Add(20 * time.Second); ; {
		_, err := s.HostA.Ping(ctx, netlab.Ping{To: lab.SiteB.Host, Count: 1, Wait: time.Second})
		if err == nil {
			return nil
		}
		if time.Now().After(end) || ctx.Err() != nil {
			return fmt.Errorf("no ping crosses: %w", err)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

var pingTime = regexp.MustCompile(`time=([0-9.]+) ms`)

// rtt is the median of many pings in us.
func rtt(ctx context.Context, s *site) (float64, error) {
	out, err := lab.Run(ctx, s.HostA, "ping", "-c", "400", "-i", "0.002", lab.SiteB.Host.String())
	if err != nil {
		return 0, err
	}
	var all []float64
	for _, m := range pingTime.FindAllStringSubmatch(out, -1) {
		ms, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			return 0, err
		}
		all = append(all, ms*1000)
	}
	return median(all), nil
}

var iperf = map[string][]string{
	"tcp1": {}, "rev": {"-R"}, "tcp4": {"-P", "4"},
	"udp1300": {"-u", "-b", "0", "-l", "1300"}, "udp64": {"-u", "-b", "0", "-l", "64"},
}

// stream is one run of iperf3.
func (f figures) stream(ctx context.Context, s *site, what string, seconds int) error {
	before := cpu(s.pids[0]) + cpu(s.pids[1])
	args := append([]string{"iperf3", "-c", lab.SiteB.Host.String(), "-J", "--get-server-output", "-t", strconv.Itoa(seconds)}, iperf[what]...)
	ctx, stop := context.WithTimeout(ctx, time.Duration(seconds+20)*time.Second)
	defer stop()
	out, err := lab.Run(ctx, s.HostA, args...)
	if err != nil {
		return err
	}
	spent := cpu(s.pids[0]) + cpu(s.pids[1]) - before
	var r struct {
		End struct {
			Received struct {
				Bytes   float64 `json:"bytes"`
				Seconds float64 `json:"seconds"`
				Packets float64 `json:"packets"`
				Lost    float64 `json:"lost_packets"`
			} `json:"sum_received"`
		} `json:"end"`
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		return fmt.Errorf("reading what iperf3 says: %w", err)
	}
	e := r.End.Received
	if e.Bytes == 0 || e.Seconds == 0 {
		return errors.New("nothing arrived")
	}
	switch what {
	case "udp1300":
		f[what] = e.Bytes * 8 / e.Seconds / 1e6
	case "udp64":
		f[what] = e.Bytes / 64 / e.Seconds / 1e3
	default:
		f[what] = e.Bytes * 8 / e.Seconds / 1e9
	}
	if what == "tcp1" && s.pids[0] != 0 {
		f["cpu"] = spent / (e.Bytes / 1e9)
	}
	return nil
}

// cpu is the CPU time of a process in seconds, all its threads; 0 if there is none.
func cpu(pid int) float64 {
	const user, system, ticks = 11, 12, 100 // fields behind the name in proc(5)'s stat, and its clock
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	var sum float64
	for _, i := range []int{user, system} {
		v, err := strconv.ParseFloat(fields[i], 64)
		if err != nil {
			return 0
		}
		sum += v / ticks
	}
	return sum
}

// rss is the peak memory of a process in MiB.
func rss(pid int) float64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(v), " kB"), 64)
			if err == nil {
				return kib / 1024
			}
		}
	}
	return 0
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}
