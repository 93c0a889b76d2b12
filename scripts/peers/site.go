//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"twinkey/pkg/netlab"
	"twinkey/scripts/lab"
)

const (
	stopGrace    = 3 * time.Second  // between asking a router to stop and killing it
	upTimeout    = 20 * time.Second // for the first ping to cross
	logTail      = 6                // lines of a log that an error shows
	deviceWithin = 10               // seconds until a candidate has its interface
)

// site is the laboratory of one candidate and the processes that are its routers.
type site struct {
	*lab.Company
	pids  [2]int // 0: the kernel alone
	procs []*router
}

// router is a process of a peer.
type router struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

func newSite(ctx context.Context) (*site, error) {
	c, err := lab.New(ctx)
	if err != nil {
		return nil, err
	}
	return &site{Company: c}, nil
}

// close ends the candidate's processes, waits for them, and takes the network away.
func (s *site) close() error {
	for _, r := range s.procs {
		_ = r.cmd.Process.Signal(unix.SIGTERM) // it may have ended
	}
	for _, r := range s.procs {
		select {
		case <-r.done:
		case <-time.After(stopGrace):
			_ = r.cmd.Process.Kill()
			<-r.done
		}
	}
	return s.Close()
}

func (s *site) host(i int) *netlab.Host { return []*netlab.Host{s.RA, s.RB}[i] }

func (s *site) file(name string) string { return filepath.Join(s.Dir, name) }

// start runs a peer's router at one end. It is what is measured there.
func (s *site) start(i int, argv ...string) error {
	log, err := os.Create(s.file(fmt.Sprintf("router%d.log", i)))
	if err != nil {
		return fmt.Errorf("starting %s: %w", argv[0], err)
	}
	defer log.Close()
	// It ends by close, in its order, not when the run is interrupted.
	r := &router{cmd: s.host(i).Command(context.Background(), argv[0], argv[1:]...), done: make(chan struct{})}
	r.cmd.Stdout, r.cmd.Stderr = log, log
	if err := r.cmd.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", argv[0], err)
	}
	go func() {
		defer close(r.done)
		_ = r.cmd.Wait() // how it ended is asked of ProcessState
	}()
	s.procs, s.pids[i] = append(s.procs, r), r.cmd.Process.Pid
	return nil
}

// ended says which of the peer's routers is gone.
func (s *site) ended() error {
	for _, r := range s.procs {
		select {
		case <-r.done:
			return fmt.Errorf("a router has ended: %s", r.cmd.ProcessState)
		default:
		}
	}
	return nil
}

// explain adds to an error what the routers said last.
func (s *site) explain(err error) error {
	if err == nil {
		return nil
	}
	if gone := s.ended(); gone != nil {
		err = fmt.Errorf("%w: %w", err, gone)
	}
	var b strings.Builder
	files, _ := filepath.Glob(s.file("r*.log")) // the pattern is well-formed
	slices.Sort(files)
	for _, f := range files {
		text, _ := os.ReadFile(f) //nolint:gosec,errcheck // our own logs; one that cannot be read has nothing to say
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		for _, line := range lines[max(0, len(lines)-logTail):] {
			fmt.Fprintf(&b, "\n  %s: %s", strings.TrimSuffix(filepath.Base(f), ".log"), line)
		}
	}
	return fmt.Errorf("%w%s", err, b.String())
}

// sh runs a script at one end's router.
func (s *site) sh(ctx context.Context, i int, format string, a ...any) error {
	_, err := lab.Run(ctx, s.host(i), "sh", "-ec", fmt.Sprintf(format, a...))
	return err
}

// routes leads each LAN's packets for the other into an interface, once it is there.
func (s *site) routes(ctx context.Context, dev func(i int) string, mtu int) error {
	for i, far := range []lab.Site{lab.SiteB, lab.SiteA} {
		d := dev(i)
		if err := s.sh(ctx, i, "for i in $(seq %d); do ip link show %s >/dev/null 2>&1 && break; sleep .1; done", deviceWithin*10, d); err != nil {
			return err
		}
		if mtu > 0 {
			if err := s.sh(ctx, i, "ip link set %s mtu %d", d, mtu); err != nil {
				return err
			}
		}
		if err := s.sh(ctx, i, "ip link set %s up; ip route replace %s dev %s", d, far.LAN, d); err != nil {
			return err
		}
	}
	return nil
}

func named(dev string) func(int) string { return func(int) string { return dev } }

// answers waits until a ping crosses.
func (s *site) answers(ctx context.Context) error {
	ctx, stop := context.WithTimeoutCause(ctx, upTimeout, fmt.Errorf("no ping crosses within %v", upTimeout))
	defer stop()
	for {
		_, err := s.HostA.Ping(ctx, netlab.Ping{To: lab.SiteB.Host, Count: 1, Wait: time.Second})
		if err == nil {
			return nil
		}
		if gone := s.ended(); gone != nil {
			return gone
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}
