package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// Table is rows of text under a header, columns aligned, two blanks between them.
type Table struct {
	header []string
	rows   [][]string
}

// NewTable returns an empty table; header may be empty.
func NewTable(header ...string) *Table { return &Table{header: header} }

// Row adds a row. Cells are printed as by fmt.Sprint; what a terminal would obey rather
// than show is replaced, because cells may hold what a peer has said. An empty cell is
// shown as "-".
func (t *Table) Row(cells ...any) {
	row := make([]string, len(cells))
	for i, c := range cells {
		row[i] = strings.Map(printable, strings.ToValidUTF8(fmt.Sprint(c), "\uFFFD"))
		if row[i] == "" {
			row[i] = "-"
		}
	}
	t.rows = append(t.rows, row)
}

func printable(r rune) rune {
	if unicode.IsPrint(r) {
		return r
	}
	return '\uFFFD'
}

// WriteTo writes the table.
func (t *Table) WriteTo(w io.Writer) (int64, error) {
	rows := t.rows
	if len(t.header) > 0 {
		rows = append([][]string{t.header}, rows...)
	}
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	for _, row := range rows {
		for i, cell := range row {
			b.WriteString(cell)
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2))
			}
		}
		b.WriteByte('\n')
	}
	n, err := io.WriteString(w, b.String())
	return int64(n), err
}

// AddJSON gives c the flag --json, which Print heeds.
func AddJSON(c *cobra.Command) {
	c.Flags().Bool("json", false, "print JSON instead of words and tables")
}

func wantsJSON(c *cobra.Command) bool {
	f := c.Flags().Lookup("json")
	return f != nil && f.Value.String() == "true"
}

// Print writes v as JSON if c was called with --json, else the table that fill makes
// under header. A nil slice should be an empty one, so that JSON says [] and not null.
func Print(c *cobra.Command, v any, fill func(*Table), header ...string) error {
	if wantsJSON(c) {
		return writeJSON(c.OutOrStdout(), v)
	}
	t := NewTable(header...)
	fill(t)
	_, err := t.WriteTo(c.OutOrStdout())
	return err
}

// Tell writes v as JSON if c was called with --json, else the words.
func Tell(c *cobra.Command, v any, format string, words ...any) error {
	if wantsJSON(c) {
		return writeJSON(c.OutOrStdout(), v)
	}
	_, err := fmt.Fprintf(c.OutOrStdout(), format, words...)
	return err
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
