//go:build linux

package netlab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ErrPrivileges is wrapped by the errors of EnsurePrivileges: this machine does not let us make
// namespaces, or TUN interfaces within them.
var ErrPrivileges = errors.New("no privileges for a network laboratory")

const (
	// roleEnv tells a copy of the program what it is. It is taken out of the environment at once.
	roleEnv     = "NETLAB_ROLE"
	roleInside  = "inside"
	roleCommand = "netlab-command" // argv[0] of a copy that only enters a namespace and executes a command

	runDir = "/run/netlab" // namespaces by name, on a tmpfs that only the laboratory sees
)

// inside says that this process is pid 1 of a laboratory.
var inside atomic.Bool

// EnsurePrivileges makes this process one that can build laboratories. It must be called before the program does
// anything else, since the program runs twice: in the process that was started it does not return but
// exits with the exit code of its child; in the child it returns nil. As root it needs CAP_SYS_ADMIN and
// CAP_NET_ADMIN, otherwise a kernel that lets users make user namespaces.
// If it cannot be done it returns an error that says why and what would help (ErrPrivileges), and the
// program goes on as it was.
func EnsurePrivileges() error {
	if os.Args[0] == roleCommand {
		runCommand() // does not return
	}
	if inside.Load() {
		return nil
	}
	if os.Getenv(roleEnv) == roleInside && os.Getpid() == 1 {
		if err := os.Unsetenv(roleEnv); err != nil {
			return fmt.Errorf("%w: %w", ErrPrivileges, err)
		}
		if err := furnish(); err != nil {
			// Nothing may run half inside: its tests would see a network that is neither.
			fmt.Fprintf(os.Stderr, "netlab: %v\n", err)
			os.Exit(exitUnfurnished)
		}
		inside.Store(true)
		return nil
	}
	return reexec()
}

// Outside says that this process is the one that was started, before EnsurePrivileges: it still has the machine's
// network, for what a laboratory must not need (downloading modules for a build).
func Outside() bool {
	return os.Args[0] != roleCommand && os.Getenv(roleEnv) != roleInside && !inside.Load()
}

// exitUnfurnished is the exit code of a child that got namespaces but could not use them. The probe meets it
// first, so it is not seen in practice unless the machine changes in between.
const exitUnfurnished = 125

// reexec runs the program in namespaces of its own and exits with its code; it returns only if that is
// not possible.
func reexec() error {
	user := os.Geteuid() != 0
	err := probe(user)
	if err != nil && !user {
		// Root of a container without CAP_SYS_ADMIN may still be allowed a user namespace.
		if uerr := probe(true); uerr != nil {
			return denied(err)
		}
		user = true
	} else if err != nil {
		return denied(err)
	}
	cmd := insideCommand(user, os.Args[1:])
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr

	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1)
	// Pdeathsig goes out when the thread that started the child ends, so this one must stay.
	runtime.LockOSThread()
	if err := cmd.Start(); err != nil {
		signal.Stop(signals)
		runtime.UnlockOSThread()
		return denied(err)
	}
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s) // it may just have ended, which Wait tells
		}
	}()
	err = cmd.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			os.Exit(128 + int(ws.Signal()))
		}
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "netlab: waiting for the laboratory: %v\n", err)
		os.Exit(1)
	}
	os.Exit(0)
	return nil
}

// insideCommand is this program in new namespaces.
func insideCommand(user bool, args []string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...) //nolint:gosec // ourselves
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), roleEnv+"="+roleInside)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET,
		Pdeathsig:  unix.SIGKILL,
	}
	if user {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	return cmd
}

// probe runs the program only as far as to furnish its namespaces, so that a machine that gives
// namespaces but no rights in them (AppArmor on Ubuntu) is found out before anything is committed.
func probe(user bool) error {
	cmd := insideCommand(user, nil)
	cmd.Args = []string{roleCommand, "probe"}
	out, err := cmd.CombinedOutput()
	if _, ok := errors.AsType[*exec.ExitError](err); ok {
		return errors.New(strings.TrimSpace(string(out)))
	}
	return err
}

func denied(err error) error {
	hint := "run it as root"
	switch {
	case os.Geteuid() == 0:
		hint = "in a container, give it CAP_SYS_ADMIN and CAP_NET_ADMIN and /dev/net/tun (docker run --privileged)"
	case readsAs("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"):
		hint = "run it as root, or allow user namespaces: sysctl kernel.apparmor_restrict_unprivileged_userns=0"
	case readsAs("/proc/sys/kernel/unprivileged_userns_clone", "0"):
		hint = "run it as root, or allow user namespaces: sysctl kernel.unprivileged_userns_clone=1"
	case readsAs("/proc/sys/user/max_user_namespaces", "0"):
		hint = "run it as root, or allow user namespaces: sysctl user.max_user_namespaces=1000"
	}
	return fmt.Errorf("%w: %w (hint: %s)", ErrPrivileges, err, hint)
}

func readsAs(file, value string) bool {
	b, err := os.ReadFile(file) //nolint:gosec // constants
	return err == nil && strings.TrimSpace(string(b)) == value
}

// furnish makes the new namespaces usable: mounts that nobody else sees, a loopback that is up.
func furnish() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	// The process table of the new namespace. Where the kernel refuses (a container that hides parts
	// of /proc), the old one serves: /proc/self and /proc/thread-self mean the reader in both.
	_ = unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return fmt.Errorf("mounting a private /run: %w", err)
	}
	if err := os.MkdirAll(runDir, 0o700); err != nil {
		return fmt.Errorf("furnishing the laboratory: %w", err)
	}
	return loopbackUp()
}

func loopbackUp() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("looking for the loopback: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("bringing the loopback up: %w", err)
	}
	return nil
}

// CheckTUN says whether TUN interfaces can be made here: a user namespace gives the right, but not the
// device file.
func CheckTUN() error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w: /dev/net/tun: %w (hint: run it as root, or chmod 0666 /dev/net/tun as most systems have it)", ErrPrivileges, err)
	case err != nil:
		return fmt.Errorf("%w: /dev/net/tun: %w (hint: modprobe tun, or pass the device into the container)", ErrPrivileges, err)
	}
	return unix.Close(fd)
}

// runCommand is the life of a copy of the program that was started by Host.Command or by probe.
//
//	netlab-command probe
//	netlab-command NAMESPACE PATH ARGV0 ARGS...
func runCommand() {
	err := func() error {
		if len(os.Args) == 2 && os.Args[1] == "probe" {
			if err := os.Unsetenv(roleEnv); err != nil {
				return err
			}
			if err := furnish(); err != nil {
				return err
			}
			os.Exit(0)
		}
		if len(os.Args) < 4 {
			return errors.New("too few arguments")
		}
		return enterAndExec(os.Args[1], os.Args[2], os.Args[3:])
	}()
	fmt.Fprintf(os.Stderr, "netlab: %v\n", err)
	os.Exit(exitCannotExec)
}

// exitCannotExec is what a shell answers too when a command cannot be executed.
const exitCannotExec = 126

func enterAndExec(namespace, path string, argv []string) error {
	runtime.LockOSThread() // execve makes this thread the only one, and its namespace the process's
	fd, err := unix.Open(filepath.Clean(namespace), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening the namespace: %w", err)
	}
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("entering the namespace: %w", err)
	}
	if err := syscall.Exec(path, argv, os.Environ()); err != nil { //nolint:gosec // what the caller of Command named
		return fmt.Errorf("executing %s: %w", path, err)
	}
	return nil
}
