package layering

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// module is the module's path, the prefix of every import of our own.
const module = "twinkey"

// root is the repository, seen from this package.
const root = "../.."

// file is one Go file of the tree.
type file struct {
	name string // slashes, from the root
	dir  string // the package's path below the module
	test bool
	ast  *ast.File
}

// tree is every Go file, whatever its build constraints.
type tree struct {
	fset  *token.FileSet
	files []file
}

func readTree(t *testing.T) tree {
	t.Helper()
	tr := tree{fset: token.NewFileSet()}
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := d.Name()
		if d.IsDir() && name != root && (strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") || base == "testdata" || base == "bin") {
			return fs.SkipDir
		}
		if d.IsDir() && name != root && exists(filepath.Join(name, "go.mod")) {
			return fs.SkipDir // a module of its own: tools, tunbench
		}
		if d.IsDir() || !strings.HasSuffix(base, ".go") {
			return nil
		}
		f, err := parser.ParseFile(tr.fset, name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		tr.files = append(tr.files, file{name: rel, dir: path.Dir(rel), test: strings.HasSuffix(base, "_test.go"), ast: f})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(tr.files) == 0 {
		t.Fatal("no Go file found")
	}
	return tr
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// line is where a node stands.
func (tr tree) line(f file, n ast.Node) string {
	return f.name + ":" + strconv.Itoa(tr.fset.Position(n.Pos()).Line)
}

// imports of a file, unquoted, each with its node.
func (f file) imports(t *testing.T) map[string]*ast.ImportSpec {
	t.Helper()
	m := map[string]*ast.ImportSpec{}
	for _, s := range f.ast.Imports {
		p, err := strconv.Unquote(s.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		m[p] = s
	}
	return m
}

// matches tells whether a package path is the pattern, or lies below one that ends in
// "/...".
func matches(pattern, pkg string) bool {
	if below, ok := strings.CutSuffix(pattern, "/..."); ok {
		return pkg == below || strings.HasPrefix(pkg, below+"/")
	}
	return pkg == pattern
}

func anyMatches(patterns []string, pkg string) bool {
	for _, p := range patterns {
		if matches(p, pkg) {
			return true
		}
	}
	return false
}
