package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"text/tabwriter"
)

// report is what one run has found.
type report struct {
	Machine string   `json:"machine"`
	Rounds  int      `json:"rounds"`
	Seconds float64  `json:"seconds"` // that a row is measured in a round
	Tables  []*table `json:"tables"`
}

// machine says on what it was measured.
func machine() string {
	model := runtime.GOARCH
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	kernel := "?"
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		kernel = strings.TrimSpace(string(b))
	}
	return fmt.Sprintf("%s, %d cores, Linux %s, %s", model, runtime.NumCPU(), kernel, runtime.Version())
}

// write puts the report where the options say.
func (r report) write(o options, out io.Writer) error {
	if o.markdown != "" {
		if err := os.WriteFile(o.markdown, []byte(r.markdown()), 0o644); err != nil {
			return fmt.Errorf("writing the table: %w", err)
		}
	}
	if o.json == "" {
		return r.text(out)
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the samples: %w", err)
	}
	b = append(b, '\n')
	if o.json == "-" {
		_, err = out.Write(b)
		return err
	}
	if err := os.WriteFile(o.json, b, 0o644); err != nil {
		return fmt.Errorf("writing the samples: %w", err)
	}
	return r.text(out)
}

// text is the table for a terminal.
func (r report) text(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, t := range r.Tables {
		fmt.Fprintf(w, "%s\t", t.Title)
		for _, c := range t.Columns {
			fmt.Fprintf(w, "%s\t", c.Name)
		}
		fmt.Fprintln(w)
		for _, row := range t.Rows {
			fmt.Fprintf(w, "  %s\t%s\t\n", row.Name, strings.Join(row.cells(t.Columns), "\t"))
		}
		fmt.Fprintln(w)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("printing the table: %w", err)
	}
	return nil
}

// markdown is the table for the documentation.
func (r report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# The floor of a machine\n\nWritten by `make bench-floor` (see `scripts/floor`): what this machine takes for the work of a data plane, without any of ours.\n\n"+
		"%s. Medians of %d rounds, all rows in turn, with minimum and maximum.\n", r.Machine, r.Rounds)
	for _, t := range r.Tables {
		fmt.Fprintf(&b, "\n## %s\n\n|", t.Title)
		for _, c := range t.Columns {
			fmt.Fprintf(&b, " | %s", c.Name)
		}
		b.WriteString(" |\n|---" + strings.Repeat("|---", len(t.Columns)) + "|\n")
		for _, row := range t.Rows {
			fmt.Fprintf(&b, "| %s | %s |\n", row.Name, strings.Join(row.cells(t.Columns), " | "))
		}
		fmt.Fprintf(&b, "\n%s\n", t.Note)
	}
	return b.String()
}

// cells are a row's medians, each with what it lies between.
func (r *row) cells(columns []column) []string {
	cells := make([]string, len(columns))
	for i, c := range columns {
		s := r.spread(i)
		cells[i] = fmt.Sprintf("%.*f (%.*f-%.*f)", c.Digits, s.Median, c.Digits, s.Min, c.Digits, s.Max)
	}
	return cells
}
