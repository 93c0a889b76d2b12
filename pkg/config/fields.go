package config

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/parser"
)

// field is a struct's field with its tags.
type field struct {
	name, doc, example string
	def                string
	hasDef             bool
	typ                reflect.Type
	index              []int
}

type fields []field

func (fs fields) find(name string) (field, bool) {
	i := slices.IndexFunc(fs, func(f field) bool { return f.name == name })
	if i < 0 {
		return field{}, false
	}
	return fs[i], true
}

// fieldsOf lists the keys of section t in the order of their declaration. A field whose
// yaml tag is "-" is none; one without a tag is named as in Go, in lower case.
func fieldsOf(t reflect.Type) fields {
	var fs fields
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if !f.IsExported() || name == "-" {
			continue
		}
		if name == "" {
			name = strings.ToLower(f.Name)
		}
		def, hasDef := f.Tag.Lookup("default")
		fs = append(fs, field{name: name, doc: f.Tag.Get("doc"), example: f.Tag.Get("example"), def: def, hasDef: hasDef, typ: f.Type, index: f.Index})
	}
	return fs
}

// isSection says whether t is a struct of keys, not one that reads itself from text.
func isSection(t reflect.Type) bool { return t.Kind() == reflect.Struct && !isText(t) }

func isText(t reflect.Type) bool {
	return reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

// setDefaults fills v, where it is a section, from the default tags below it.
func setDefaults(v reflect.Value, key string) error {
	if !isSection(v.Type()) {
		return nil
	}
	for _, f := range fieldsOf(v.Type()) {
		at := v.FieldByIndex(f.index)
		if isSection(f.typ) {
			if err := setDefaults(at, join(key, f.name)); err != nil {
				return err
			}
			continue
		}
		if !f.hasDef {
			continue
		}
		if err := f.setDefault(at, join(key, f.name)); err != nil {
			return err
		}
	}
	return nil
}

// setDefault takes the tag of a string as it is and that of anything else as YAML.
func (f field) setDefault(v reflect.Value, key string) error {
	if v.Kind() == reflect.String && !isText(v.Type()) {
		v.SetString(f.def)
		return nil
	}
	if isText(v.Type()) || v.Type() == reflect.TypeFor[time.Duration]() {
		if f.def == "" {
			return nil
		}
		if _, _, err := setText(v, f.def); err != nil {
			return fmt.Errorf("default of %s: %w", key, err)
		}
		return nil
	}
	parsed, err := parser.ParseBytes([]byte(f.def), 0)
	if err != nil || len(parsed.Docs) == 0 || parsed.Docs[0].Body == nil {
		return fmt.Errorf("default of %s: %q is no value", key, f.def)
	}
	d := decoder{file: file{name: "default of " + key}}
	d.node(parsed.Docs[0].Body, v, "", 0)
	if len(d.faults) > 0 {
		return d.faults[0]
	}
	return nil
}

// suggest says what name probably should have been.
func (d *decoder) suggest(section, name string, known fields) string {
	best, distance := "", max(1, min(3, len(name)/3))+1
	for _, f := range known {
		if n := editDistance(strings.ToLower(name), f.name); n < distance {
			best, distance = f.name, n
		}
	}
	if best != "" {
		return fmt.Sprintf("did you mean %s?", best)
	}
	if elsewhere := findKey(d.root, name, ""); elsewhere != "" && elsewhere != join(section, name) {
		return fmt.Sprintf("did you mean %s?", elsewhere)
	}
	names := make([]string, len(known))
	for i, f := range known {
		names[i] = f.name
	}
	return "known here: " + strings.Join(names, ", ")
}

// findKey is the path of the first key called name anywhere below t, or nothing.
func findKey(t reflect.Type, name, section string) string {
	if t == nil || !isSection(t) {
		return ""
	}
	for _, f := range fieldsOf(t) {
		if f.name == name {
			return join(section, name)
		}
		if found := findKey(f.typ, name, join(section, f.name)); found != "" {
			return found
		}
	}
	return ""
}

// editDistance counts the insertions, deletions, replacements and swaps of neighbours that
// make b of a (optimal string alignment).
func editDistance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64 // no key is that long, and the table stays small
	}
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
