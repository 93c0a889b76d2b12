package main

import (
	"encoding/json"
	"strings"
	"testing"
)

// stream is events as go test would write them.
func stream(t *testing.T, events ...event) string {
	t.Helper()
	var b strings.Builder
	for _, e := range events {
		line, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(append(line, '\n'))
	}
	return b.String()
}

func ok(pkg string) []event {
	return []event{
		{Action: "run", Package: pkg, Test: "TestA"},
		{Action: "output", Package: pkg, Test: "TestA", Output: "chatter\n"},
		{Action: "pass", Package: pkg, Test: "TestA"},
		{Action: "output", Package: pkg, Output: "PASS\n"},
		{Action: "output", Package: pkg, Output: "ok  \t" + pkg + "\t1.5s\n"},
		{Action: "pass", Package: pkg, Elapsed: 1.5},
	}
}

func skipped(pkg string) []event {
	return append([]event{
		{Action: "output", Package: pkg, Test: "TestS", Output: "=== RUN   TestS\n"},
		{Action: "output", Package: pkg, Test: "TestS", Output: "    a_test.go:7: needs tshark (apt install tshark)\n"},
		{Action: "output", Package: pkg, Test: "TestS", Output: "--- SKIP: TestS (0.00s)\n"},
		{Action: "skip", Package: pkg, Test: "TestS"},
	}, ok(pkg)...)
}

func failing(pkg string) []event {
	return []event{
		{Action: "output", Package: pkg, Test: "TestF", Output: "    a_test.go:9: got 1, want 2\n"},
		{Action: "fail", Package: pkg, Test: "TestF"},
		{Action: "output", Package: pkg, Test: "TestHangs", Output: "panic: test timed out\n"},
		{Action: "output", Package: pkg, Output: "FAIL\t" + pkg + "\t0.1s\n"},
		{Action: "fail", Package: pkg, Elapsed: 0.1},
	}
}

func TestReport(t *testing.T) {
	for _, tt := range []struct {
		name   string
		in     string
		noSkip bool
		good   bool
		want   string
	}{
		{"all is well", stream(t, ok("p/a")...), true, true,
			"    1.5s  ok    p/a  1 passed\nok  \tp/a\t1.5s\n"},
		{"left out", stream(t, skipped("p/a")...), false, true,
			"    1.5s  ok    p/a  1 passed, 1 left out\nleft out:\n    1  needs tshark (apt install tshark)\nok  \tp/a\t1.5s\n"},
		{"left out where nothing may be", stream(t, skipped("p/a")...), true, false,
			"    1.5s  ok    p/a  1 passed, 1 left out\nleft out:\n    1  needs tshark (apt install tshark)\nTWINKEY_NO_SKIP=1 is set: leaving out is failing\nok  \tp/a\t1.5s\nFAIL\n"},
		{"failed", stream(t, append(failing("p/f"), ok("p/a")...)...), false, false,
			"    0.1s  FAIL  p/f  0 passed, 1 failed\n    a_test.go:9: got 1, want 2\npanic: test timed out\n    1.5s  ok    p/a  1 passed\nFAIL\tp/f\t0.1s\nok  \tp/a\t1.5s\nFAIL\n"},
		{"does not build", stream(t, event{Action: "build-output", ImportPath: "p/b", Output: "b.go:1:1: no\n"}, event{Action: "build-fail", ImportPath: "p/b"},
			event{Action: "output", Package: "p/b", Output: "FAIL\tp/b [build failed]\n"}, event{Action: "fail", Package: "p/b"}), false, false,
			"b.go:1:1: no\n    0.0s  FAIL  p/b  0 passed\nFAIL\tp/b [build failed]\nFAIL\n"},
		{"nothing", "", false, false, "nothing was tested\nFAIL\n"},
		{"go has something to say", "go: no such package\n" + stream(t, ok("p/a")...), false, true,
			"go: no such package\n    1.5s  ok    p/a  1 passed\nok  \tp/a\t1.5s\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var b strings.Builder
			r := newReport(&b)
			if err := r.read(strings.NewReader(tt.in)); err != nil {
				t.Fatal(err)
			}
			if good := r.finish(tt.noSkip); good != tt.good || b.String() != tt.want {
				t.Errorf("good %v, want %v; got\n%s\nwant\n%s", good, tt.good, &b, tt.want)
			}
		})
	}
}

func TestReasonOfASkip(t *testing.T) {
	if got := reason("TestS", "--- SKIP: TestS (0.00s)\n"); got != "TestS: no reason given" {
		t.Error(got)
	}
	if got := reason("TestS", "    a_test.go:7: note\n    a_test.go:8: needs root: to make namespaces\n"); got != "needs root: to make namespaces" {
		t.Error(got)
	}
}
