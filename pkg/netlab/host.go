//go:build linux

package netlab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Host is a machine of the laboratory: a network namespace.
type Host struct {
	lab  *Lab
	name string
	path string   // the namespace is bound here, for processes to enter
	ns   *os.File // and held here
}

// StopGrace is how long a command that was asked to stop (SIGTERM, when the context of Command ends) may
// take before it is killed.
const StopGrace = 5 * time.Second

// errExited is returned by Do when its function ended its goroutine (t.FailNow does) instead of returning.
var errExited = errors.New("the function ended its goroutine")

// newHost makes a namespace on a thread of its own and binds it at path.
func newHost(name, path string) (*Host, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o600) //nolint:gosec // in our own directory
	if err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	h := &Host{name: name, path: path}
	err = onOwnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("making a network namespace: %w", err)
		}
		if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("binding the namespace: %w", err)
		}
		if h.ns, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return err
		}
		for _, which := range []string{"all", "default"} {
			// A kernel without IPv6 has no such file and needs none.
			_ = os.WriteFile("/proc/sys/net/ipv6/conf/"+which+"/accept_dad", []byte("0"), 0o600)
		}
		return loopbackUp()
	})
	if err != nil {
		return nil, errors.Join(err, h.close())
	}
	return h, nil
}

// onOwnThread runs f on a thread that is thrown away afterwards, whatever f did to it.
func onOwnThread(f func() error) error {
	err := errExited
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the runtime ends the thread with the goroutine
		err = f()
	}()
	<-done
	return err
}

func (h *Host) close() error {
	var errs []error
	if err := unix.Unmount(h.path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
		errs = append(errs, fmt.Errorf("unbinding %s: %w", h.name, err))
	}
	if h.ns != nil {
		errs = append(errs, h.ns.Close())
	}
	return errors.Join(append(errs, os.Remove(h.path))...)
}

func (h *Host) fd() int { return int(h.ns.Fd()) }

// Name is what the host was made with.
func (h *Host) Name() string { return h.name }

// Do runs f as this host: on a thread in its namespace. Sockets and netlink requests that f makes on
// this goroutine belong to the host and go on belonging to it afterwards; goroutines that f starts do not, and
// neither does what the net package does on others (name lookups). f must not start processes; Command does.
func (h *Host) Do(f func() error) error {
	return onOwnThread(func() error {
		if err := unix.Setns(h.fd(), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("entering host %s: %w", h.name, err)
		}
		return f()
	})
}

// Command is exec.CommandContext for a process that runs on this host. It can be started from any goroutine. When ctx ends it
// gets SIGTERM, and SIGKILL after StopGrace.
func (h *Host) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	// The copy of ourselves enters the namespace and turns into the command. The alternative, starting it from a
	// thread in the namespace, would need a Start of our own.
	cmd := exec.CommandContext(ctx, "/proc/self/exe") //nolint:gosec // ourselves
	path, err := exec.LookPath(name)
	if err == nil {
		path, err = filepath.Abs(path)
	}
	cmd.Err = err
	cmd.Args = append([]string{roleCommand, h.path, path, name}, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	cmd.WaitDelay = StopGrace
	return cmd
}

// Dial connects from this host. addr is an address and port, not a name.
func (h *Host) Dial(ctx context.Context, network string, addr netip.AddrPort) (c net.Conn, err error) {
	err = h.Do(func() error {
		var d net.Dialer
		c, err = d.DialContext(ctx, network, addr.String())
		return err
	})
	return c, err
}

// Listen opens a listening TCP socket on this host.
func (h *Host) Listen(ctx context.Context, addr netip.AddrPort) (ln net.Listener, err error) {
	err = h.Do(func() error {
		var lc net.ListenConfig
		ln, err = lc.Listen(ctx, "tcp", addr.String())
		return err
	})
	return ln, err
}

// Sysctl sets a kernel parameter of the host's network, such as "net.ipv4.ip_forward".
func (h *Host) Sysctl(name, value string) error {
	if !strings.HasPrefix(name, "net.") {
		return fmt.Errorf("setting %s on %s: only net.* is the host's own", name, h.name)
	}
	return h.Do(func() error {
		file := filepath.Join("/proc/sys", strings.ReplaceAll(name, ".", "/"))
		if err := os.WriteFile(file, []byte(value), 0o600); err != nil {
			return fmt.Errorf("setting %s on %s: %w", name, h.name, err)
		}
		return nil
	})
}

// AddAddress gives an interface one more address.
func (h *Host) AddAddress(ifname string, addr netip.Prefix) error { return h.configure(ifname, addr) }

// DefaultRoute sends what has no better route by way of a gateway.
func (h *Host) DefaultRoute(gateway netip.Addr) error {
	return h.Do(func() error {
		if err := netlink.RouteAdd(&netlink.Route{Gw: gateway.AsSlice()}); err != nil {
			return fmt.Errorf("routing %s by way of %s: %w", h.name, gateway, err)
		}
		return nil
	})
}

// LinkUp and LinkDown plug an interface in and pull it out.
func (h *Host) LinkUp(ifname string) error   { return h.onLink(ifname, netlink.LinkSetUp) }
func (h *Host) LinkDown(ifname string) error { return h.onLink(ifname, netlink.LinkSetDown) }

// SetMTU changes an interface's MTU in bytes.
func (h *Host) SetMTU(ifname string, mtu int) error {
	return h.onLink(ifname, func(l netlink.Link) error { return netlink.LinkSetMTU(l, mtu) })
}

// Shape limits what the interface sends to rate bytes a second, by a token bucket with a queue of 50 ms.
// A rate of 0 takes the limit away.
func (h *Host) Shape(ifname string, rate uint64) error {
	return h.onLink(ifname, func(l netlink.Link) error {
		attrs := netlink.QdiscAttrs{LinkIndex: l.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT}
		if rate == 0 {
			err := netlink.QdiscDel(&netlink.Tbf{QdiscAttrs: attrs})
			if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) {
				return nil
			}
			return err
		}
		// The bucket must hold at least a segmentation train (64 KiB), or the train never passes.
		const bucket = 128 << 10
		return netlink.QdiscReplace(&netlink.Tbf{
			QdiscAttrs: attrs,
			Rate:       rate,
			Buffer:     uint32(float64(bucket) / float64(rate) * netlink.TickInUsec() * 1e6),
			Limit:      uint32(min(rate/20+bucket, 64<<20)), //nolint:gosec // bounded
		})
	})
}

func (h *Host) configure(ifname string, addr netip.Prefix) error {
	return h.onLink(ifname, func(l netlink.Link) error {
		if addr.IsValid() {
			n := &net.IPNet{IP: addr.Addr().AsSlice(), Mask: net.CIDRMask(addr.Bits(), addr.Addr().BitLen())}
			if err := netlink.AddrAdd(l, &netlink.Addr{IPNet: n}); err != nil {
				return fmt.Errorf("address %s: %w", addr, err)
			}
		}
		return netlink.LinkSetUp(l)
	})
}

// carrierTime is how long the kernel may take to notice that both ends of a cable are up. It works that off on a
// queue of its own, usually within a millisecond.
const carrierTime = 2 * time.Second

// carrier waits until the interface is operational. A neighbour solicitation that comes before is lost, and the next
// one is a second away.
func (h *Host) carrier(ifname string) error {
	for start := time.Now(); ; time.Sleep(time.Millisecond) {
		var state netlink.LinkOperState
		err := h.onLink(ifname, func(l netlink.Link) error { state = l.Attrs().OperState; return nil })
		if err != nil || state == netlink.OperUp {
			return err
		}
		if time.Since(start) > carrierTime {
			return fmt.Errorf("interface %s of %s: no carrier after %v", ifname, h.name, carrierTime)
		}
	}
}

func (h *Host) onLink(ifname string, f func(netlink.Link) error) error {
	return h.Do(func() error {
		l, err := netlink.LinkByName(ifname)
		if err == nil {
			err = f(l)
		}
		if err != nil {
			return fmt.Errorf("interface %s of %s: %w", ifname, h.name, err)
		}
		return nil
	})
}
