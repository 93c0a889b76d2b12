package config_test

import (
	"errors"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"twinkey/pkg/config"
)

var update = flag.Bool("update", false, "write testdata/*.golden anew")

type sample struct {
	Listen netip.AddrPort    `yaml:"listen" doc:"UDP address for tunnels." default:"0.0.0.0:1701"`
	Public string            `yaml:"public" doc:"Address at which peers reach us; empty: they don't." example:"198.51.100.1:1701"`
	Hello  time.Duration     `yaml:"hello" doc:"A HELLO is sent after this much silence of the peer, and the tunnel is taken for dead when none of its repetitions is answered." default:"15s"`
	Limit  config.Size       `yaml:"limit" doc:"Bytes." default:"64MiB"`
	Suites []string          `yaml:"suites" doc:"Best first." default:"[aes256-gcm, aes128-gcm]"`
	Nets   []netip.Prefix    `yaml:"nets" doc:"Private prefixes." example:"[10.1.0.0/24]"`
	Labels map[string]string `yaml:"labels" doc:"Free." example:"{room: cellar}"`
	Quote  string            `yaml:"quote" doc:"Odd default." default:"yes: no"`
	Tun    tun               `yaml:"tun" doc:"The interface."`
	Users  []user            `yaml:"users" doc:"Local users."`
	Doors  []door            `yaml:"doors" doc:"A section and a list below a list."`
	Run    int               `yaml:"-"`
}

type tun struct {
	Name string  `yaml:"name" doc:"Its name." default:"twinkey0"`
	MTU  uint16  `yaml:"mtu" doc:"Bytes." default:"0"`
	Up   bool    `yaml:"up" doc:"At start." default:"true"`
	Part float64 `yaml:"part" doc:"Between 0 and 1." default:"0.66"`
}

type door struct {
	Lock lock   `yaml:"lock" doc:"How it is locked."`
	Keys []user `yaml:"keys" doc:"Who has a key."`
	Open bool   `yaml:"open" doc:"At start." default:"false"`
}

type lock struct {
	Kind  string `yaml:"kind" doc:"Whose make." example:"chubb"`
	Bolts int    `yaml:"bolts" doc:"How many." default:"2"`
}

type user struct {
	Name  string        `yaml:"name" doc:"Who." example:"alice"`
	Until time.Duration `yaml:"until" doc:"How long." default:"1h"`
}

func TestDefaults(t *testing.T) {
	for name, text := range map[string]string{"empty": "", "comment": "# nothing\n", "empty sections": "tun:\n  # mtu: 1400\nusers:\n"} {
		got, err := config.Parse[sample]("f.yaml", []byte(text))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		want := sample{Listen: netip.MustParseAddrPort("0.0.0.0:1701"), Hello: 15 * time.Second, Limit: 64 << 20,
			Suites: []string{"aes256-gcm", "aes128-gcm"}, Quote: "yes: no", Tun: tun{"twinkey0", 0, true, 0.66}}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n got %+v\nwant %+v", name, got, want)
		}
	}
}

func TestValues(t *testing.T) {
	got, err := config.Parse[sample]("f.yaml", []byte(`
listen: "[::]:1701"
public: 010
hello: 1m30s
limit: 1500
suites: [aes128-gcm]
nets:
  - 10.1.0.0/24
  - fd00::/8
labels: {room: cellar, floor: "-1"}
tun: {mtu: 1400, up: false, part: 1}
users:
  - name: alice
  - name: "true"
    until: 5m
`))
	if err != nil {
		t.Fatal(err)
	}
	want := sample{Listen: netip.MustParseAddrPort("[::]:1701"), Public: "010", Hello: 90 * time.Second, Limit: 1500,
		Suites: []string{"aes128-gcm"}, Nets: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24"), netip.MustParsePrefix("fd00::/8")},
		Labels: map[string]string{"room": "cellar", "floor": "-1"}, Quote: "yes: no", Tun: tun{"twinkey0", 1400, false, 1},
		Users: []user{{"alice", time.Hour}, {"true", 5 * time.Minute}}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("\n got %+v\nwant %+v", got, want)
	}
}

func TestFaults(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"mistyped", "tun:\n  mtuu: 1400\n", "f.yaml:2:3: tun.mtuu: unknown key; did you mean mtu?\n    2 |   mtuu: 1400\n      |   ^"},
		{"swapped", "lisetn: x\n", "f.yaml:1:1: lisetn: unknown key; did you mean listen?"},
		{"in another section", "mtu: 1400\n", "f.yaml:1:1: mtu: unknown key; did you mean tun.mtu?"},
		{"like nothing", "tun: {zzzzzzzz: 1}\n", "f.yaml:1:7: tun.zzzzzzzz: unknown key; known here: name, mtu, up, part"},
		{"two at once", "lisetn: x\nsiutes: []\n", "did you mean listen?"},
		{"two at once, the second", "lisetn: x\nsiutes: []\n", "did you mean suites?"},
		{"twice", "public: a\npublic: b\n", "f.yaml:2:1: mapping key \"public\" already defined at [1:1]"},
		{"duration without unit", "hello: 15\n", "f.yaml:1:8: hello: \"15\" is no duration; write a number and a unit, such as 90s, 15m or 1h30m\n    1 | hello: 15\n      |        ^"},
		{"address", "listen: 1701\n", "f.yaml:1:9: listen: not an ip:port"},
		{"prefix in a list", "nets: [10.1.0.0/24, ten]\n", "f.yaml:1:21: nets[1]: netip.ParsePrefix(\"ten\"): no '/'"},
		{"size", "limit: many\n", "f.yaml:1:8: limit: \"many\" is no size"},
		{"number out of range", "tun: {mtu: 70000}\n", "f.yaml:1:12: tun.mtu: \"70000\" is no uint16; write a whole number in range"},
		{"negative", "tun: {mtu: -1}\n", "f.yaml:1:12: tun.mtu: \"-1\" is no uint16"},
		{"boolean", "tun: {up: maybe}\n", "f.yaml:1:11: tun.up: \"maybe\" is no bool; write true or false"},
		{"nothing", "public:\n", "public: no value; give one, or remove the key to have the default"},
		{"value for a section", "tun: 1400\n", "f.yaml:1:6: tun: a section of keys is expected here, not \"1400\""},
		{"list for a value", "public: [a]\n", "f.yaml:1:9: public: one value is expected here, not a list"},
		{"section for a value", "public: {a: b}\n", "one value is expected here, not a section"},
		{"value for a list", "suites: aes128-gcm\n", "f.yaml:1:9: suites: a list is expected here, not \"aes128-gcm\""},
		{"value for a map", "labels: a\n", "names with values are expected here"},
		{"anchor", "public: &a x\n", "anchors, aliases, merge keys and tags are not used here"},
		{"alias", "public: *a\n", "f.yaml:1:9"},
		{"tag", "public: !!str x\n", "not used here"},
		{"second document", "public: a\n---\npublic: b\n", "f.yaml:3:1: a second document"},
		{"broken", "public: [a\n", "f.yaml:1:"},
		{"tab", "tun:\n\tmtu: 1\n", "f.yaml:2:1: found character '\t' that cannot start any token"},
		{"user in a list", "users:\n  - nam: alice\n", "f.yaml:2:5: users[0].nam: unknown key; did you mean name?"},
		{"no mapping at all", "- a\n", "f.yaml:1:1: a section of keys is expected here, not a list"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := config.Parse[sample]("f.yaml", []byte(tt.in))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got\n%v\nwant\n%s", err, tt.want)
			}
			if _, ok := errors.AsType[*config.Error](err); !ok {
				t.Errorf("%T is no *config.Error", err)
			}
		})
	}
}

func TestFaultsAreBounded(t *testing.T) {
	_, err := config.Parse[sample]("f.yaml", []byte(strings.Repeat("x", 10)+": 1\n"+strings.Repeat("y: [[[[", 1)+strings.Repeat("[", 1000)))
	if err == nil || len(err.Error()) > 4096 {
		t.Errorf("%d bytes of error", len(err.Error()))
	}
	var many strings.Builder
	for i := range 1000 {
		many.WriteString(strings.Repeat("k", i%50+20) + strings.Repeat("j", i/50) + ": 1\n")
	}
	_, err = config.Parse[sample]("f.yaml", []byte(many.String()))
	if n := strings.Count(err.Error(), "unknown key"); n != 10 {
		t.Errorf("%d faults are told, want 10", n)
	}
	for _, nest := range []string{"[", "{a: ", "- ", "? "} {
		if _, err := config.Parse[sample]("f.yaml", []byte("public: "+strings.Repeat(nest, 200_000/len(nest)))); err == nil {
			t.Errorf("%q nests without end", nest)
		}
	}
	if _, err := config.Parse[sample]("f.yaml", make([]byte, config.MaxFile+1)); err == nil {
		t.Error("a file of any size is read")
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "router.yaml")
	if _, err := config.Load[sample](path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	if err := os.WriteFile(path, []byte("tun: {mtu: 1400}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if f, err := config.Load[sample](path); err != nil || f.Tun.MTU != 1400 {
		t.Errorf("%+v, %v", f, err)
	}
	if err := os.WriteFile(path, []byte("tum: {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := config.Load[sample](path); err == nil || !strings.HasPrefix(err.Error(), "router.yaml:1:1: tum: unknown key; did you mean tun?") {
		t.Errorf("%v", err)
	}
}

// The example file reads as the defaults; with every comment sign before a key taken
// away it still reads, so that no example in it is wrong.
func TestDocument(t *testing.T) {
	doc := config.Document[sample]()
	golden := filepath.Join("testdata", "sample.golden")
	if *update {
		if err := os.WriteFile(golden, []byte(doc), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if doc != string(want) {
		t.Errorf("document differs from %s:\n%s", golden, doc)
	}
	defaults, err := config.Parse[sample]("none", nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := config.Parse[sample]("doc", []byte(doc))
	if err != nil || !reflect.DeepEqual(got, defaults) {
		t.Errorf("the document reads as %+v, %v", got, err)
	}
	got, err = config.Parse[sample]("examples", []byte(uncommented(doc)))
	if err != nil {
		t.Fatalf("%v in\n%s", err, uncommented(doc))
	}
	if got.Public != "198.51.100.1:1701" || len(got.Nets) != 1 || got.Labels["room"] != "cellar" || len(got.Users) != 1 || got.Users[0] != (user{"alice", time.Hour}) ||
		len(got.Doors) != 1 || got.Doors[0].Lock != (lock{"chubb", 2}) || len(got.Doors[0].Keys) != 1 || got.Doors[0].Keys[0] != (user{"alice", time.Hour}) {
		t.Errorf("the examples read as %+v", got)
	}
}

// uncommented turns "# key: value", "#   - " and "#   key: value" into live lines.
func uncommented(doc string) string {
	var b strings.Builder
	for line := range strings.Lines(doc) {
		body, off := strings.CutPrefix(strings.TrimSpace(line), "# ")
		key, _, isKey := strings.Cut(strings.TrimSpace(body), ":")
		if off && (strings.TrimSpace(body) == "-" || isKey && !strings.Contains(key, " ") && key != "Odd") {
			b.WriteString(body + "\n")
		} else if !off {
			b.WriteString(line)
		}
	}
	return b.String()
}

func TestUndocumented(t *testing.T) {
	if bad := config.Undocumented[sample](); len(bad) != 0 {
		t.Errorf("%q", bad)
	}
	type inner struct {
		A int `yaml:"a"`
	}
	type outer struct {
		NoTag int           `doc:"x"`
		In    inner         `yaml:"in" doc:"x"`
		List  []inner       `yaml:"list,flow" doc:"x"`
		Bad   time.Duration `yaml:"bad" doc:"x" default:"soon"`
	}
	if bad := config.Undocumented[outer](); len(bad) != 4 {
		t.Errorf("%q", bad)
	}
}

func TestSize(t *testing.T) {
	for in, want := range map[string]config.Size{"0": 0, "1500": 1500, "64KiB": 65536, "2 MiB": 2 << 20, "3GB": 3e9, "1TiB": 1 << 40} {
		var s config.Size
		if err := s.UnmarshalText([]byte(in)); err != nil || s != want {
			t.Errorf("%s: %d, %v", in, s, err)
		}
		var again config.Size
		text, err := s.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		if err := again.UnmarshalText(text); err != nil || again != s {
			t.Errorf("%s: %s comes back as %d, %v", in, text, again, err)
		}
	}
	for _, in := range []string{"", "-1", "1.5MiB", "KiB", "9999999TiB", "18446744073709551615", "1 MiB B"} {
		var s config.Size
		if err := s.UnmarshalText([]byte(in)); err == nil {
			t.Errorf("%q is %d", in, s)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(config.Document[sample]()))
	f.Add([]byte("tun:\n  mtuu: 1400\n"))
	f.Add([]byte("users:\n  - name: alice\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		_, err := config.Parse[sample]("f.yaml", in)
		if err == nil {
			return
		}
		if _, ok := errors.AsType[*config.Error](err); !ok {
			t.Fatalf("%T is no *config.Error", err)
		}
	})
}

// A check names a key; whoever loads adds where its value stands.
func TestChecks(t *testing.T) {
	errWhy := errors.New("why")
	at := func(key string) func(sample) error {
		return func(sample) error { return config.Wrong(key, errWhy) }
	}
	const text = "tun:\n  mtu: 1400\nnets: [10.1.0.0/24, 10.2.0.0/24]\n"
	for key, want := range map[string]string{
		"tun.mtu": "f.yaml:2:8: tun.mtu: why\n    2 |   mtu: 1400\n      |        ^",
		"nets[1]": "f.yaml:3:21: nets[1]: why",
		"nets":    "f.yaml:3:7: nets: why",
		"tun":     "f.yaml:2:3: tun: why",
		"hello":   "f.yaml: hello: why", // a default
	} {
		v, err := config.Parse("f.yaml", []byte(text), func(sample) error { return nil }, at(key))
		if !errors.Is(err, errWhy) || err.Error() != want && !strings.HasPrefix(err.Error(), want+"\n") {
			t.Errorf("%s: got\n%v\nwant\n%s", key, err, want)
		}
		if v.Tun.MTU != 0 {
			t.Errorf("%s: what was refused was returned: %+v", key, v)
		}
	}
	if _, err := config.Parse("f.yaml", nil, func(sample) error { return errWhy }); !errors.Is(err, errWhy) {
		t.Errorf("an error of another type: %v", err)
	}
	if got, want := config.Wrong("tun.mtu", errWhy).Error(), "tun.mtu: why"; got != want {
		t.Errorf("outside of a file: %q, want %q", got, want)
	}
}
