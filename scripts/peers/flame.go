//go:build linux

package main

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"html"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// sampling is perf(1) at work on the routers' processes.
type sampling struct {
	cmd  *exec.Cmd
	file string
}

// sample has perf record the stacks of both routers until stop.
func sample(ctx context.Context, s *site) (*sampling, error) {
	p := &sampling{file: filepath.Join(os.TempDir(), fmt.Sprintf("peers-%d.perf", os.Getpid()))}
	p.cmd = exec.CommandContext(ctx, "perf", "record", "-q", "-g", "-F", "997", "-o", p.file, "-p", fmt.Sprintf("%d,%d", s.pids[0], s.pids[1])) //nolint:gosec // numbers
	p.cmd.Stderr = os.Stderr
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting perf: %w (hint: apt install linux-perf)", err)
	}
	return p, nil
}

// stop ends the recording and reads it. It comes before the routers end, whose programs perf looks names up in.
func (p *sampling) stop(ctx context.Context) (*frame, error) {
	defer os.Remove(p.file) //nolint:errcheck // a temporary file
	_ = p.cmd.Process.Signal(unix.SIGINT)
	_ = p.cmd.Wait()                                                                         // it ends by the signal
	cmd := exec.CommandContext(ctx, "perf", "script", "-i", p.file, "-F", "comm,ip,sym,dso") //nolint:gosec // a temporary file
	cmd.Stderr = io.Discard                                                                  // what it does not know the name of
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("reading what perf recorded: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("reading what perf recorded: %w", err)
	}
	root, err := readStacks(out)
	if ended := cmd.Wait(); err == nil && ended != nil {
		err = fmt.Errorf("reading what perf recorded: %w", ended)
	}
	return root, err
}

// frame is a function in the tree of stacks, under its caller.
type frame struct {
	name    string
	kernel  bool
	samples int // those of what it calls among them
	calls   map[string]*frame
}

func (f *frame) call(name string, kernel bool) *frame {
	c := f.calls[name]
	if c == nil {
		c = &frame{name: name, kernel: kernel, calls: map[string]*frame{}}
		f.calls[name] = c
	}
	return c
}

// readStacks reads what perf script prints: a line for the sample, then a line a frame, innermost first, then an
// empty line.
//
//	twinkey-router
//		    7f0000001000 twinkey/router/internal/engine.(*worker).seal (/usr/bin/twinkey-router)
func readStacks(r io.Reader) (*frame, error) {
	root := &frame{name: "both routers", calls: map[string]*frame{}}
	type entry struct {
		name   string
		kernel bool
	}
	var stack []entry
	end := func() {
		if len(stack) == 0 {
			return
		}
		root.samples++
		at := root
		for _, e := range slices.Backward(stack) {
			at = at.call(e.name, e.kernel)
			at.samples++
		}
		stack = stack[:0]
	}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if line == "" || line[0] != '\t' && line[0] != ' ' {
			end()
			continue
		}
		_, rest, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok {
			continue
		}
		name, where, _ := strings.Cut(rest, " (")
		stack = append(stack, entry{plainName(name), strings.HasPrefix(where, "[") && where != "[unknown])" && where != "[vdso])"})
	}
	end()
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("reading stacks: %w", err)
	}
	if root.samples == 0 {
		return nil, fmt.Errorf("reading stacks: perf has recorded none")
	}
	return root, nil
}

// plainName is a function's name without its offset and without the path of its package.
func plainName(s string) string {
	s, _, _ = strings.Cut(s, "+0x")
	if i := strings.LastIndexByte(s, '/'); i >= 0 {
		s = s[i+1:]
	}
	return s
}

// inclusive are the shares of all functions, whoever called them, largest first. A function that calls itself counts once.
func (f *frame) inclusive() (names []string, share map[string]float64) {
	count := map[string]int{}
	on := map[string]bool{}
	var walk func(*frame)
	walk = func(x *frame) {
		first := !on[x.name]
		if first {
			on[x.name] = true
			count[x.name] += x.samples
		}
		for _, c := range x.calls {
			walk(c)
		}
		if first {
			delete(on, x.name)
		}
	}
	walk(f)
	share = map[string]float64{}
	for n, c := range count {
		share[n] = float64(c) / float64(f.samples)
	}
	names = slices.SortedFunc(maps.Keys(count), func(a, b string) int { return cmp.Or(count[b]-count[a], strings.Compare(a, b)) })
	return names, share
}

const (
	flameWidth, flameRow = 1200.0, 17
	flameLetter          = 6.6 // of the font, about
	flameLeast           = 0.4 // narrower ones are not drawn
)

// flame draws the tree: each row is called by the one above it, the width is the share of the time.
func (f *frame) flame(title string) string {
	var b strings.Builder
	depth := 0
	var draw func(x *frame, at float64, row int)
	draw = func(x *frame, at float64, row int) {
		width := flameWidth * float64(x.samples) / float64(f.samples)
		if width < flameLeast {
			return
		}
		depth = max(depth, row)
		share := strconv.FormatFloat(100*float64(x.samples)/float64(f.samples), 'f', 1, 64)
		y := 28 + row*flameRow
		fmt.Fprintf(&b, `<g><title>%s, %s %%</title><rect x="%.1f" y="%d" width="%.1f" height="%d" class="%s"/>`,
			html.EscapeString(x.name), share, at, y, max(width-0.4, 0.2), flameRow-1, x.kind())
		if room := int((width - 6) / flameLetter); room > 2 {
			text := x.name
			if len(text)+len(share)+3 <= room {
				text += " " + share + " %"
			} else if len(text) > room {
				text = text[:room-1] + "…"
			}
			fmt.Fprintf(&b, `<text x="%.1f" y="%d">%s</text>`, at+3, y+12, html.EscapeString(text))
		}
		b.WriteString("</g>\n")
		for _, c := range slices.SortedFunc(maps.Values(x.calls), func(a, b *frame) int { return strings.Compare(a.name, b.name) }) {
			draw(c, at, row+1)
			at += flameWidth * float64(c.samples) / float64(f.samples)
		}
	}
	draw(f, 0, 0)
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %d" font-family="monospace" font-size="11">
<style>rect{stroke:#fff;stroke-width:.3}text{fill:#111}.h{font:13px sans-serif;fill:#555}.o{fill:#f0a868}.c{fill:#e2725b}.g{fill:#f3d27a}.k{fill:#9dbcd4}</style>
<text class="h" x="4" y="18">%s. Orange: the router. Red: ciphers. Yellow: Go. Blue: the kernel. %d samples.</text>
%s</svg>
`, flameWidth, 28+(depth+2)*flameRow, html.EscapeString(title), f.samples, b.String())
}

// kind is the class of a frame's colour.
func (f *frame) kind() string {
	pkg, _, _ := strings.Cut(f.name, ".")
	switch {
	case f.kernel:
		return "k"
	case slices.Contains([]string{"gcm", "aes", "chacha20poly1305", "subtle", "sha1", "sha256", "tripledes"}, pkg):
		return "c"
	case slices.Contains([]string{"runtime", "syscall", "linux", "unix", "sync", "atomic", "internal"}, pkg) || !strings.Contains(f.name, "."):
		return "g"
	}
	return "o"
}
