//go:build linux

package netlab_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"twinkey/pkg/netlab"
)

var errPrivileges error

func TestMain(m *testing.M) {
	errPrivileges = netlab.EnsurePrivileges()
	if len(os.Args) > 1 && os.Args[1] == victimArg {
		victim()
	}
	os.Exit(m.Run())
}

func needsLab(t *testing.T) *netlab.Lab {
	t.Helper()
	skipIf(t, errPrivileges != nil, "needs root:", errPrivileges)
	l, err := netlab.New(t.Context())
	check(t, err)
	t.Cleanup(func() { check(t, l.Close()) })
	return l
}

// skipIf skips the test, unless the environment says that nothing may be left out.
func skipIf(t *testing.T, missing bool, why ...any) {
	t.Helper()
	switch {
	case missing && os.Getenv("TWINKEY_NO_SKIP") == "1":
		t.Fatal(why...)
	case missing:
		t.Skip(why...)
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func host(t *testing.T, l *netlab.Lab, name string) *netlab.Host {
	t.Helper()
	h, err := l.Host(name)
	check(t, err)
	return h
}

// The two LANs of the design, without tunnel: hosta - ra - wan - rb - hostb, plain routing.
func plainRouting(t *testing.T) (l *netlab.Lab, ha, hb *netlab.Host, wan *netlab.Switch) {
	l = needsLab(t)
	ha, hb = host(t, l, "hosta"), host(t, l, "hostb")
	ra, rb := host(t, l, "ra"), host(t, l, "rb")
	wan, err := l.Switch("wan")
	check(t, err)
	p := netip.MustParsePrefix
	check(t, l.Link(ha, "eth0", p("10.1.0.2/24"), ra, "lan0", p("10.1.0.1/24")))
	check(t, l.Link(hb, "eth0", p("10.2.0.2/24"), rb, "lan0", p("10.2.0.1/24")))
	check(t, l.Attach(ra, "wan0", p("198.18.0.1/24"), wan))
	check(t, l.Attach(rb, "wan0", p("198.18.0.2/24"), wan))
	for _, r := range []*netlab.Host{ra, rb} {
		check(t, r.Sysctl("net.ipv4.ip_forward", "1"))
	}
	check(t, ha.DefaultRoute(netip.MustParseAddr("10.1.0.1")))
	check(t, hb.DefaultRoute(netip.MustParseAddr("10.2.0.1")))
	check(t, ra.DefaultRoute(netip.MustParseAddr("198.18.0.2")))
	check(t, rb.DefaultRoute(netip.MustParseAddr("198.18.0.1")))
	return l, ha, hb, wan
}

func TestPingTransferCaptureAcrossTwoRouters(t *testing.T) {
	_, ha, hb, wan := plainRouting(t)
	file := filepath.Join(t.TempDir(), "wan.pcap")
	c, err := wan.Capture(file)
	check(t, err)

	pong, err := ha.Ping(t.Context(), netlab.Ping{To: netip.MustParseAddr("10.2.0.2"), Count: 3, Size: 56})
	check(t, err)
	if pong.Received != 3 || pong.Min <= 0 || pong.Max < pong.Avg || pong.Avg < pong.Min {
		t.Errorf("ping: %+v", pong)
	}
	data := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{1}).Read(data) //nolint:errcheck // never fails
	tr, err := netlab.Transfer(t.Context(), ha, hb, netip.MustParseAddr("10.2.0.2"), bytes.NewReader(data))
	check(t, err)
	if !tr.Intact() || tr.Bytes != int64(len(data)) {
		t.Errorf("transfer: %d bytes, intact %v", tr.Bytes, tr.Intact())
	}
	check(t, c.Close())
	pcap, err := os.ReadFile(file)
	check(t, err)
	// Without a tunnel both must be plain to see, or the same search would prove nothing with one.
	if !bytes.Contains(pcap, data[4096:4096+64]) {
		t.Error("the capture does not hold the file's bytes")
	}
	if !bytes.Contains(pcap, []byte{10, 1, 0, 2, 10, 2, 0, 2}) {
		t.Error("the capture does not hold the private addresses")
	}
	packets, echoes := countFrames(t, file)
	if packets != c.Packets() {
		t.Errorf("%d packets in the file, %d counted", packets, c.Packets())
	}
	// Each echo crosses the bridge twice: in at one port, and the bridge shows it once.
	if echoes != 6 {
		t.Errorf("%d ICMP packets in the capture, want 3 requests and 3 replies", echoes)
	}
}

// countFrames walks the file record by record and counts packets and ICMP packets.
func countFrames(t *testing.T, file string) (packets, icmp int) {
	t.Helper()
	for frame, err := range netlab.Frames(file) {
		check(t, err)
		packets++
		if len(frame) > 34 && binary.BigEndian.Uint16(frame[12:]) == 0x0800 && frame[14+9] == 1 {
			icmp++
		}
	}
	return packets, icmp
}

func TestFramesRefusesWhatIsNoCapture(t *testing.T) {
	_, ha, _, wan := plainRouting(t)
	dir := t.TempDir()
	c, err := wan.Capture(filepath.Join(dir, "whole"))
	check(t, err)
	_, err = ha.Ping(t.Context(), netlab.Ping{To: netip.MustParseAddr("10.2.0.2")})
	check(t, err)
	check(t, c.Close())
	whole, err := os.ReadFile(filepath.Join(dir, "whole"))
	check(t, err)
	huge := bytes.Clone(whole)
	binary.NativeEndian.PutUint32(huge[24+8:], 1<<31)
	for name, b := range map[string][]byte{"empty": {}, "head": whole[:10], "cut": whole[:len(whole)-1], "cut head": whole[:24+5], "length": huge, "magic": append([]byte{1}, whole[1:]...)} {
		file := filepath.Join(dir, name)
		check(t, os.WriteFile(file, b, 0o600))
		var last error
		for _, last = range netlab.Frames(file) {
		}
		if last == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestTsharkReadsCapture(t *testing.T) {
	_, err := exec.LookPath("tshark")
	skipIf(t, err != nil, "needs tshark (apt install tshark)")
	_, ha, _, wan := plainRouting(t)
	file := filepath.Join(t.TempDir(), "wan.pcap")
	c, err := wan.Capture(file)
	check(t, err)
	_, err = ha.Ping(t.Context(), netlab.Ping{To: netip.MustParseAddr("10.2.0.2"), Count: 2})
	check(t, err)
	check(t, c.Close())
	tshark := exec.CommandContext(t.Context(), "tshark", "-r", file, "-Y", "icmp", "-T", "fields", "-e", "ip.src", "-e", "icmp.type")
	tshark.Env = append(os.Environ(), "HOME="+t.TempDir()) // it crashes where it cannot read its home
	out, err := tshark.CombinedOutput()
	check(t, err)
	if got := strings.Count(string(out), "10.2.0.2\t0"); got != 2 {
		t.Errorf("tshark finds %d echo replies, want 2:\n%s", got, out)
	}
}

func TestPingWithoutAnswer(t *testing.T) {
	l := needsLab(t)
	a, b := host(t, l, "a"), host(t, l, "b")
	check(t, l.Link(a, "eth0", netip.MustParsePrefix("10.0.0.1/24"), b, "eth0", netip.MustParsePrefix("10.0.0.2/24")))
	check(t, b.Sysctl("net.ipv4.icmp_echo_ignore_all", "1"))
	pong, err := a.Ping(t.Context(), netlab.Ping{To: netip.MustParseAddr("10.0.0.2"), Wait: 20 * time.Millisecond, Count: 2})
	if !errors.Is(err, netlab.ErrNoAnswer) || pong.Sent != 2 {
		t.Errorf("got %v %v", pong, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = a.Ping(ctx, netlab.Ping{To: netip.MustParseAddr("10.0.0.2"), Wait: time.Hour})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the context's error", err)
	}
}

func TestPing6(t *testing.T) {
	l := needsLab(t)
	a, b := host(t, l, "a"), host(t, l, "b")
	check(t, l.Link(a, "eth0", netip.MustParsePrefix("fd00::1/64"), b, "eth0", netip.MustParsePrefix("fd00::2/64")))
	pong, err := a.Ping(t.Context(), netlab.Ping{To: netip.MustParseAddr("fd00::2"), Count: 3, Wait: 3 * time.Second})
	if err != nil || pong.Received == 0 {
		t.Errorf("got %v %v", pong, err)
	}
}

func TestCommandRunsOnItsHost(t *testing.T) {
	l := needsLab(t)
	a, b := host(t, l, "a"), host(t, l, "b")
	check(t, l.Link(a, "left0", netip.Prefix{}, b, "right0", netip.Prefix{}))
	out, err := a.Command(t.Context(), "cat", "/proc/net/dev").Output()
	check(t, err)
	if s := string(out); !strings.Contains(s, "left0:") || strings.Contains(s, "right0:") {
		t.Errorf("interfaces of a:\n%s", s)
	}
	if err := a.Command(t.Context(), "no-such-command-anywhere").Run(); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("got %v, want exec.ErrNotFound", err)
	}
	var exit *exec.ExitError
	if err := a.Command(t.Context(), "sh", "-c", "exit 7").Run(); !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Errorf("got %v, want exit code 7", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cmd := a.Command(ctx, "sh", "-c", `trap 'echo stopped; exit 0' TERM; echo ready; while :; do sleep 0.05; done`)
	r, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	_, err = io.ReadFull(r, make([]byte, len("ready\n")))
	check(t, err)
	cancel()
	rest, _ := io.ReadAll(r)
	_ = cmd.Wait()
	if string(rest) != "stopped\n" {
		t.Errorf("the end of its context gave the command %q, want a SIGTERM that it can handle", rest)
	}
}

func TestDoIsInTheNamespaceAndSurvivesGoexit(t *testing.T) {
	l := needsLab(t)
	a := host(t, l, "a")
	before := namespace(t)
	var within string
	check(t, a.Do(func() (err error) { within, err = os.Readlink("/proc/thread-self/ns/net"); return err }))
	if within == before || namespace(t) != before {
		t.Errorf("namespace outside %s and %s, on the host %s", before, namespace(t), within)
	}
	err := a.Do(func() error { (&testing.T{}).Skip(); return nil })
	if err == nil {
		t.Error("Do returned nothing although its function never did")
	}
}

func namespace(t *testing.T) string {
	t.Helper()
	ns, err := os.Readlink("/proc/thread-self/ns/net")
	check(t, err)
	return ns
}

func TestTUNWorksInside(t *testing.T) {
	l := needsLab(t)
	err := netlab.CheckTUN()
	skipIf(t, err != nil, "needs root:", err)
	a := host(t, l, "a")
	err = a.Do(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd) //nolint:errcheck // a test
		req, err := unix.NewIfreq("tw0")
		if err != nil {
			return err
		}
		req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
			return err
		}
		_, err = netlink.LinkByName("tw0")
		return err
	})
	check(t, err)
}

func TestShapeLimitsRate(t *testing.T) {
	l := needsLab(t)
	a, b := host(t, l, "a"), host(t, l, "b")
	check(t, l.Link(a, "eth0", netip.MustParsePrefix("10.0.0.1/24"), b, "eth0", netip.MustParsePrefix("10.0.0.2/24")))
	const rate = 2 << 20 // bytes a second
	check(t, a.Shape("eth0", rate))
	tr, err := netlab.Transfer(t.Context(), a, b, netip.MustParseAddr("10.0.0.2"), bytes.NewReader(make([]byte, 1<<20)))
	check(t, err)
	if got := tr.Rate() / 8; got > 1.5*rate {
		t.Errorf("%.0f bytes/s through a limit of %d", got, rate)
	}
	check(t, a.Shape("eth0", 0))
	check(t, a.Shape("eth0", 0)) // nothing to take away is no error
}

func TestStream(t *testing.T) {
	l := needsLab(t)
	a, b := host(t, l, "a"), host(t, l, "b")
	src, dst := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	check(t, l.Link(a, "eth0", netip.PrefixFrom(src, 24), b, "eth0", netip.PrefixFrom(dst, 24)))
	const rate = 1_000_000
	s, err := netlab.StartStream(t.Context(), a, src, b, dst, rate)
	check(t, err)
	t.Cleanup(s.Break)
	for s.Received() < rate/10 {
		time.Sleep(time.Millisecond)
	}
	got, err := s.End(t.Context())
	check(t, err)
	if !got.Intact() || got.Bytes < rate/10 || got.Bytes != s.Received() || got.Rate()/8 > 1.5*rate {
		t.Errorf("%+v, intact: %v", got, got.Intact())
	}

	// A cable that is pulled out: it does not come to its end, and can be broken off.
	s, err = netlab.StartStream(t.Context(), a, src, b, dst, rate)
	check(t, err)
	check(t, b.LinkDown("eth0"))
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := s.End(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("over a cable that is pulled out: %v", err)
	}
	s.Break()
	if _, err := s.End(t.Context()); !errors.Is(err, netlab.ErrEnded) {
		t.Errorf("broken off: %v", err)
	}
}

func TestTransferEndsWithItsContext(t *testing.T) {
	l := needsLab(t)
	a, b := host(t, l, "a"), host(t, l, "b")
	check(t, l.Link(a, "eth0", netip.MustParsePrefix("10.0.0.1/24"), b, "eth0", netip.MustParsePrefix("10.0.0.2/24")))
	check(t, b.LinkDown("eth0"))
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, err := netlab.Transfer(ctx, a, b, netip.MustParseAddr("10.0.0.2"), strings.NewReader("x")); err == nil {
		t.Error("transferred over a cable that is pulled out")
	}
	if d := time.Since(start); d > 3*time.Second {
		t.Errorf("took %v", d)
	}
}

func TestNamesAndUseAfterClose(t *testing.T) {
	l := needsLab(t)
	for _, bad := range []string{"", "a/b", "../x"} {
		if _, err := l.Host(bad); err == nil {
			t.Errorf("host %q was made", bad)
		}
	}
	host(t, l, "a")
	if _, err := l.Host("a"); !errors.Is(err, os.ErrExist) {
		t.Errorf("second host of the same name: %v", err)
	}
	check(t, l.Close())
	check(t, l.Close())
	if _, err := l.Host("b"); !errors.Is(err, os.ErrClosed) {
		t.Errorf("host in a closed laboratory: %v", err)
	}
}

// The other end of a closed laboratory: no descriptor, no mount, no namespace stays in this process.
func TestCloseLeavesNothing(t *testing.T) {
	needsLab(t)
	fds, mounts := descriptors(t), lines(t, "/proc/thread-self/mountinfo")
	for range 3 {
		l, err := netlab.New(t.Context())
		check(t, err)
		a, b := host(t, l, "a"), host(t, l, "b")
		check(t, l.Link(a, "eth0", netip.Prefix{}, b, "eth0", netip.Prefix{}))
		_, err = a.Capture("eth0", filepath.Join(t.TempDir(), "x.pcap"))
		check(t, err)
		check(t, l.Close()) // ends the capture as well
	}
	if n := descriptors(t); n > fds {
		t.Errorf("%d descriptors before, %d after", fds, n)
	}
	if n := lines(t, "/proc/thread-self/mountinfo"); n != mounts {
		t.Errorf("%d mounts before, %d after", mounts, n)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	check(t, err)
	return len(d)
}

func lines(t *testing.T, file string) int {
	t.Helper()
	b, err := os.ReadFile(file)
	check(t, err)
	return bytes.Count(b, []byte("\n"))
}

const victimArg = "netlab-victim"

// victim is a program with a laboratory in which a process runs, for the next test to kill.
func victim() {
	l, err := netlab.New(context.Background())
	if err == nil {
		var h *netlab.Host
		if h, err = l.Host("a"); err == nil {
			err = h.Command(context.Background(), "sleep", "987654").Start()
		}
	}
	fmt.Println("victim", err)
	time.Sleep(time.Hour) // until it is killed
}

// Killed without a chance to clean up, a laboratory takes all its processes, and with them its namespaces, along.
func TestKilledLabLeavesNothing(t *testing.T) {
	needsLab(t)
	exe, err := os.Executable()
	check(t, err)
	before := namespaces(t)
	cmd := exec.CommandContext(t.Context(), exe, victimArg)
	r, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	line := make([]byte, len("victim <nil>\n"))
	_, err = io.ReadFull(r, line)
	check(t, err)
	if string(line) != "victim <nil>\n" {
		t.Fatalf("victim says %q", line)
	}
	waitFor(t, "the victim's process", func() bool { return running("987654") })
	if n := namespaces(t); len(n) < len(before)+2 { // the laboratory's own and its host's
		t.Errorf("namespaces before %v, with the victim %v", before, n)
	}
	check(t, cmd.Process.Kill())
	_ = cmd.Wait()
	waitFor(t, "its end", func() bool { return !running("987654") && !running(victimArg) })
	if after := namespaces(t); !maps.Equal(before, after) {
		t.Errorf("namespaces before %v, after %v", before, after)
	}
}

// namespaces are the network namespaces in which there are processes.
func namespaces(t *testing.T) map[string]bool {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/ns/net")
	check(t, err)
	found := map[string]bool{}
	for _, l := range links {
		if ns, err := os.Readlink(l); err == nil { // it may have ended meanwhile
			found[ns] = true
		}
	}
	return found
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for start := time.Now(); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Since(start) > 5*time.Second {
			t.Fatalf("waited 5 s for %s", what)
		}
	}
}

// running says whether a process has arg as an argument of its own; copies that still enter their namespace do not count.
func running(arg string) bool {
	dirs, _ := os.ReadDir("/proc")
	for _, d := range dirs {
		if _, err := strconv.Atoi(d.Name()); err != nil {
			continue
		}
		b, _ := os.ReadFile(filepath.Join("/proc", d.Name(), "cmdline"))
		for i, a := range strings.Split(string(b), "\x00") {
			if i > 0 && a == arg {
				return true
			}
		}
	}
	return false
}

func TestDialAndListen(t *testing.T) {
	l := needsLab(t)
	a, b := host(t, l, "a"), host(t, l, "b")
	check(t, l.Link(a, "eth0", netip.MustParsePrefix("10.0.0.1/24"), b, "eth0", netip.MustParsePrefix("10.0.0.2/24")))
	ln, err := b.Listen(t.Context(), netip.MustParseAddrPort("10.0.0.2:7"))
	check(t, err)
	defer ln.Close() //nolint:errcheck // a test
	c, err := a.Dial(t.Context(), "tcp", netip.MustParseAddrPort("10.0.0.2:7"))
	check(t, err)
	defer c.Close() //nolint:errcheck // a test
	if got := c.LocalAddr().(*net.TCPAddr).IP.String(); got != "10.0.0.1" {
		t.Errorf("dialled from %s", got)
	}
}
