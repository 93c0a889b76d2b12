package clitest

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// Check demands examples of every command that does something, and --json of all but those in withoutJSON, which says why. A command there that is none,
// or that has --json, is an error, too.
func Check(t *testing.T, root func() *cobra.Command, withoutJSON map[string]string) {
	t.Helper()
	left := make(map[string]bool)
	for path := range withoutJSON {
		left[path] = true
	}
	walk(root(), func(c *cobra.Command) {
		path := c.CommandPath()
		if err := examples(root, c); err != nil {
			t.Errorf("%s --help: %v", path, err)
		}
		_, exempt := withoutJSON[path]
		if json := c.Flags().Lookup("json") != nil; json == exempt {
			t.Errorf("%s: has --json: %v, is to do without: %v", path, json, exempt)
		}
		delete(left, path)
	})
	for path := range left {
		t.Errorf("%s is no command", path)
	}
}

// walk visits the commands that do something.
func walk(c *cobra.Command, visit func(*cobra.Command)) {
	if c.Hidden || c.Name() == "help" || c.Name() == "completion" {
		return
	}
	if !c.HasSubCommands() && c.Runnable() {
		visit(c)
	}
	for _, sub := range c.Commands() {
		walk(sub, visit)
	}
}

// examples says what is wrong with those of c.
func examples(root func() *cobra.Command, c *cobra.Command) error {
	own := false
	var errs []error
	for line := range strings.Lines(c.Example) {
		for _, words := range invocations(root().Name(), line) {
			called, err := parse(root(), words)
			if err != nil {
				errs = append(errs, fmt.Errorf("%q: %w", strings.TrimSpace(line), err))
				continue
			}
			own = own || called.CommandPath() == c.CommandPath()
		}
	}
	if !own {
		errs = append(errs, errors.New("there is no example of it"))
	}
	return errors.Join(errs...)
}

// parse finds the command that words call, and says whether it takes them.
func parse(root *cobra.Command, words []string) (*cobra.Command, error) {
	c, rest, err := root.Find(words)
	if err == nil {
		err = c.ParseFlags(rest)
	}
	if err == nil {
		err = c.ValidateArgs(c.Flags().Args())
	}
	if err == nil {
		err = c.ValidateRequiredFlags()
	}
	if err == nil {
		err = c.ValidateFlagGroups()
	}
	return c, err
}

// invocations returns what stands behind the name of a program wherever it is called on a line.
func invocations(program, line string) (all [][]string) {
	in := -1 // the one that words belong to
	for _, w := range split(strings.TrimSpace(line)) {
		if _, inner, ok := strings.Cut(w, "$("); ok {
			inner, _, _ = strings.Cut(inner, ")")
			all = append(all, invocations(program, inner)...)
		}
		switch {
		case w == program:
			in, all = len(all), append(all, nil)
		case w != "" && strings.ContainsAny(w[:1], "|<>;&"):
			in = -1
		case in >= 0:
			all[in] = append(all[in], w)
		}
	}
	return all
}

// split cuts a line into words as a shell does, without expanding anything.
func split(line string) (words []string) {
	var b strings.Builder
	quote, in, depth := rune(0), false, 0 // depth of $(...)
	end := func() {
		if in {
			words = append(words, b.String())
		}
		b.Reset()
		in = false
	}
	for _, r := range line {
		switch {
		case quote == 0 && r == '(' && (depth > 0 || strings.HasSuffix(b.String(), "$")):
			depth++
			b.WriteRune(r)
		case quote == 0 && r == ')' && depth > 0:
			depth--
			b.WriteRune(r)
		case depth > 0:
			b.WriteRune(r)
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '\'' || r == '"'):
			quote, in = r, true
		case quote == 0 && (r == ' ' || r == '\t'):
			end()
		case quote == 0 && !in && r == '#':
			return words
		default:
			b.WriteRune(r)
			in = true
		}
	}
	end()
	return words
}

// Hints demands that no failure is made in the package that lies here by cli.Fail with an empty hint; cli.Within is for those that have one already.
func Hints(t *testing.T) {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("no package here: %v", err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		src, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range hintless(t, name, src) {
			t.Errorf("%s: it does not say what to do next", at)
		}
	}
}

// hintless is where a file calls cli.Fail with an empty hint.
func hintless(t *testing.T, name string, src []byte) (at []token.Position) {
	t.Helper()
	set := token.NewFileSet()
	f, err := parser.ParseFile(set, name, src, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) != 4 {
			return true
		}
		fun, ok := call.Fun.(*ast.SelectorExpr)
		pkg, isName := ast.Node(nil), false
		if ok {
			pkg, isName = fun.X, fun.Sel.Name == "Fail"
		}
		id, ok := pkg.(*ast.Ident)
		hint, literal := call.Args[3].(*ast.BasicLit)
		if isName && ok && id.Name == "cli" && literal && hint.Value == `""` {
			at = append(at, set.Position(call.Pos()))
		}
		return true
	})
	return at
}
