package config

import (
	"cmp"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
)

const docWidth = 88 // columns

// Document returns an example file for T: every key with its doc as a comment. A key
// with a default stands there with it; one without is commented out, with its example.
// Parse of the whole gives T's defaults.
func Document[T any]() string {
	var b strings.Builder
	document(&b, reflect.TypeFor[T](), "", "")
	return b.String()
}

// document writes section t. Margin is the indentation of its lines; off, where it is not
// empty, is the comment sign before lines that do not count.
func document(b *strings.Builder, t reflect.Type, margin, off string) {
	apart := false
	for i, f := range fieldsOf(t) {
		if i > 0 && off == "" && (apart || isSection(f.typ)) {
			b.WriteString("\n")
		}
		apart = isSection(f.typ)
		for _, line := range wrap(f.doc, docWidth-len(margin)-2) {
			fmt.Fprintf(b, "%s%s# %s\n", margin, off, line)
		}
		inMargin, inOff := margin+"  ", off // of what is below; what is commented out is indented behind the sign
		if off != "" {
			inMargin, inOff = margin, off+"  "
		}
		switch {
		case isSection(f.typ):
			fmt.Fprintf(b, "%s%s%s:\n", margin, off, f.name)
			document(b, f.typ, inMargin, inOff)
		case f.typ.Kind() == reflect.Slice && isSection(f.typ.Elem()):
			sign := cmp.Or(off, "# ")
			fmt.Fprintf(b, "%s%s%s:\n%s%s  -\n", margin, sign, f.name, margin, sign)
			document(b, f.typ.Elem(), margin, sign+"    ")
		case f.hasDef:
			fmt.Fprintf(b, "%s%s%s: %s\n", margin, off, f.name, scalarText(f.typ, f.def))
			if f.example != "" && f.def == "" {
				fmt.Fprintf(b, "%s%s# %s: %s\n", margin, off, f.name, scalarText(f.typ, f.example))
			}
		default:
			fmt.Fprintf(b, "%s# %s\n", margin, strings.TrimRight(fmt.Sprintf("%s%s: %s", strings.TrimPrefix(off, "# "), f.name, scalarText(f.typ, f.example)), " "))
		}
	}
}

// scalarText is s as it must be written to be read as s into t.
func scalarText(t reflect.Type, s string) string {
	if s == "" && t.Kind() != reflect.String {
		return ""
	}
	if t.Kind() != reflect.String && !isText(t) || t == reflect.TypeFor[time.Duration]() {
		return s
	}
	quoted, err := yaml.Marshal(s)
	if err != nil {
		return fmt.Sprintf("%q", s)
	}
	return strings.TrimSpace(string(quoted))
}

func wrap(s string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(s) {
		if line != "" && len(line)+1+len(word) > width {
			lines, line = append(lines, line), ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}

// Undocumented lists the keys of T, by path, that lack a yaml tag or a doc, and those
// whose default does not fit. It is for the tests of whoever declares T.
func Undocumented[T any]() []string {
	bad := undocumented(reflect.TypeFor[T](), "")
	var v T
	if err := setDefaults(reflect.ValueOf(&v).Elem(), ""); err != nil {
		bad = append(bad, err.Error())
	}
	return bad
}

func undocumented(t reflect.Type, section string) []string {
	var bad []string
	for f := range t.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if !f.IsExported() || name == "-" {
			continue
		}
		if name == "" || options != "" {
			bad = append(bad, join(section, f.Name)+": needs a plain yaml tag")
			continue
		}
		if f.Tag.Get("doc") == "" {
			bad = append(bad, join(section, name)+": needs a doc tag")
		}
		below := f.Type
		if below.Kind() == reflect.Slice || below.Kind() == reflect.Map {
			below = below.Elem()
		}
		if isSection(below) {
			bad = append(bad, undocumented(below, join(section, name))...)
		}
	}
	return bad
}
