package layering

import (
	"go/ast"
	"go/parser"
	"go/token"
	"testing"
)

// The rules themselves: a rule that sees nothing forbids nothing.
func TestImpureNodeSeesWhatItForbids(t *testing.T) {
	tests := []struct{ src, want string }{
		{"func f() { go f() }", "a go statement"},
		{"func f() { select {} }", "a select statement"},
		{"var c chan int", "a channel"},
		{"func f(c <-chan int)", "a channel"},
		{"func f() { c <- 1 }", "a send"},
		{"func init() {}", "an init function"},
		{"var t = time.Now()", "time.Now"},
		{"var f = time.Now", "time.Now"},
		{"func f() { time.Sleep(1) }", "time.Sleep"},
		{"func f(t time.Time) bool { return t.After(t) }", ""},
		{"func (x T) init() {}", ""},
		{"const d = 3 * time.Second", ""},
	}
	for _, tt := range tests {
		f, err := parser.ParseFile(token.NewFileSet(), "x.go", "package x\n"+tt.src, 0)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		ast.Inspect(f, func(n ast.Node) bool {
			if what := impureNode(n); what != "" {
				got = what
			}
			return true
		})
		if got != tt.want {
			t.Errorf("%s: %q, want %q", tt.src, got, tt.want)
		}
	}
}

func TestMatches(t *testing.T) {
	tests := []struct {
		pattern, pkg string
		want         bool
	}{
		{"proto/ppp", "proto/ppp", true},
		{"proto/ppp", "proto/ppp/link", false},
		{"proto/...", "proto/ppp/link", true},
		{"proto/...", "proto", true},
		{"pkg/tun/...", "pkg/tuntest", false},
		{"net/...", "net", true},
		{"net/...", "net/http", true},
		{"net/...", "network", false},
	}
	for _, tt := range tests {
		if got := matches(tt.pattern, tt.pkg); got != tt.want {
			t.Errorf("matches(%q, %q) = %v", tt.pattern, tt.pkg, got)
		}
	}
}
