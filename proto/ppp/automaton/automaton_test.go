package automaton_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"twinkey/proto/ppp/automaton"
)

// transcription reads RFC 1661 section 4.1 from testdata: event -> cells, states 0 to 9.
func transcription(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile("testdata/rfc1661-4.1.txt")
	if err != nil {
		t.Fatal(err)
	}
	cells := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		event, row, ok := strings.Cut(line, "|")
		event = strings.TrimSpace(event)
		if !ok || event == "" || event == "Events" {
			continue
		}
		cells[event] = append(cells[event], strings.Fields(row)...)
	}
	return cells
}

// footnote is a letter behind the new state: passive, restart, crossed.
var footnote = regexp.MustCompile(`[prx]$`)

func TestTableIsTheRFCs(t *testing.T) {
	cells := transcription(t)
	legal := 0
	for e := automaton.Up; e <= automaton.RXR; e++ {
		row := cells[e.String()]
		if len(row) != 10 {
			t.Fatalf("event %v has %d cells in the transcription: %q", e, len(row), row)
		}
		delete(cells, e.String())
		for s := automaton.Initial; s <= automaton.Opened; s++ {
			do, next, ok := automaton.Next(s, e)
			if ok {
				legal++
			}
			if got, want := cell(do, next, ok), cell(parseCell(t, row[s])); got != want {
				t.Errorf("%v in %v: %s, the RFC has %s", e, s, got, row[s])
			}
		}
	}
	for e := range cells {
		t.Errorf("event %q of the RFC was not looked at", e)
	}
	if legal != 120 {
		t.Errorf("%d legal cells, the RFC has 120", legal)
	}
}

func cell(do automaton.Actions, next automaton.State, ok bool) string {
	if !ok {
		return "-"
	}
	return do.String() + "/" + next.String()
}

// parseCell reads a cell as printed: "irc,scr/6", "2", "tlf/3p", "-".
func parseCell(t *testing.T, s string) (do automaton.Actions, next automaton.State, ok bool) {
	t.Helper()
	if s == "-" {
		return 0, 0, false
	}
	s = footnote.ReplaceAllString(s, "")
	names, state, found := strings.Cut(s, "/")
	if !found {
		names, state = "", s
	}
	if len(state) != 1 || state[0] < '0' || state[0] > '9' {
		t.Fatalf("cell %q", s)
	}
	for name := range strings.SplitSeq(names, ",") {
		for bit := automaton.TLD; name != "" && bit <= automaton.TLF; bit <<= 1 {
			if bit.String() == name {
				do |= bit
				name = ""
			}
		}
		if name != "" {
			t.Fatalf("action %q in cell %q", name, s)
		}
	}
	return do, automaton.State(state[0] - '0'), true
}

func TestOutsideTheTable(t *testing.T) {
	if _, _, ok := automaton.Next(automaton.Opened+1, automaton.Up); ok {
		t.Error("a state beyond the table is legal")
	}
	if _, _, ok := automaton.Next(automaton.Opened, automaton.RXR+1); ok {
		t.Error("an event beyond the table is legal")
	}
}

// opened brings an automaton to Opened.
func opened(t *testing.T, l automaton.Limits, now time.Time) automaton.Automaton {
	t.Helper()
	a := automaton.New(l)
	for _, e := range []automaton.Event{automaton.Open, automaton.Up, automaton.RCRPlus, automaton.RCA} {
		if _, ok := a.Handle(now, e); !ok {
			t.Fatalf("%v is illegal in %v", e, a.State())
		}
	}
	if a.State() != automaton.Opened || !a.Deadline().IsZero() {
		t.Fatalf("state %v, timer %v", a.State(), a.Deadline())
	}
	return a
}

// expire lets the restart timer run out until it stops and returns the actions.
func expire(t *testing.T, a *automaton.Automaton) (acts []string, last time.Time) {
	t.Helper()
	for !a.Deadline().IsZero() {
		last = a.Deadline()
		if _, early := a.Timeout(last.Add(-1)); early {
			t.Fatal("expired before its time")
		}
		e, ok := a.Timeout(last)
		if !ok {
			t.Fatal("did not expire")
		}
		do, ok := a.Handle(last, e)
		if !ok {
			t.Fatalf("%v is illegal in %v", e, a.State())
		}
		if acts = append(acts, do.String()); len(acts) > 100 {
			t.Fatal("no end of it")
		}
	}
	return acts, last
}

// RFC 1661 4.6: Max-Configure 10 requests, the first counted; Max-Terminate 2; 3 s apart.
func TestCounters(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	a := automaton.New(automaton.Limits{})
	a.Handle(start, automaton.Open)
	a.Handle(start, automaton.Up)
	acts, last := expire(t, &a)
	if got, want := strings.Join(acts, " "), strings.Repeat("scr ", 9)+"tlf"; got != want {
		t.Errorf("after the first request: %s, want %s", got, want)
	}
	if last.Sub(start) != 30*time.Second || a.State() != automaton.Stopped {
		t.Errorf("gave up after %v in %v", last.Sub(start), a.State())
	}

	a = opened(t, automaton.Limits{}, start)
	a.Handle(start, automaton.Close)
	acts, last = expire(t, &a)
	if got := strings.Join(acts, " "); got != "str tlf" || last.Sub(start) != 6*time.Second || a.State() != automaton.Closed {
		t.Errorf("close: %s after %v in %v", got, last.Sub(start), a.State())
	}

	// zrc: one period for the peer's retransmissions, then finished.
	a = opened(t, automaton.Limits{Restart: time.Second}, start)
	a.Handle(start, automaton.RTR)
	acts, last = expire(t, &a)
	if got := strings.Join(acts, " "); got != "tlf" || last.Sub(start) != time.Second || a.State() != automaton.Stopped {
		t.Errorf("peer's close: %s after %v in %v", got, last.Sub(start), a.State())
	}
}

func TestMaxFailure(t *testing.T) {
	a := automaton.New(automaton.Limits{MaxFailure: 2})
	now := time.Time{}
	a.Handle(now, automaton.Open)
	a.Handle(now, automaton.Up)
	a.NakSent()
	if !a.MayNak() {
		t.Error("one of two")
	}
	a.NakSent()
	a.NakSent()
	if a.MayNak() {
		t.Error("two of two")
	}
	a.Handle(now, automaton.RCRPlus) // sca
	if !a.MayNak() {
		t.Error("a Configure-Ack starts the count anew")
	}
}

// The timer never runs in a state where the RFC has it stopped, and no event leaves the
// ten states, whatever comes.
func FuzzAutomaton(f *testing.F) {
	f.Add([]byte{2, 0, 6, 8, 15, 10, 4, 5})
	f.Add([]byte{2, 0, 8, 9, 6, 7, 3, 11, 1})
	f.Fuzz(func(t *testing.T, events []byte) {
		a := automaton.New(automaton.Limits{})
		now := time.Unix(0, 0)
		for _, b := range events {
			before := a.State()
			now = now.Add(time.Duration(b) * 100 * time.Millisecond)
			_, ok := a.Handle(now, automaton.Event(b%16))
			if !ok && a.State() != before {
				t.Fatalf("illegal event moved %v to %v", before, a.State())
			}
			s := a.State()
			runs := s >= automaton.Closing && s != automaton.Opened
			if s > automaton.Opened || runs == a.Deadline().IsZero() {
				t.Fatalf("in %v the timer is %v", s, a.Deadline())
			}
		}
	})
}

func BenchmarkHandle(b *testing.B) {
	a := automaton.New(automaton.Limits{})
	now := time.Unix(0, 0)
	b.ReportAllocs()
	for b.Loop() {
		a.Handle(now, automaton.Open)
		a.Handle(now, automaton.Up)
		a.Handle(now, automaton.RCRPlus)
		a.Handle(now, automaton.RCA)
		a.Handle(now, automaton.Down)
	}
}
