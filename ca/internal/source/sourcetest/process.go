package sourcetest

import (
	"bytes"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Program finds a program of a Debian package, also where only root looks. Without it the test is left out, or fails where
// nothing may be.
func Program(tb testing.TB, name, debian string) string {
	tb.Helper()
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/usr/local/sbin", "/sbin") {
		path := filepath.Join(dir, name)
		info, err := os.Stat(path) //nolint:gosec // a test
		if err == nil && !info.IsDir() && info.Mode()&0o111 != 0 {
			return path
		}
	}
	why := "needs " + name + " (apt install " + debian + ")"
	if os.Getenv("TWINKEY_NO_SKIP") == "1" {
		tb.Fatal(why)
	}
	tb.Skip(why)
	return ""
}

// log is what a process wrote; safe for concurrent use.
type log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Process is a server that runs.
type Process struct {
	cmd  *exec.Cmd
	out  *log
	done chan struct{}
}

// start runs a program until the test ends, and waits until ready says that it is up.
func start(tb testing.TB, ready func(*Process) bool, program string, args ...string) *Process {
	tb.Helper()
	p := &Process{cmd: exec.Command(program, args...), out: &log{}, done: make(chan struct{})} //nolint:gosec // a test
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait() // it is killed in the end
		close(p.done)
	}()
	tb.Cleanup(func() {
		p.Stop()
		if tb.Failed() {
			tb.Logf("%s:\n%s", filepath.Base(program), p.out)
		}
	})
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if ready(p) {
			return p
		}
		select {
		case <-p.done:
			tb.Fatalf("%s ended:\n%s", filepath.Base(program), p.out)
		default:
		}
	}
	tb.Fatalf("%s does not come up:\n%s", filepath.Base(program), p.out)
	return nil
}

// Stop ends the process.
func (p *Process) Stop() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.done
}

// Hang lets the process answer nothing until Resume.
func (p *Process) Hang(tb testing.TB) { tb.Helper(); p.signal(tb, syscall.SIGSTOP) }

// Resume ends what Hang began.
func (p *Process) Resume(tb testing.TB) { tb.Helper(); p.signal(tb, syscall.SIGCONT) }

func (p *Process) signal(tb testing.TB, s syscall.Signal) {
	tb.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		tb.Fatal(err)
	}
}

// Log is what it wrote so far.
func (p *Process) Log() string { return p.out.String() }

func (p *Process) says(s string) bool { return strings.Contains(p.out.String(), s) }

// Ports that the kernel gives to nobody of its own accord: between asking for a free one and listening there, somebody else's
// socket of no particular port may have taken it.
const (
	firstPort = 20000
	ports     = 12000
)

// FreePort is an address on loopback whose UDP and TCP ports nobody uses now.
func FreePort(tb testing.TB) netip.AddrPort {
	tb.Helper()
	for range 100 {
		addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), firstPort+uint16(rand.IntN(ports))) //nolint:gosec // a test
		l, err := net.Listen("tcp", addr.String())
		if err != nil {
			continue
		}
		u, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
		_ = l.Close()
		if err == nil {
			_ = u.Close()
			return addr
		}
	}
	tb.Fatal("no free port")
	return netip.AddrPort{}
}

// Ended fails if goroutines are left whose stack names what; they may take a moment to end.
func Ended(tb testing.TB, what string) {
	tb.Helper()
	var stacks string
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		b := make([]byte, 1<<20)
		stacks = string(b[:runtime.Stack(b, true)])
		if !strings.Contains(stacks, what) {
			return
		}
	}
	tb.Errorf("goroutines of %s are left:\n%s", what, stacks)
}

// WriteFile writes a file that only its owner may read.
func WriteFile(tb testing.TB, dir, name, text string) string {
	tb.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}
