package cmd

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"twinkey/pkg/keybundle"
)

// A line is read and nothing behind it, so that two passwords can stand in one input.
func TestReadLine(t *testing.T) {
	for in, want := range map[string]string{
		"secret\nanother\n": "secret", "secret\r\nanother": "secret", "secret": "secret", " with spaces \nx": " with spaces ",
		strings.Repeat("x", keybundle.MaxPassword) + "\nrest": strings.Repeat("x", keybundle.MaxPassword),
	} {
		r := strings.NewReader(in)
		got, err := readLine(r)
		if err != nil || string(got) != want {
			t.Errorf("%.20q: %.20q %v", in, got, err)
		}
		rest, _ := io.ReadAll(r)
		if _, after, _ := strings.Cut(in, "\n"); string(rest) != after {
			t.Errorf("%.20q: %q is left, want %q", in, rest, after)
		}
	}
	for in, want := range map[string]string{"": "empty", "\nsecret": "empty", strings.Repeat("x", keybundle.MaxPassword+1): "more than 256", strings.Repeat("x", keybundle.MaxPassword+1) + "\r\n": "more than 256", strings.Repeat("x", 5000): "more than 256"} {
		if got, err := readLine(strings.NewReader(in)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: %q, %v, want %s", in, got, err, want)
		}
	}
	broken := errors.New("the disk is gone")
	if _, err := readLine(io.MultiReader(strings.NewReader("sec"), iotest.ErrReader(broken))); !errors.Is(err, broken) {
		t.Errorf("broken off: %v", err)
	}
}
