package clitest

import (
	"reflect"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestInvocations(t *testing.T) {
	for line, want := range map[string][][]string{
		"":                                  nil,
		"  # twinkey-ca status":             nil,
		"  systemctl stop twinkey-ca-other": nil,
		"twinkey-ca status":                 {{"status"}},
		"sudo twinkey-ca user add alice --group 'the staff' # quickly":    {{"user", "add", "alice", "--group", "the staff"}},
		"twinkey-ca crl | openssl crl -noout":                             {{"crl"}},
		"twinkey-ca source test a b --json < secret":                      {{"source", "test", "a", "b", "--json"}},
		"twinkey-ca status && twinkey-ca crl":                             {{"status"}, {"crl"}},
		"step ca certificate w --token \"$(twinkey-ca tls token w)\" --x": {{"tls", "token", "w"}},
		"twinkey-ca backup /b/$(date +%F).db --json":                      {{"backup", "/b/$(date +%F).db", "--json"}},
	} {
		if got := invocations("twinkey-ca", line); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}

// What is wrong with an example is found.
func TestExamples(t *testing.T) {
	for name, tt := range map[string]struct{ example, want string }{
		"good":                  {"p do it --how fast", ""},
		"none":                  {"", "no example"},
		"of another command":    {"p other", "no example"},
		"no such flag":          {"p do it --hwo fast", "unknown flag"},
		"no such command":       {"p dou it", "unknown command"},
		"too few words":         {"p do --how fast", "accepts 1 arg"},
		"too many":              {"p do it again --how fast", "accepts 1 arg"},
		"without what it needs": {"p do it", "required flag"},
		"one of two is wrong":   {"p do it --how fast\np do it --hwo fast", "unknown flag"},
	} {
		root := func() *cobra.Command {
			nothing := func(*cobra.Command, []string) error { return nil }
			r := &cobra.Command{Use: "p", Args: cobra.NoArgs, RunE: nothing}
			do := &cobra.Command{Use: "do IT", Args: cobra.ExactArgs(1), RunE: nothing, Example: tt.example}
			do.Flags().String("how", "", "")
			if err := do.MarkFlagRequired("how"); err != nil {
				t.Fatal(err)
			}
			r.AddCommand(do, &cobra.Command{Use: "other", Args: cobra.NoArgs, RunE: nothing})
			return r
		}
		do, _, err := root().Find([]string{"do"})
		if err != nil {
			t.Fatal(err)
		}
		err = examples(root, do)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}

func TestHintless(t *testing.T) {
	const src = `package p
func f(err error) error {
	if err == nil {
		return cli.Fail(1, "what", err, "a hint")
	}
	other.Fail(1, "what", err, "")
	return cli.Fail(1, "what", err, "")
}`
	if at := hintless(t, "p.go", []byte(src)); len(at) != 1 || at[0].Line != 7 {
		t.Errorf("found at %v", at)
	}
}
