//go:build linux

package tunbench

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"twinkey/pkg/netcfg"
	"twinkey/pkg/netlab"
	"twinkey/pkg/tun"
)

var errPrivileges error

func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		if f, ok := roles[os.Args[1]]; ok {
			if err := f(os.Stdin, os.Stdout); err != nil {
				fmt.Fprintln(os.Stderr, os.Args[1]+":", err)
				os.Exit(1)
			}
			return
		}
	}
	if errPrivileges = netlab.EnsurePrivileges(); errPrivileges == nil {
		errPrivileges = netlab.CheckTUN()
	}
	os.Exit(m.Run())
}

// devices are what is compared; package documentation tells what each does.
var devices = []struct {
	name string
	open func(a, b *netlab.Host) (relay, error)
}{
	{"own", openOwn(func(from, to tun.Queue) side { return newSplice(from, to, true) })},
	{"own-sums", openOwn(func(from, to tun.Queue) side { return newSplice(from, to, false) })},
	{"wireguard", openWireGuard},
	{"whole", openOwn(newWhole)},
}

// relay is two devices and what carries packets between them.
type relay interface {
	// names are those of the interfaces.
	names() [2]string
	// run carries packets until close.
	run() error
	// read is how many times something was read, and how many bytes. It may be asked when run has returned.
	read() (reads, bytes uint64)
	close() error
}

const (
	// mtu is near to what a tunnel through Ethernet leaves.
	mtu = 1400
	// mib is what one operation of BenchmarkStream moves, warmUp how much goes before, in the same unit: TCP's windows
	// have opened by then.
	mib    = 1 << 20
	warmUp = 128
)

var addresses = [2]netip.Prefix{netip.MustParsePrefix("10.9.0.1/24"), netip.MustParsePrefix("10.9.0.2/24")}

// BenchmarkStream is one TCP stream from a host to the other. An operation is 1 MiB.
func BenchmarkStream(b *testing.B) {
	for _, d := range devices {
		b.Run("device="+d.name, func(b *testing.B) {
			l := newLab(b, d.open, "sink", "source")
			l.ask(b, warmUp)
			before := cpu(b)
			b.ResetTimer()
			l.ask(b, b.N)
			b.StopTimer()
			gigabytes := float64(b.N) * mib / 1e9
			used := cpu(b) - before
			reads, bytes := l.stop(b)
			b.ReportMetric(0, "ns/op") // the same as Gbit/s
			b.ReportMetric(gigabytes*8/b.Elapsed().Seconds(), "Gbit/s")
			b.ReportMetric(used.Seconds()/gigabytes, "cpu-s/GB")
			b.ReportMetric(float64(bytes)/float64(max(reads, 1)), "B/read") // both ways: ACKs come alone
		})
	}
}

// BenchmarkPacket is the round trip of a UDP packet that is alone on its way: everybody sleeps when it comes.
func BenchmarkPacket(b *testing.B) {
	for _, d := range devices {
		b.Run("device="+d.name, func(b *testing.B) {
			l := newLab(b, d.open, "echo", "ping")
			l.ask(b, warmUp)
			before := cpu(b)
			b.ResetTimer()
			l.ask(b, b.N)
			b.StopTimer()
			b.ReportMetric(float64((cpu(b)-before).Nanoseconds())/float64(b.N), "cpu-ns/op")
			l.stop(b)
		})
	}
}

// cpu is what this process has used: all threads, user and system.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	check(b, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// lab is two hosts with a relay between them, and a process on each.
type lab struct {
	relay   relay
	ended   chan error
	stopped bool
	source  *process
}

// newLab builds all that and says to the second process where the first one is.
func newLab(b *testing.B, open func(a, b *netlab.Host) (relay, error), far, near string) *lab {
	b.Helper()
	switch {
	case errPrivileges != nil && os.Getenv("TWINKEY_NO_SKIP") == "1":
		b.Fatal("needs root:", errPrivileges)
	case errPrivileges != nil:
		b.Skip("needs root:", errPrivileges)
	}
	nl, err := netlab.New(context.WithoutCancel(b.Context()))
	check(b, err)
	b.Cleanup(func() { check(b, nl.Close()) })
	var hosts [2]*netlab.Host
	for i, name := range []string{"a", "b"} {
		hosts[i], err = nl.Host(name)
		check(b, err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(b.Context()))
	b.Cleanup(cancel)
	l := &lab{ended: make(chan error, 1)}
	l.relay, err = open(hosts[0], hosts[1])
	check(b, err)
	for i, h := range hosts {
		check(b, h.Do(func() error {
			plan := netcfg.Plan{Link: l.relay.names()[i], Up: true, MTU: mtu, Addresses: addresses[i : i+1]}
			_, err := netcfg.Apply(b.Context(), plan)
			return err
		}))
	}
	go func() {
		l.ended <- l.relay.run()
		cancel() // without it the processes would wait for each other
	}()
	b.Cleanup(func() { l.stop(b) })
	start(ctx, b, hosts[1], far)
	l.source = start(ctx, b, hosts[0], near)
	return l
}

// ask has the process at the near host do n operations and waits until it has.
func (l *lab) ask(b *testing.B, n int) {
	b.Helper()
	_, err := fmt.Fprintln(l.source.in, n)
	check(b, err)
	l.source.line(b)
}

// stop ends the relay and tells what it has read.
func (l *lab) stop(b *testing.B) (reads, bytes uint64) {
	b.Helper()
	if !l.stopped {
		l.stopped = true
		check(b, l.relay.close())
		check(b, <-l.ended)
	}
	return l.relay.read()
}

// process is a copy of this program in another role.
type process struct {
	in     io.Writer
	out    *bufio.Scanner
	stderr strings.Builder
}

// start starts one and waits until it says that it is ready. It ends with ctx or the benchmark.
func start(ctx context.Context, b *testing.B, h *netlab.Host, role string) *process {
	b.Helper()
	self, err := os.Executable()
	check(b, err)
	ctx, cancel := context.WithCancel(ctx)
	cmd := h.Command(ctx, self, role)
	p := &process{}
	cmd.Stderr = &p.stderr
	p.in, err = cmd.StdinPipe()
	check(b, err)
	out, err := cmd.StdoutPipe()
	check(b, err)
	p.out = bufio.NewScanner(out)
	check(b, cmd.Start())
	b.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // it was ended by a signal
	})
	p.line(b)
	return p
}

func (p *process) line(b *testing.B) {
	b.Helper()
	if !p.out.Scan() {
		b.Fatal("a process has ended: ", p.stderr.String())
	}
}

func check(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}
