//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"twinkey/pkg/netlab"
)

const (
	// tcpTimes is how much longer a row of TCP takes: its windows have to open.
	tcpTimes = 8

	pings = 500 // of a round

	spinTime = 20 * time.Microsecond
)

// forwarding are the rows of TCP through two boxes. end stops what runs.
func forwarding(ctx context.Context, lab *netlab.Lab) (*table, func() error, error) {
	var running []func() error
	end := func() error {
		var errs []error
		for _, stop := range running {
			errs = append(errs, stop())
		}
		return errors.Join(errs...)
	}
	if _, err := exec.LookPath("iperf3"); err != nil {
		return nil, end, fmt.Errorf("%w (hint: apt install iperf3)", err)
	}
	t := &table{
		Name:  "forwarding",
		Title: "Forwarding",
		Note: "One TCP stream of iperf3; every train is four copies (TUN to box, box to UDP, and back) and four system calls. CPU time of the boxes is theirs " +
			"alone; that of the machine includes the hosts, and whatever else ran on it. " +
			"The round trip is that of an echo request every 2 ms, when all sleep.",
		Columns: []column{{"Gbit/s", 2}, {"boxes, CPU s/GB", 2}, {"machine, CPU s/GB", 2}, {"KiB a train", 1}, {"sleeps a train", 2}, {"round trip, us", 0}},
	}
	for _, w := range []struct {
		name  string
		prep  string
		build func(context.Context, *netlab.Lab, string, time.Duration) (*way, error)
		spin  time.Duration
	}{
		{"kernel forwarding, no box", "k", kernelWay, 0},
		{"hosts on the boxes", "d", directWay, 0},
		{"hosts behind the boxes", "l", behindWay, 0},
		{fmt.Sprintf("hosts behind the boxes, %v of polling before sleep", spinTime), "s", behindWay, spinTime},
	} {
		x, err := w.build(ctx, lab, w.prep, w.spin)
		if x != nil {
			running = append(running, x.stop)
		}
		if err != nil {
			return nil, end, fmt.Errorf("building %s: %w", w.name, err)
		}
		t.Rows = append(t.Rows, &row{Name: w.name, run: x.run})
	}
	return t, end, nil
}

// way is how TCP goes from one host to another.
type way struct {
	from   *netlab.Host
	to     netip.Addr
	boxes  []*running
	server *running
}

// Addresses of a way, as in scripts/lab.
var (
	lanA, lanB   = netip.MustParsePrefix("10.1.0.0/24"), netip.MustParsePrefix("10.2.0.0/24")
	hostA, hostB = netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("10.2.0.2")
	gateA, gateB = netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.2.0.1")
	wanA, wanB   = netip.MustParseAddr("198.18.0.1"), netip.MustParseAddr("198.18.0.2")
)

const boxPort = 1701

// directWay has the TUN interfaces on the hosts themselves.
func directWay(ctx context.Context, lab *netlab.Lab, name string, spin time.Duration) (*way, error) {
	a, err := lab.Host(name + "a")
	if err != nil {
		return nil, err
	}
	b, err := lab.Host(name + "b")
	if err != nil {
		return nil, err
	}
	w := &way{from: a, to: hostB}
	err = lab.Link(a, "wan0", netip.PrefixFrom(wanA, 24), b, "wan0", netip.PrefixFrom(wanB, 24))
	if err != nil {
		return w, err
	}
	return w, errors.Join(
		w.startBox(ctx, a, wanA, wanB, spin, "-address", netip.PrefixFrom(hostA, 24).String(), "-route", lanB.String()),
		w.startBox(ctx, b, wanB, wanA, spin, "-address", netip.PrefixFrom(hostB, 24).String(), "-route", lanA.String()),
		w.startServer(ctx, b))
}

// behindWay has hosts behind the boxes.
func behindWay(ctx context.Context, lab *netlab.Lab, name string, spin time.Duration) (*way, error) {
	w, hosts, err := chain(lab, name)
	if err != nil {
		return w, err
	}
	return w, errors.Join(
		w.startBox(ctx, hosts[1], wanA, wanB, spin, "-route", lanB.String()),
		w.startBox(ctx, hosts[2], wanB, wanA, spin, "-route", lanA.String()),
		w.startServer(ctx, hosts[3]))
}

// kernelWay has kernels alone: what the machine does without any tunnel.
func kernelWay(ctx context.Context, lab *netlab.Lab, name string, _ time.Duration) (*way, error) {
	w, hosts, err := chain(lab, name)
	if err != nil {
		return w, err
	}
	return w, errors.Join(hosts[1].DefaultRoute(wanB), hosts[2].DefaultRoute(wanA), w.startServer(ctx, hosts[3]))
}

// chain is host, gateway, gateway, host.
func chain(lab *netlab.Lab, name string) (*way, [4]*netlab.Host, error) {
	var h [4]*netlab.Host
	for i := range h {
		var err error
		if h[i], err = lab.Host(name + strconv.Itoa(i)); err != nil {
			return nil, h, err
		}
	}
	in := func(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, 24) }
	return &way{from: h[0], to: hostB}, h, errors.Join(
		lab.Link(h[0], "eth0", in(hostA), h[1], "lan0", in(gateA)),
		lab.Link(h[1], "wan0", in(wanA), h[2], "wan0", in(wanB)),
		lab.Link(h[2], "lan0", in(gateB), h[3], "eth0", in(hostB)),
		h[1].Sysctl("net.ipv4.ip_forward", "1"),
		h[2].Sysctl("net.ipv4.ip_forward", "1"),
		h[0].DefaultRoute(gateA),
		h[3].DefaultRoute(gateB))
}

// running is a program on a host, which ends when its input does or is told to.
type running struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Scanner
	stderr bytes.Buffer
	end    context.CancelFunc
}

func start(ctx context.Context, h *netlab.Host, name string, args ...string) (*running, error) {
	ctx, end := context.WithCancel(context.WithoutCancel(ctx))
	r := &running{cmd: h.Command(ctx, name, args...), end: end}
	in, err := r.cmd.StdinPipe()
	if err != nil {
		end()
		return nil, err
	}
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		end()
		return nil, err
	}
	r.in, r.out, r.cmd.Stderr = in, bufio.NewScanner(out), &r.stderr
	if err := r.cmd.Start(); err != nil {
		end()
		return nil, fmt.Errorf("starting %s on %s: %w", name, h.Name(), err)
	}
	return r, nil
}

// line is the next that the program prints.
func (r *running) line() (string, error) {
	if !r.out.Scan() {
		return "", fmt.Errorf("%s has ended: %s", r.cmd.Args[len(r.cmd.Args)-1], strings.TrimSpace(r.stderr.String()))
	}
	return r.out.Text(), nil
}

func (w *way) startBox(ctx context.Context, h *netlab.Host, local, remote netip.Addr, spin time.Duration, args ...string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	args = append([]string{boxRole, "-local", netip.AddrPortFrom(local, boxPort).String(), "-remote", netip.AddrPortFrom(remote, boxPort).String(), "-spin", spin.String()}, args...)
	r, err := start(ctx, h, self, args...)
	if err != nil {
		return err
	}
	w.boxes = append(w.boxes, r)
	_, err = r.line()
	return err
}

// startServer starts iperf3 at the far host and waits until it listens.
func (w *way) startServer(ctx context.Context, h *netlab.Host) (err error) {
	if w.server, err = start(ctx, h, "iperf3", "--server", "--forceflush"); err != nil {
		return err
	}
	for {
		line, err := w.server.line()
		if err != nil {
			return err
		}
		if strings.Contains(line, "listening") {
			go func() { // it would stop with a full pipe
				for w.server.out.Scan() {
				}
			}()
			return nil
		}
	}
}

// stop ends all that runs. That iperf3 was ended by a signal is what was wanted.
func (w *way) stop() error {
	var errs []error
	for _, b := range w.boxes {
		errs = append(errs, b.in.Close(), b.cmd.Wait())
		b.end()
	}
	if w.server != nil {
		w.server.end()
		_ = w.server.cmd.Wait()
	}
	return errors.Join(errs...)
}

// tallies adds up what the boxes have counted.
func (w *way) tallies() (sum tally, err error) {
	for _, b := range w.boxes {
		if _, err := io.WriteString(b.in, "\n"); err != nil {
			return sum, fmt.Errorf("asking a box: %w", err)
		}
		line, err := b.line()
		if err != nil {
			return sum, err
		}
		var t tally
		if err := json.Unmarshal([]byte(line), &t); err != nil {
			return sum, fmt.Errorf("a box has answered %q: %w", line, err)
		}
		sum.Trains += t.Trains
		sum.Bytes += t.Bytes
		sum.Dropped += t.Dropped
		sum.Sleeps += t.Sleeps
		sum.CPU += t.CPU
	}
	return sum, nil
}

// run sends one stream and then some echo requests.
func (w *way) run(ctx context.Context, d time.Duration) ([]float64, error) {
	before, err := w.tallies()
	if err != nil {
		return nil, err
	}
	busy, err := machineCPU()
	if err != nil {
		return nil, err
	}
	rate, gigabytes, err := w.stream(ctx, d*tcpTimes)
	if err != nil {
		return nil, err
	}
	busyAfter, err := machineCPU()
	if err != nil {
		return nil, err
	}
	after, err := w.tallies()
	if err != nil {
		return nil, err
	}
	if n := after.Dropped - before.Dropped; n > 0 {
		return nil, fmt.Errorf("the boxes dropped %d trains", n)
	}
	trip, err := roundTrip(w.from, w.to, pings)
	if err != nil {
		return nil, err
	}
	trains := float64(max(after.Trains-before.Trains, 1))
	return []float64{
		rate / 1e9,
		(after.CPU - before.CPU).Seconds() / gigabytes,
		(busyAfter - busy).Seconds() / gigabytes,
		float64(after.Bytes-before.Bytes) / trains / 1024,
		float64(after.Sleeps-before.Sleeps) / trains,
		float64(trip.Nanoseconds()) / 1000,
	}, nil
}

// stream runs iperf3 and returns bits a second and gigabytes received.
func (w *way) stream(ctx context.Context, d time.Duration) (rate, gigabytes float64, err error) {
	seconds := max(1, int(d.Round(time.Second).Seconds()))
	cmd := w.from.Command(ctx, "iperf3", "--client", w.to.String(), "--time", strconv.Itoa(seconds), "--json")
	out, err := cmd.Output()
	var answer struct {
		Error string
		End   struct {
			Received struct {
				Bytes float64
				Rate  float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		}
	}
	if jerr := json.Unmarshal(out, &answer); err == nil {
		err = jerr
	}
	if err != nil || answer.Error != "" {
		return 0, 0, fmt.Errorf("iperf3: %w: %s", errors.Join(ctx.Err(), err), answer.Error)
	}
	return answer.End.Received.Rate, answer.End.Received.Bytes / 1e9, nil
}

// machineCPU is how long all cores together were not idle since the machine began.
func machineCPU() (time.Duration, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	// cpu  user nice system idle iowait irq softirq ... in hundredths of a second (proc(5))
	first, _, _ := strings.Cut(string(b), "\n")
	var ticks int64
	for i, f := range strings.Fields(first) {
		const cpu, idle, iowait, guest = 0, 4, 5, 9 // what guests use is in user already
		if i == cpu || i == idle || i == iowait || i >= guest {
			continue
		}
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("reading /proc/stat: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}
