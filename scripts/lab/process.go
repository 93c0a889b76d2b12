//go:build linux

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"twinkey/pkg/netlab"
)

// tailLines is how much of a log an error shows: enough for the cause and what led to it.
const tailLines = 15

// Process is a program that runs on a host, its output in a log file.
type Process struct {
	Name string
	Log  string // path
	cmd  *exec.Cmd
	end  context.CancelFunc
	done chan struct{}
	err  error // of Wait, after done
}

// start runs argv on h. Its output goes to dir/name.log, after what an earlier process of that name left there.
func start(ctx context.Context, h *netlab.Host, dir, name string, argv ...string) (*Process, error) {
	log, err := os.OpenFile(filepath.Join(dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600) //nolint:gosec // in our own directory
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	defer func() { _ = log.Close() }() // the process has its own
	// It ends when it is stopped, in the order that Company.Close keeps, not when the caller is interrupted.
	ctx, end := context.WithCancel(context.WithoutCancel(ctx))
	p := &Process{Name: name, Log: log.Name(), cmd: h.Command(ctx, argv[0], argv[1:]...), end: end, done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		end()
		return nil, fmt.Errorf("starting %s on %s: %w", name, h.Name(), err)
	}
	go func() {
		defer close(p.done)
		p.err = p.cmd.Wait()
	}()
	return p, nil
}

// Exited is closed when the process has ended, for whatever reason.
func (p *Process) Exited() <-chan struct{} { return p.done }

// PID is its number, under which /proc tells what it takes.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Stop asks the process to stop and waits. A process that has to be killed (netlab.StopGrace), or that ends with an
// error, is an error. Stopping twice is none.
func (p *Process) Stop() error {
	select {
	case <-p.done: // by itself, or stopped before
	default:
		p.end()
		<-p.done
	}
	state := p.cmd.ProcessState
	if state.ExitCode() == 0 {
		return nil
	}
	return fmt.Errorf("stopping %s: %s\n%s", p.Name, state, p.Tail())
}

// Kill ends the process without asking, as a power cut would, and waits.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it may have ended already, which is as good
	<-p.done
	p.end()
}

// Signal sends a signal, SIGHUP for one.
func (p *Process) Signal(s os.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil {
		return fmt.Errorf("signalling %s: %w", p.Name, err)
	}
	return nil
}

// Pause stops the process where it stands (a peer that hangs), Continue lets it go on.
func (p *Process) Pause() error    { return p.Signal(unix.SIGSTOP) }
func (p *Process) Continue() error { return p.Signal(unix.SIGCONT) }

// Tail is the end of the log, indented.
func (p *Process) Tail() string {
	b, err := os.ReadFile(p.Log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	lines = lines[max(0, len(lines)-tailLines):]
	return "  " + p.Name + ": " + strings.Join(lines, "\n  "+p.Name+": ")
}

// pollEvery is how often a condition is looked at. Most hold within a few of these.
const pollEvery = 20 * time.Millisecond

// Until waits until ok returns nil. It gives up after timeout, when ctx ends, or as soon as one of the processes that are to bring it
// about has ended; the error then says what was waited for, what ok said last, and shows the ends of their logs.
func Until(ctx context.Context, what string, timeout time.Duration, ok func(context.Context) error, by ...*Process) error {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("not within %v", timeout))
	defer cancel()
	var last error
	for {
		if err := ok(ctx); err == nil {
			return nil
		} else if last == nil || ctx.Err() == nil {
			last = err // not what a probe says because it was cut short
		}
		var why error
		select {
		case <-time.After(pollEvery):
		case <-ctx.Done():
			why = context.Cause(ctx)
		}
		for _, p := range by {
			select {
			case <-p.done:
				why = fmt.Errorf("%s has ended: %s", p.Name, p.cmd.ProcessState)
			default:
			}
		}
		if why != nil {
			return fmt.Errorf("waiting for %s: %w: %w%s", what, why, last, tails(by))
		}
	}
}

func tails(ps []*Process) string {
	var b strings.Builder
	for _, p := range ps {
		b.WriteString("\n" + p.Tail())
	}
	return b.String()
}

// runTimeout bounds a command that is expected to answer at once.
const runTimeout = 60 * time.Second

// Run executes argv on h to its end and returns its standard output. An error holds what it said on standard error.
func Run(ctx context.Context, h *netlab.Host, argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, runTimeout)
	defer cancel()
	cmd := h.Command(ctx, argv[0], argv[1:]...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		said := strings.TrimSpace(stderr.String())
		if said == "" {
			said = strings.TrimSpace(stdout.String())
		}
		line := strings.Join(append([]string{filepath.Base(argv[0])}, argv[1:]...), " ")
		return stdout.String(), fmt.Errorf("on %s: %s: %w\n  %s", h.Name(), line, errors.Join(ctx.Err(), err), strings.ReplaceAll(said, "\n", "\n  "))
	}
	return stdout.String(), nil
}
