package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// event is one line of go test -json; see go doc test2json.
type event struct {
	Action     string
	Package    string
	ImportPath string // of what did not build
	Test       string
	Elapsed    float64
	Output     string
}

// maxOutput bounds what is kept of one test's or package's output, in bytes.
const maxOutput = 1 << 20

// report collects events. Only what a failure needs is kept.
type report struct {
	w      io.Writer
	output map[string]*strings.Builder // by package and test, until it ends
	passed map[string]int              // by package
	failed map[string][]string         // by package: what its failed tests have said
	left   map[string]int              // by package
	skips  map[string]int              // by reason
	last   []string                    // the result lines of go test
	bad    bool
}

func newReport(w io.Writer) *report {
	return &report{w: w, output: map[string]*strings.Builder{}, passed: map[string]int{}, failed: map[string][]string{},
		left: map[string]int{}, skips: map[string]int{}}
}

func (r *report) read(in io.Reader) error {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil || e.Action == "" {
				// Not an event: go itself has something to say.
				fmt.Fprintf(r.w, "%s", line)
			} else {
				r.take(e)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading events: %w", err)
		}
	}
}

func (r *report) take(e event) {
	key := e.Package + "\x00" + e.Test
	switch e.Action {
	case "build-output":
		fmt.Fprint(r.w, e.Output)
	case "build-fail":
		r.bad = true
	case "output":
		r.keep(key, e)
	case "pass", "fail", "skip":
		said := ""
		if b := r.output[key]; b != nil {
			said = b.String()
			delete(r.output, key)
		}
		if e.Test == "" {
			r.packageDone(e, said)
			return
		}
		r.testDone(e, said)
	}
}

func (r *report) keep(key string, e event) {
	if e.Test == "" && resultLine.MatchString(e.Output) {
		r.last = append(r.last, strings.TrimRight(e.Output, "\n"))
		return
	}
	b := r.output[key]
	if b == nil {
		b = &strings.Builder{}
		r.output[key] = b
	}
	if b.Len()+len(e.Output) <= maxOutput {
		b.WriteString(e.Output)
	}
}

func (r *report) testDone(e event, said string) {
	switch e.Action {
	case "pass":
		r.passed[e.Package]++
	case "fail":
		r.bad = true
		r.failed[e.Package] = append(r.failed[e.Package], said)
	case "skip":
		r.left[e.Package]++
		r.skips[reason(e.Test, said)]++
	}
}

func (r *report) packageDone(e event, said string) {
	word := map[string]string{"pass": "ok", "fail": "FAIL", "skip": "none"}[e.Action]
	line := fmt.Sprintf("%7.1fs  %-4s  %s  %d passed", e.Elapsed, word, e.Package, r.passed[e.Package])
	if n := len(r.failed[e.Package]); n > 0 {
		line += fmt.Sprintf(", %d failed", n)
	}
	if n := r.left[e.Package]; n > 0 {
		line += fmt.Sprintf(", %d left out", n)
	}
	if e.Action == "skip" {
		return // no test files
	}
	fmt.Fprintln(r.w, line)
	if e.Action != "fail" {
		return
	}
	r.bad = true
	for _, s := range r.failed[e.Package] {
		fmt.Fprint(r.w, s)
	}
	fmt.Fprint(r.w, said)
	// A test that never ended (a panic, a timeout) has said what there is to know.
	for _, key := range slices.Sorted(maps.Keys(r.output)) {
		if strings.HasPrefix(key, e.Package+"\x00") {
			fmt.Fprint(r.w, r.output[key])
			delete(r.output, key)
		}
	}
}

// finish writes what was left out and the last lines, and says whether all is well.
func (r *report) finish(noSkip bool) bool {
	if len(r.skips) > 0 {
		fmt.Fprintln(r.w, "left out:")
		for _, s := range slices.Sorted(maps.Keys(r.skips)) {
			fmt.Fprintf(r.w, "%5d  %s\n", r.skips[s], s)
		}
		if noSkip {
			r.bad = true
			fmt.Fprintln(r.w, "TWINKEY_NO_SKIP=1 is set: leaving out is failing")
		}
	}
	if len(r.last) == 0 {
		r.bad = true
		fmt.Fprintln(r.w, "nothing was tested")
	}
	for _, line := range r.last {
		fmt.Fprintln(r.w, line)
	}
	if r.bad {
		fmt.Fprintln(r.w, "FAIL")
	}
	return !r.bad
}

var (
	// resultLine is what go test says of a package in the end.
	resultLine = regexp.MustCompile(`^(ok  |FAIL)\t`)
	// logLine is what T.Skip writes: indentation, file and line, reason.
	logLine = regexp.MustCompile(`^\s+[^\s:]+\.go:\d+: (.*)`)
)

// reason is what a skipped test has last said.
func reason(test, said string) string {
	why := ""
	for line := range strings.Lines(said) {
		if m := logLine.FindStringSubmatch(line); m != nil {
			why = strings.TrimSpace(m[1])
		}
	}
	if why == "" {
		return test + ": no reason given"
	}
	return why
}
