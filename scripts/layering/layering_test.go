package layering

import (
	"go/ast"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
)

// row says which packages of ours a package may import, besides itself. The first row
// that matches a package is its row; a package without one fails.
type row struct {
	pkg string
	may []string
	why string
}

var rows = []row{
	{"proto/wire", nil, "the ground: standard library only"},
	{"proto/secret", nil, "the ground: standard library only"},
	{"proto/replay", nil, "the ground: standard library only"},
	{"proto/ip", []string{"proto/wire"}, "a codec knows no other protocol"},
	{"proto/gso", []string{"proto/ip"}, "trains are IP packets"},
	{"proto/pmtu", []string{"proto/wire"}, "a machine over its own codec"},
	{"proto/esp/tripledes", nil, "a cipher knows no protocol"},
	{"proto/esp/gcm", nil, "a cipher knows no protocol"},
	{"proto/esp", []string{"proto/wire", "proto/secret", "proto/replay", "proto/esp/tripledes", "proto/esp/gcm"}, "a codec knows no other protocol"},
	{"proto/l2tp", []string{"proto/wire", "proto/secret"}, "a codec knows no other protocol"},
	{"proto/l2tp/reliable", []string{"proto/wire", "proto/l2tp"}, "a machine over its own codec"},
	{"proto/l2tp/tunnel", []string{"proto/wire", "proto/secret", "proto/l2tp", "proto/l2tp/reliable"}, "a machine over its own codec"},
	{"proto/ppp", []string{"proto/wire"}, "a codec knows no other protocol"},
	{"proto/ppp/automaton", nil, "RFC 1661 section 4 is a table and a timer; what is negotiated is no matter of its"},
	{"proto/ppp/auth", []string{"proto/wire", "proto/secret", "proto/ppp"}, "a machine over its own codec"},
	{"proto/ppp/link", []string{"proto/wire", "proto/ppp", "proto/ppp/automaton", "proto/ppp/auth"}, "the phases of a link bind codec, automaton and authentication"},
	{"proto/isakmp", []string{"proto/wire", "proto/secret"}, "a codec knows no other protocol"},
	{"proto/ikev1", []string{"proto/wire", "proto/secret", "proto/isakmp"}, "a machine over its own codec"},
	{"proto/handshake", []string{"proto/wire", "proto/secret", "proto/esp"}, "it names the suites of esp and makes their keys; certificates pass as bytes, the verifier is a func: it knows neither X.509 nor L2TP"},

	{"pkg/...", []string{"pkg/...", "proto/..."}, "building blocks know no service"},
	{"ca/client", []string{"pkg/...", "proto/..."}, "a client is all that others see of a service"},
	{"directory/client", []string{"pkg/...", "proto/..."}, "a client is all that others see of a service"},
	{"ca", []string{"ca/internal/cmd"}, "mains are thin"},
	{"directory", []string{"directory/internal/cmd"}, "mains are thin"},
	{"router", []string{"router/internal/cmd"}, "mains are thin"},
	{"ca/internal/...", []string{"ca/...", "directory/client", "pkg/...", "proto/..."}, "services meet only in client packages"},
	{"directory/internal/...", []string{"directory/...", "ca/client", "pkg/...", "proto/..."}, "services meet only in client packages"},
	{"router/internal/native", []string{"router/internal/calls", "router/internal/links", "router/internal/policy", "router/internal/trust", "pkg/...", "proto/..."}, "a mode returns what to send: it knows neither the engine nor the other mode"},
	{"router/internal/standard", []string{"router/internal/calls", "router/internal/links", "router/internal/trust", "pkg/...", "proto/..."}, "a mode returns what to send: it knows neither the engine nor the other mode"},
	{"router/internal/webcert", []string{"ca/client", "pkg/..."}, "a certificate is kept without knowing for whom"},
	{"router/internal/portal", []string{"router/internal/authn", "router/internal/engine", "router/internal/native", "router/internal/policy", "router/internal/trust", "ca/client", "directory/client", "pkg/..."}, "it knows the errors of a login, to say what they mean; what it does, it asks of the router that it is handed"},
	{"router/internal/...", []string{"router/...", "ca/client", "directory/client", "pkg/...", "proto/..."}, "services meet only in client packages"},
	{"scripts/...", []string{"scripts/...", "ca/client", "directory/client", "pkg/...", "proto/..."}, "what drives the product uses it as a customer would"},
	{"firmware/...", []string{"firmware/...", "pkg/...", "proto/..."}, "an image is built from the binaries, not from their insides"},
}

func TestWhoMayImportWhom(t *testing.T) {
	tr := readTree(t)
	for _, f := range tr.files {
		i := slices.IndexFunc(rows, func(r row) bool { return matches(r.pkg, f.dir) })
		if i < 0 {
			t.Errorf("%s: package %s has no row in the table: give it one, and the reason", f.name, f.dir)
			continue
		}
		for p, spec := range f.imports(t) {
			ours, ok := strings.CutPrefix(p, module+"/")
			if !ok || ours == f.dir || anyMatches(rows[i].may, ours) || f.test && testMay(f.dir, ours) {
				continue
			}
			t.Errorf("%s: %s may not import %s: %s", tr.line(f, spec), f.dir, ours, rows[i].why)
		}
	}
}

// testMay tells what a test may import besides: the fakes beside its package, and in proto
// any other protocol, since a machine is tested on what carries it.
func testMay(dir, imported string) bool {
	return matches(dir+"/...", imported) || matches("proto/...", dir) && matches("proto/...", imported)
}

// door says which packages may import a third party's: everybody else goes through them.
type door struct {
	theirs string
	ours   []string
	why    string
}

var doors = []door{
	{"github.com/smallstep/...", []string{"ca/internal/authority/..."}, "its types would be everywhere, and its errors know HTTP"},
	{"go.step.sm/...", []string{"ca/internal/authority/..."}, "as smallstep"},
	{"layeh.com/radius/...", []string{"ca/internal/source/radius/..."}, "what is believed of an answer is decided in one place, and not by the library"},
	{"github.com/go-ldap/...", []string{"ca/internal/source/ldap/..."}, "TLS, bounds and the order of binds are kept in one place"},
	{"go.etcd.io/bbolt/...", []string{"directory/internal/store/boltstore", "ca/internal/..."}, "a Store is replaced by another Store"},
	{"charm.land/bubbletea/...", []string{"router/internal/top/..."}, "a screen is drawn in one place"},
	{"github.com/songgao/water/...", []string{"pkg/tun/..."}, "one device interface, several back ends"},
	{"golang.zx2c4.com/wireguard/...", []string{"pkg/tun/..."}, "one device interface, several back ends"},
	{"github.com/vishvananda/netlink/...", []string{"pkg/netcfg/...", "pkg/netlab/..."}, "what is set must be planned and undone in one place"},
	{"github.com/safchain/ethtool/...", []string{"pkg/netcfg/..."}, "what is set must be undone in one place"},
	{"github.com/vishvananda/netns/...", []string{"pkg/netcfg/...", "pkg/netlab/..."}, "threads that change their namespace stay in one place"},
	{"golang.org/x/crypto/acme/...", []string{"router/internal/webcert"}, "certificates come one way"},
	{"github.com/chromedp/...", nil, "a browser is for tests"},
	{"github.com/flynn/noise/...", []string{"proto/handshake/..."}, "one handshake, one place to audit"},
}

func TestThirdPartiesBehindOneDoor(t *testing.T) {
	tr := readTree(t)
	for _, f := range tr.files {
		for p, spec := range f.imports(t) {
			for _, d := range doors {
				if matches(d.theirs, p) && !anyMatches(d.ours, f.dir) && !f.test {
					t.Errorf("%s: %s may not import %s, only %s: %s", tr.line(f, spec), f.dir, p, strings.Join(d.ours, ", "), d.why)
				}
			}
		}
	}
}

// impure are the imports that proto must do without: bytes, events and the time come in as
// arguments, so that every test of it moves the clock and the network by hand.
var impure = []struct {
	pkg    string
	except []string // of the imported
	in     []string // where it may be all the same
	why    string
}{
	{"net/...", []string{"net/netip"}, nil, "proto has no socket; net/netip is values only"},
	{"os/...", nil, nil, "proto has no file, no signal, no environment"},
	{"syscall", nil, nil, "proto has no file"},
	{"context", nil, nil, "proto never waits, so there is nothing to cancel"},
	{"sync/...", []string{"sync/atomic"}, nil, "proto has one owner; only counters are shared"},
	{"log/...", nil, []string{"proto/secret"}, "proto returns events and errors, its owner logs; secret only answers slog with a redaction"},
	{"crypto/rand", nil, nil, "randomness is an io.Reader argument, so that runs can be repeated"},
	{"math/rand/...", nil, nil, "randomness is an io.Reader argument"},
	{"testing/...", nil, nil, "no test code in the product"},
}

// clock are the functions of package time that ask or wait; the rest of it is values.
var clock = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTicker", "NewTimer"}

func TestProtoIsPure(t *testing.T) {
	tr := readTree(t)
	for _, f := range tr.files {
		if f.test || !matches("proto/...", f.dir) {
			continue
		}
		for p, spec := range f.imports(t) {
			for _, i := range impure {
				if matches(i.pkg, p) && !slices.Contains(i.except, p) && !slices.Contains(i.in, f.dir) {
					t.Errorf("%s: %s may not import %s: %s", tr.line(f, spec), f.dir, p, i.why)
				}
			}
			if strings.Contains(strings.Split(p, "/")[0], ".") && !matches("golang.org/x/crypto/...", p) && !matches("github.com/flynn/noise", p) && p != "golang.org/x/sys/cpu" {
				t.Errorf("%s: %s may not import %s: proto stands on the standard library, golang.org/x/crypto and what the processor can", tr.line(f, spec), f.dir, p)
			}
			if p == "time" && spec.Name != nil {
				t.Errorf("%s: time keeps its name, so that this test can see what is asked of it", tr.line(f, spec))
			}
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if what := impureNode(n); what != "" {
				t.Errorf("%s: %s in proto: a machine is driven, it does not run", tr.line(f, n), what)
			}
			return true
		})
	}
}

// impureNode names what must not stand in proto; empty for everything else.
func impureNode(n ast.Node) string {
	switch n := n.(type) {
	case *ast.GoStmt:
		return "a go statement"
	case *ast.SelectStmt:
		return "a select statement"
	case *ast.ChanType:
		return "a channel"
	case *ast.SendStmt:
		return "a send"
	case *ast.FuncDecl:
		if n.Recv == nil && n.Name.Name == "init" {
			return "an init function"
		}
	case *ast.SelectorExpr:
		if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains(clock, n.Sel.Name) {
			return "time." + n.Sel.Name
		}
	}
	return ""
}

func TestEveryPackageHasOneDoc(t *testing.T) {
	docs, pkgs := map[string][]string{}, map[string]bool{}
	for _, f := range readTree(t).files {
		if f.test {
			continue
		}
		pkgs[f.dir] = true
		if f.ast.Doc != nil {
			docs[f.dir] = append(docs[f.dir], f.name)
		}
	}
	for dir := range pkgs {
		if want := []string{path.Join(dir, "doc.go")}; !slices.Equal(docs[dir], want) {
			t.Errorf("%s: package documentation stands in %v, want %v and nowhere else", dir, docs[dir], want)
		}
	}
}

// topLevel is what a visitor sees first, all of it. LICENSE may come.
var topLevel = []string{
	".ci", ".gitignore", ".golangci.yml", "Makefile", "README.md", "ca", "directory", "docs",
	"firmware", "go.mod", "go.sum", "pkg", "proto", "router", "scripts",
}

// unseen is what git does not keep, or keeps itself.
var unseen = []string{".git", "bin", "cover.out", "LICENSE"}

func TestTopLevel(t *testing.T) {
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	missing := slices.Clone(topLevel)
	for _, e := range entries {
		switch i := slices.Index(missing, e.Name()); {
		case i >= 0:
			missing = slices.Delete(missing, i, i+1)
		case !slices.Contains(unseen, e.Name()) && !strings.HasSuffix(e.Name(), ".test") && !strings.HasSuffix(e.Name(), ".prof"):
			t.Errorf("%s does not belong at the top level", e.Name())
		}
	}
	for _, name := range missing {
		t.Errorf("%s is missing at the top level", name)
	}
}
