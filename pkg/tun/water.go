//go:build linux

package tun

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync"
	"sync/atomic"

	"github.com/songgao/water"
	"golang.org/x/sys/unix"
)

const devNetTun = "/dev/net/tun"

// Reasons why a TUN interface cannot be opened. Each is wrapped in an error whose text
// says what to do about it.
var (
	ErrName     = errors.New("not an interface name")
	ErrInUse    = errors.New("the interface is in use by another process")
	ErrNoDriver = errors.New("the kernel offers no TUN driver")
	ErrDenied   = errors.New("not allowed to make TUN interfaces")
)

// OpenError says which interface could not be opened, why, and what would help.
type OpenError struct {
	Name string
	Hint string // one sentence for the operator
	Err  error  // wraps one of the sentinels above where the cause is known
}

func (e *OpenError) Error() string {
	if e.Hint == "" {
		return fmt.Sprintf("opening TUN interface %q: %v", e.Name, e.Err)
	}
	return fmt.Sprintf("opening TUN interface %q: %v (hint: %s)", e.Name, e.Err, e.Hint)
}

func (e *OpenError) Unwrap() error { return e.Err }

// waterDevice is a Device over github.com/songgao/water.
type waterDevice struct {
	ifce *water.Interface
	// ctl is a socket of the network namespace in which the device was made: the MTU must
	// be asked there, whichever thread asks.
	ctl    *os.File
	closed atomic.Bool
	close  func() error
}

// OpenWater makes the TUN interface called name (or the kernel's choice if name is empty)
// in the network namespace of the calling thread. It is down and without addresses; it
// disappears when the Device is closed or the process dies.
// Errors are *OpenError.
func OpenWater(name string) (Device, error) {
	if err := checkName(name); err != nil {
		return nil, &OpenError{Name: name, Err: err, Hint: "1 to 15 characters, no slash, no space"}
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, &OpenError{Name: name, Err: os.NewSyscallError("socket", err)}
	}
	ctl := os.NewFile(uintptr(fd), "socket")
	// New, not NewTUN: the latter prints to standard output.
	ifce, err := water.New(water.Config{
		DeviceType:             water.TUN,
		PlatformSpecificParams: water.PlatformSpecificParams{Name: name},
	})
	if err != nil {
		return nil, errors.Join(explain(name, err), ctl.Close())
	}
	d := &waterDevice{ifce: ifce, ctl: ctl}
	d.close = sync.OnceValue(func() error {
		d.closed.Store(true)
		return errors.Join(d.ifce.Close(), d.ctl.Close())
	})
	return d, nil
}

// checkName holds a name against what the kernel's dev_valid_name accepts: water would
// silently cut a longer one. A percent sign would be a pattern to the kernel.
func checkName(name string) error {
	if name == "." || name == ".." || len(name) >= unix.IFNAMSIZ {
		return ErrName
	}
	for _, c := range []byte(name) {
		if c <= ' ' || c >= 0x7f || c == '/' || c == ':' || c == '%' {
			return ErrName
		}
	}
	return nil
}

// explain turns what open(2) and TUNSETIFF answer into a sentinel and a hint.
func explain(name string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV):
		return &OpenError{name, "load the tun module (modprobe tun) or pass " + devNetTun + " into the container", fmt.Errorf("%w: %w", ErrNoDriver, err)}
	case errors.Is(err, unix.EACCES):
		return &OpenError{name, "the device file " + devNetTun + " must be readable and writable (chmod 0666, or run as root)", fmt.Errorf("%w: %w", ErrDenied, err)}
	case errors.Is(err, unix.EPERM):
		return &OpenError{name, "it takes CAP_NET_ADMIN: run as root, or give the binary the capability (setcap cap_net_admin+ep)", fmt.Errorf("%w: %w", ErrDenied, err)}
	case errors.Is(err, unix.EBUSY):
		return &OpenError{name, "stop the process that has it open, or choose another name", fmt.Errorf("%w: %w", ErrInUse, err)}
	case errors.Is(err, unix.EINVAL):
		return &OpenError{name, "an interface of that name exists and is no TUN interface of this kind; choose another name", fmt.Errorf("%w: %w", ErrInUse, err)}
	}
	return &OpenError{Name: name, Err: err}
}

func (d *waterDevice) Name() string   { return d.ifce.Name() }
func (d *waterDevice) Kind() string   { return "water" }
func (d *waterDevice) BatchSize() int { return 1 }
func (d *waterDevice) Close() error   { return d.close() }

func (d *waterDevice) MTU() (int, error) {
	req, err := unix.NewIfreq(d.Name())
	if err != nil {
		return 0, d.failed("asking the MTU of", err)
	}
	conn, err := d.ctl.SyscallConn()
	if err != nil {
		return 0, d.failed("asking the MTU of", err)
	}
	var ierr error
	if err := conn.Control(func(fd uintptr) { ierr = unix.IoctlIfreq(int(fd), unix.SIOCGIFMTU, req) }); err != nil {
		return 0, d.failed("asking the MTU of", err)
	}
	if ierr != nil {
		return 0, d.failed("asking the MTU of", os.NewSyscallError("SIOCGIFMTU", ierr))
	}
	return int(req.Uint32()), nil
}

func (d *waterDevice) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	if len(bufs) == 0 || len(sizes) == 0 {
		return 0, nil
	}
	n, err := d.ifce.Read(bufs[0][offset:])
	if err != nil {
		return 0, d.failed("reading from", err)
	}
	sizes[0] = n
	return 1, nil
}

func (d *waterDevice) Write(bufs [][]byte, offset int) (n int, err error) {
	for _, b := range bufs {
		if _, werr := d.ifce.Write(b[offset:]); werr != nil {
			if werr = d.failed("writing to", werr); errors.Is(werr, net.ErrClosed) {
				return n, werr
			}
			if err == nil {
				err = werr
			}
			continue
		}
		n++
	}
	return n, err
}

func (d *waterDevice) failed(doing string, err error) error {
	if d.closed.Load() { // the errors of closed files are of several kinds
		return net.ErrClosed
	}
	return fmt.Errorf("%s %s: %w", doing, d.Name(), err)
}
