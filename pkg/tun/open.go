//go:build linux

package tun

import (
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"
)

const devNetTun = "/dev/net/tun"

// Reasons why a TUN interface cannot be opened. Each is wrapped in an error whose text
// says what to do about it.
var (
	ErrName      = errors.New("not an interface name")
	ErrInUse     = errors.New("the interface is in use by another process")
	ErrNoDriver  = errors.New("the kernel offers no TUN driver")
	ErrDenied    = errors.New("not allowed to make TUN interfaces")
	ErrNoOffload = errors.New("the kernel offers no segmentation offload on TUN interfaces")
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

// Open makes the TUN interface called name (or the kernel's choice if name is empty) with so many
// queues in the network namespace of the calling thread: with offloads where the kernel has
// them, else by OpenWater. It is down and without addresses; it disappears when the
// Device is closed or the process dies.
// Errors are *OpenError.
func Open(name string, queues int) (Device, error) {
	d, err := OpenOffload(name, queues)
	if errors.Is(err, ErrNoOffload) {
		return OpenWater(name)
	}
	return d, err
}

// checkName holds a name against what the kernel's dev_valid_name accepts: a longer one would be
// cut silently. A percent sign would be a pattern to the kernel.
func checkName(name string) error {
	if name == "." || name == ".." || len(name) >= unix.IFNAMSIZ {
		return &OpenError{Name: name, Err: ErrName, Hint: "1 to 15 characters, no slash, no space"}
	}
	for _, c := range []byte(name) {
		if c <= ' ' || c >= 0x7f || c == '/' || c == ':' || c == '%' {
			return &OpenError{Name: name, Err: ErrName, Hint: "1 to 15 characters, no slash, no space"}
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
