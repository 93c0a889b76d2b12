//go:build linux

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// results are all values of a run. In a file they are JSON, an object a line: first these fields, then a line for each series.
type results struct {
	Date       string   `json:"date"`
	Machine    string   `json:"machine"`
	Rounds     int      `json:"rounds"` // that are complete
	Seconds    int      `json:"seconds"`
	Candidates []string `json:"candidates"`
	Absent     []string `json:"absent,omitempty"` // and why
	Failed     []string `json:"failed,omitempty"`

	values map[key][]float64
}

// key is where a series of values belongs.
type key struct {
	Scenario  string `json:"scenario"`
	Candidate string `json:"candidate"`
	Figure    string `json:"figure"`
}

type series struct {
	key
	Values []float64 `json:"values"`
}

func newResults(o *options, cs []candidate, absent []string) *results {
	r := &results{Date: time.Now().Format(time.DateOnly), Machine: machine(), Seconds: o.seconds, Absent: absent, values: map[key][]float64{}}
	for _, c := range candidates() { // in the order of the table
		if slices.ContainsFunc(cs, func(x candidate) bool { return x.name == c.name }) {
			r.Candidates = append(r.Candidates, c.name)
		}
	}
	return r
}

func (r *results) add(scenario, candidate string, f figures) {
	for name, v := range f {
		k := key{scenario, candidate, name}
		r.values[k] = append(r.values[k], v)
	}
}

func (r *results) fail(round int, scenario, candidate string, err error) {
	r.Failed = append(r.Failed, fmt.Sprintf("round %d, %s, %s: %v", round+1, scenario, candidate, err))
}

func (r *results) save(file string) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	if err := e.Encode(r); err != nil {
		return fmt.Errorf("writing %s: %w", file, err)
	}
	all := make([]series, 0, len(r.values))
	for k, v := range r.values {
		all = append(all, series{k, v})
	}
	slices.SortFunc(all, func(a, b series) int { return strings.Compare(fmt.Sprint(a.key), fmt.Sprint(b.key)) })
	for _, s := range all {
		if err := e.Encode(s); err != nil {
			return fmt.Errorf("writing %s: %w", file, err)
		}
	}
	return os.WriteFile(file, b.Bytes(), 0o644) //nolint:gosec // documentation
}

func load(file string) (*results, error) {
	f, err := os.Open(file) //nolint:gosec // the operator names it
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := &results{values: map[key][]float64{}}
	d := json.NewDecoder(bufio.NewReader(f))
	if err := d.Decode(r); err != nil {
		return nil, fmt.Errorf("reading %s: %w", file, err)
	}
	for {
		var s series
		switch err := d.Decode(&s); {
		case errors.Is(err, io.EOF):
			return r, nil
		case err != nil:
			return nil, fmt.Errorf("reading %s: %w", file, err)
		}
		r.values[s.key] = s.Values
	}
}

// spread is a series in three numbers.
type spread struct{ mid, low, high float64 }

// spread is what the rounds found of a figure. What is added to the round trip is it without the median of none.
func (r *results) spread(scenario, figure, candidate string) (s spread, ok bool) {
	if figure == added.name {
		without := r.values[key{scenario, none, rtt.name}]
		s, ok = r.spread(scenario, rtt.name, candidate)
		if !ok || len(without) == 0 || candidate == none {
			return s, false
		}
		m := median(without)
		return spread{s.mid - m, s.low - m, s.high - m}, true
	}
	v := r.values[key{scenario, candidate, figure}]
	if len(v) == 0 {
		return s, false
	}
	return spread{median(v), slices.Min(v), slices.Max(v)}, true
}

// peers are the candidates that are neither ours nor nothing.
func (r *results) peers() []string {
	return slices.DeleteFunc(slices.Clone(r.Candidates), func(n string) bool { return n == none || strings.HasPrefix(n, ours) })
}

// best is the peer with the best median of a figure.
func (r *results) best(scenario string, f figure) (name string, value float64) {
	for _, p := range r.peers() {
		s, ok := r.spread(scenario, f.name, p)
		if ok && (name == "" || f.less == (s.mid < value)) {
			name, value = p, s.mid
		}
	}
	return name, value
}

// machine says on what it was measured.
func machine() string {
	model := runtime.GOARCH
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if name, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(v)
				break
			}
		}
	}
	var u unix.Utsname
	kernel := ""
	if unix.Uname(&u) == nil {
		kernel = ", Linux " + unix.ByteSliceToString(u.Release[:])
	}
	return fmt.Sprintf("%s, %d cores%s, %s", model, runtime.NumCPU(), kernel, runtime.Version())
}
