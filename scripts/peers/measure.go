//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"twinkey/scripts/lab"
)

// figures are the values of one candidate in one round, by name.
type figures map[string]float64

// order is that of a line of progress.
var order = []string{"rtt", "rtt99", "tcp1", "rev1", "tcp4", "rev4", "udp1300", "astray", "udp64", "use", "cpu", "rss"}

func (f figures) String() string {
	var parts []string
	for _, n := range order {
		if v, ok := f[n]; ok {
			parts = append(parts, fmt.Sprintf("%s %.4g", n, v))
		}
	}
	return strings.Join(parts, "  ")
}

// streams are the figures that iperf3 measures, with its arguments. The scale makes the figure's unit of bytes a second.
var streams = map[string]struct {
	args  []string
	scale float64
}{
	"tcp1":    {nil, gbits},
	"rev1":    {[]string{"-R"}, gbits},
	"tcp4":    {[]string{"-P", "4"}, gbits},
	"rev4":    {[]string{"-R", "-P", "4"}, gbits},
	"udp1300": {[]string{"-u", "-b", "0", "-l", "1300"}, 8 / 1e6},
	"udp64":   {[]string{"-u", "-b", "0", "-l", "64"}, 1 / 64. / 1e3},
	"use":     {[]string{"-O", "1"}, 8 / shaped * 100}, // in the second that is left out the bucket runs empty and TCP finds the rate
}

const gbits = 8 / 1e9

// scenario is a condition of the WAN and what is measured under it.
type scenario struct {
	name  string
	what  []string // streams, or rtt
	apply func(context.Context, *site) error
}

const shaped = 100e6 // bit/s

func scenarios() []scenario {
	return []scenario{
		{"on", []string{"rtt", "tcp1", "rev1", "tcp4", "rev4", "udp1300", astray, "udp64"}, func(context.Context, *site) error { return nil }},
		{"off", []string{"tcp1", "tcp4", "udp1300"}, offloadsOff},
		{"100M", []string{"use", "tcp4"}, func(_ context.Context, s *site) error {
			return errors.Join(s.RA.Shape("wan0", shaped/8), s.RB.Shape("wan0", shaped/8))
		}},
	}
}

// offloadsOff switches segmentation and reassembly off at both ends of the WAN. Not every kernel knows the last two.
func offloadsOff(ctx context.Context, s *site) error {
	for i := range 2 {
		if err := s.sh(ctx, i, `for f in gso tso gro tx-udp-segmentation; do ethtool -K wan0 $f off; done
			for f in rx-udp-gro-forwarding rx-gro-list; do ethtool -K wan0 $f off || true; done`); err != nil {
			return err
		}
	}
	return nil
}

// measure runs a candidate in one scenario. It is set up anew and leaves nothing. Figures that could not be had are
// missing, and the error says why.
func measure(ctx context.Context, c candidate, sc scenario, seconds int) (f figures, err error) {
	s, err := setUp(ctx, c, sc)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	f = figures{}
	for _, what := range sc.what {
		if what == "rtt" {
			err = errors.Join(err, f.pings(ctx, s))
			continue
		}
		var t transferred
		var failed error
		if what == astray {
			failed = f.strays(ctx, s, seconds)
		} else {
			t, failed = transfer(ctx, s, streams[what].args, seconds)
		}
		if failed != nil {
			err = errors.Join(err, s.explain(fmt.Errorf("%s: %w", what, failed)))
			if ctx.Err() != nil || s.ended() != nil {
				break
			}
			continue
		}
		if what == astray {
			continue
		}
		f[what] = t.rate * streams[what].scale
		if what == "tcp1" && s.pids[0] != 0 {
			f["cpu"] = t.ends[0].plus(t.ends[1]).cpu() / (t.bytes / 1e9)
		}
	}
	if s.pids[0] != 0 && ctx.Err() == nil {
		f["rss"] = max(peakMiB(s.pids[0]), peakMiB(s.pids[1]))
	}
	return f, err
}

// setUp makes a candidate's laboratory and waits until a packet crosses.
func setUp(ctx context.Context, c candidate, sc scenario) (*site, error) {
	s, err := newSite(ctx)
	if err != nil {
		return nil, err
	}
	for _, step := range []func(context.Context, *site) error{
		sc.apply, c.up,
		func(ctx context.Context, s *site) error { return s.answers(ctx) },
	} {
		if err := step(ctx, s); err != nil {
			err = fmt.Errorf("setting up %s: %w", c.name, err)
			return nil, errors.Join(s.explain(err), s.close())
		}
	}
	return s, nil
}

var pingTime = regexp.MustCompile(`time=([0-9.]+) ms`)

// settle is how long a candidate is left alone before its round trip is measured: what a program does once, when it starts, is
// no part of that.
const settle = 2 * time.Second

// pings measures the round trip.
func (f figures) pings(ctx context.Context, s *site) error {
	select {
	case <-ctx.Done():
		return fmt.Errorf("rtt: %w", ctx.Err())
	case <-time.After(settle):
	}
	out, err := lab.Run(ctx, s.HostA, "ping", "-c", "1000", "-i", "0.002", lab.SiteB.Host.String())
	if err != nil {
		return fmt.Errorf("rtt: %w", err)
	}
	var all []float64
	for _, m := range pingTime.FindAllStringSubmatch(out, -1) {
		all = append(all, number(m[1])*1000)
	}
	if len(all) == 0 {
		return errors.New("rtt: no ping was answered")
	}
	f["rtt"], f["rtt99"] = quantile(all, 0.5), quantile(all, 0.99)
	return nil
}

// astray is the figure of packets that are lost or arrive out of order at 0.8 of the most that goes, of a million.
const astray = "astray"

// strays measures astray, and udp1300 before it, if that was not. The receiver is hosta, since iperf3 counts
// disorder there alone, and its socket has room for a pause of the receiving process: what gets lost there is not
// the routers' loss.
func (f figures) strays(ctx context.Context, s *site, seconds int) error {
	const share, size, room = 0.8, "1300", "4M"
	if f["udp1300"] == 0 {
		t, err := transfer(ctx, s, streams["udp1300"].args, seconds)
		if err != nil {
			return err
		}
		f["udp1300"] = t.rate * streams["udp1300"].scale
	}
	t, err := transfer(ctx, s, []string{"-u", "-R", "-l", size, "-w", room, "-b", fmt.Sprintf("%.0fM", share*f["udp1300"])}, seconds)
	if err != nil {
		return err
	}
	f[astray] = (t.lost + t.late) / t.packets * 1e6
	return nil
}

// transferred is what one run of iperf3 brought across.
type transferred struct {
	bytes, rate float64 // as the receiver counted; rate is a second of the receiver's time
	packets     float64 // of UDP, those that were lost and those that came after later ones among them
	lost, late  float64
	ends        [2]spent // by the routers meanwhile
	took        time.Duration
}

// transfer runs iperf3, with a server of its own, so that one that hangs spoils nothing after it.
func transfer(ctx context.Context, s *site, with []string, seconds int) (t transferred, err error) {
	const slack = 20 * time.Second // to connect, and to hand results over behind a full queue
	ctx, stop := context.WithTimeout(ctx, time.Duration(seconds)*time.Second+slack)
	defer stop()
	server := s.HostB.Command(ctx, "iperf3", "-s", "-1", "--forceflush")
	said, err := server.StdoutPipe()
	if err != nil {
		return t, fmt.Errorf("starting iperf3's server: %w", err)
	}
	if err := server.Start(); err != nil {
		return t, fmt.Errorf("starting iperf3's server: %w", err)
	}
	defer func() {
		_ = server.Process.Kill() // it ends by itself if all went well
		_ = server.Wait()
	}()
	lines := bufio.NewScanner(said)
	for lines.Scan() && !strings.Contains(lines.Text(), "listening") {
	}
	go func() { // lest the server waits for us
		for lines.Scan() {
		}
	}()

	before := [2]spent{used(s.pids[0]), used(s.pids[1])}
	args := append([]string{"iperf3", "-c", lab.SiteB.Host.String(), "-J", "-t", strconv.Itoa(seconds)}, with...)
	start := time.Now()
	out, err := lab.Run(ctx, s.HostA, args...)
	t.took = time.Since(start)
	for i := range t.ends {
		t.ends[i] = used(s.pids[i]).minus(before[i])
	}
	if err != nil && out == "" { // otherwise the reason is in what it printed
		return t, err
	}
	return t, t.received(out)
}

// received reads what iperf3 says of the receiver.
func (t *transferred) received(out string) error {
	var r struct {
		Error string `json:"error"`
		End   struct {
			Received struct {
				Bytes   float64 `json:"bytes"`
				Seconds float64 `json:"seconds"`
				Packets float64 `json:"packets"`
				Lost    float64 `json:"lost_packets"`
			} `json:"sum_received"`
			Streams []struct {
				UDP struct {
					Late float64 `json:"out_of_order"`
				} `json:"udp"`
			} `json:"streams"`
		} `json:"end"`
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		return fmt.Errorf("reading what iperf3 says: %w", err)
	}
	e := r.End.Received
	switch {
	case r.Error != "":
		return errors.New("iperf3: " + r.Error)
	case e.Bytes <= 0 || e.Seconds <= 0:
		return errors.New("nothing arrived")
	}
	t.bytes, t.rate, t.packets, t.lost, t.late = e.Bytes, e.Bytes/e.Seconds, e.Packets, e.Lost, 0
	for _, s := range r.End.Streams {
		t.late += s.UDP.Late
	}
	return nil
}

// quantile is the value that a part q of the values does not exceed, between two of them in proportion; NaN of none.
func quantile(v []float64, q float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	v = slices.Sorted(slices.Values(v))
	at := q * float64(len(v)-1)
	low, part := math.Modf(at)
	i := int(low)
	if i+1 == len(v) {
		return v[i]
	}
	return v[i]*(1-part) + v[i+1]*part
}

func median(v []float64) float64 { return quantile(v, 0.5) }
