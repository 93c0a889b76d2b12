package config

import (
	"encoding"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// MaxFile is the size in bytes above which a file is refused.
const MaxFile = 256 << 10

const (
	maxDepth  = 16 // of sections
	maxFaults = 10 // reported at once
)

// Load reads the file at path into T, over T's defaults, and has what was read looked at by
// the checks. Its error is an os error, one or more *Error, joined, or what a check said. An
// *Error that a check returns as it is need only name its key: where that stands is filled in.
func Load[T any](path string, checks ...func(T) error) (T, error) {
	var zero T
	f, err := os.Open(path)
	if err != nil {
		return zero, fmt.Errorf("reading the configuration: %w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	data, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err != nil {
		return zero, fmt.Errorf("reading the configuration: %w", err)
	}
	return Parse(filepath.Base(path), data, checks...)
}

// Parse reads data into T as Load does; name stands for the file in errors.
func Parse[T any](name string, data []byte, checks ...func(T) error) (T, error) {
	var v, zero T
	if len(data) > MaxFile {
		return zero, &Error{File: name, Reason: fmt.Sprintf("larger than %d bytes", MaxFile)}
	}
	if err := setDefaults(reflect.ValueOf(&v).Elem(), ""); err != nil {
		return zero, err
	}
	d := decoder{file: file{name: name, lines: strings.Split(string(data), "\n")}, root: reflect.TypeFor[T](), places: make(map[string]*token.Token)}
	d.document(data, reflect.ValueOf(&v).Elem())
	if len(d.faults) > 0 {
		return zero, errors.Join(d.faults...)
	}
	for _, check := range checks {
		if err := check(v); err != nil {
			d.place(err)
			return zero, err
		}
	}
	return v, nil
}

type decoder struct {
	file
	root   reflect.Type
	places map[string]*token.Token // where the value of a key begins, by its path
	faults []error
}

// place says in an *Error of a check, if it is one, where its key stands. A key that the file
// does not have, because its default was refused, has no place.
func (d *decoder) place(err error) {
	e, ok := errors.AsType[*Error](err)
	if !ok || e.File != "" || e.Key == "" {
		return
	}
	e.File = d.name
	d.locate(e, d.places[e.Key])
}

func (d *decoder) fail(at *token.Token, key, reason, hint string, cause error) {
	if len(d.faults) < maxFaults {
		d.faults = append(d.faults, d.fault(at, key, reason, hint, cause))
	}
}

// nestsTooDeeply says whether the YAML parser, which recurses without a bound of its own,
// is better not shown the text: more than 64 brackets open, or a line of 64 dashes.
func (d *decoder) nestsTooDeeply() bool {
	const bound = 4 * maxDepth
	open := 0
	for _, line := range d.lines {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "#") {
			continue
		}
		open = max(0, open+strings.Count(line, "[")+strings.Count(line, "{")-strings.Count(line, "]")-strings.Count(line, "}"))
		// Closed on the same line they nest all the same.
		if open > bound || strings.Count(line, "[")+strings.Count(line, "{") > 16*bound || strings.Count(line, "- ") > bound || strings.Count(line, "? ") > bound {
			return true
		}
	}
	return false
}

func (d *decoder) document(data []byte, v reflect.Value) {
	if d.nestsTooDeeply() {
		d.fail(nil, "", "nested too deeply", "", nil)
		return
	}
	parsed, err := parser.ParseBytes(data, 0)
	if err != nil {
		d.failYAML(nil, "", err)
		return
	}
	var body ast.Node
	for _, doc := range parsed.Docs {
		switch {
		case doc.Body == nil:
		case body != nil:
			d.fail(start(doc.Body), "", "a second document", "remove the line --- before it", nil)
			return
		default:
			body = doc.Body
		}
	}
	if body != nil {
		d.node(body, v, "", 0)
	}
}

// failYAML reports what the YAML library says, at its place if it names one.
func (d *decoder) failYAML(at *token.Token, key string, err error) {
	if ye, ok := errors.AsType[yaml.Error](err); ok {
		if ye.GetToken() != nil {
			at = ye.GetToken()
		}
		d.fail(at, key, ye.GetMessage(), "", err)
		return
	}
	d.fail(at, key, err.Error(), "", err)
}

// node decodes n into v, which is addressable.
func (d *decoder) node(n ast.Node, v reflect.Value, key string, depth int) {
	if d.places != nil {
		d.places[key] = start(n)
	}
	switch n.Type() { //nolint:exhaustive // the rest is decoded
	case ast.AnchorType, ast.AliasType, ast.MergeKeyType, ast.TagType:
		d.fail(start(n), key, "anchors, aliases, merge keys and tags are not used here", "write the value itself", nil)
		return
	case ast.NullType:
		if isSection(v.Type()) || v.Kind() == reflect.Slice {
			return // a heading above comments: the defaults stand
		}
		d.fail(start(n), key, "no value", "give one, or remove the key to have the default", nil)
		return
	}
	if depth > maxDepth {
		d.fail(start(n), key, "nested too deeply", "", nil)
		return
	}
	switch {
	case isSection(v.Type()):
		d.section(n, v, key, depth)
	case v.Kind() == reflect.Slice && !isText(v.Type()):
		d.list(n, v, key, depth)
	case v.Kind() == reflect.Map:
		d.mapping(n, v, key, depth)
	default:
		d.scalar(n, v, key)
	}
}

func (d *decoder) section(n ast.Node, v reflect.Value, key string, depth int) {
	entries, ok := entriesOf(n)
	if !ok {
		d.fail(start(n), key, "a section of keys is expected here, not "+describe(n), "", nil)
		return
	}
	fields := fieldsOf(v.Type())
	for _, e := range entries {
		name := e.Key.GetToken().Value
		f, ok := fields.find(name)
		if !ok {
			d.fail(e.Key.GetToken(), join(key, name), "unknown key", d.suggest(key, name, fields), nil)
			continue
		}
		d.node(e.Value, v.FieldByIndex(f.index), join(key, name), depth+1)
	}
}

func (d *decoder) list(n ast.Node, v reflect.Value, key string, depth int) {
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		d.fail(start(n), key, "a list is expected here, not "+describe(n), "write [a, b] or one \"- \" line for each", nil)
		return
	}
	out := reflect.MakeSlice(v.Type(), len(seq.Values), len(seq.Values))
	for i, item := range seq.Values {
		if err := setDefaults(out.Index(i), key); err != nil {
			d.fail(item.GetToken(), key, err.Error(), "", err)
			return
		}
		d.node(item, out.Index(i), fmt.Sprintf("%s[%d]", key, i), depth+1)
	}
	v.Set(out)
}

func (d *decoder) mapping(n ast.Node, v reflect.Value, key string, depth int) {
	entries, ok := entriesOf(n)
	if !ok || v.Type().Key().Kind() != reflect.String {
		d.fail(start(n), key, "names with values are expected here, not "+describe(n), "", nil)
		return
	}
	out := reflect.MakeMapWithSize(v.Type(), len(entries))
	for _, e := range entries {
		name := e.Key.GetToken().Value
		item := reflect.New(v.Type().Elem()).Elem()
		if err := setDefaults(item, key); err != nil {
			d.fail(e.Key.GetToken(), key, err.Error(), "", err)
			return
		}
		d.node(e.Value, item, join(key, name), depth+1)
		out.SetMapIndex(reflect.ValueOf(name).Convert(v.Type().Key()), item)
	}
	v.Set(out)
}

func (d *decoder) scalar(n ast.Node, v reflect.Value, key string) {
	if _, ok := n.(ast.ScalarNode); !ok {
		d.fail(start(n), key, "one value is expected here, not "+describe(n), "", nil)
		return
	}
	if reason, hint, err := setText(v, text(n)); err != nil {
		d.fail(start(n), key, reason, hint, err)
		return
	} else if isText(v.Type()) || v.Type() == reflect.TypeFor[time.Duration]() {
		return
	}
	if v.Kind() == reflect.String && n.Type() != ast.StringType && n.Type() != ast.LiteralType {
		v.SetString(text(n)) // as it was written: 010 stays 010
		return
	}
	if err := yaml.NodeToValue(n, v.Addr().Interface(), yaml.Strict()); err != nil {
		hint := ""
		switch v.Kind() { //nolint:exhaustive // only these need a word
		case reflect.Bool:
			hint = "write true or false"
		case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
			hint = "write a whole number in range"
		}
		d.fail(start(n), key, fmt.Sprintf("%q is no %s", text(n), v.Kind()), hint, err)
	}
}

// setText fills durations and whatever unmarshals text; for other types it does nothing.
func setText(v reflect.Value, s string) (reason, hint string, err error) {
	if v.Type() == reflect.TypeFor[time.Duration]() {
		t, err := time.ParseDuration(s)
		if err != nil {
			return fmt.Sprintf("%q is no duration", s), "write a number and a unit, such as 90s, 15m or 1h30m", err
		}
		v.SetInt(int64(t))
		return "", "", nil
	}
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		if err := u.UnmarshalText([]byte(s)); err != nil {
			return err.Error(), "", err
		}
	}
	return "", "", nil
}

// start is the first token of n; that of a mapping in block style is its first key.
func start(n ast.Node) *token.Token {
	if m, ok := n.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		return m.Values[0].Key.GetToken()
	}
	if m, ok := n.(*ast.MappingValueNode); ok {
		return m.Key.GetToken()
	}
	return n.GetToken()
}

func text(n ast.Node) string {
	switch n := n.(type) {
	case *ast.LiteralNode:
		return n.Value.Value
	case *ast.StringNode:
		return n.Value
	default:
		return n.GetToken().Value
	}
}

func entriesOf(n ast.Node) ([]*ast.MappingValueNode, bool) {
	switch n := n.(type) {
	case *ast.MappingNode:
		return n.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}, true
	default:
		return nil, false
	}
}

func describe(n ast.Node) string {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a section"
	case *ast.SequenceNode:
		return "a list"
	default:
		return fmt.Sprintf("%q", text(n))
	}
}

func join(section, name string) string {
	if section == "" {
		return name
	}
	return section + "." + name
}
