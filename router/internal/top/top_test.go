package top

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"

	"twinkey/router/internal/admin"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// snapshot is a router whose calls have carried so many bytes.
func snapshot(since time.Time, bytes map[string]uint64) admin.Status {
	st := admin.Status{Name: "ra", Since: since, Device: admin.Device{Name: "twinkey0", Kind: "offload"}, Directory: admin.Directory{Fresh: true}, Drops: map[string]uint64{"no_call": 5}}
	for i, user := range []string{"alice", "bob", "carol", ""} {
		n, ok := bytes[user]
		if !ok {
			continue
		}
		st.Calls = append(st.Calls, admin.Call{
			ID: uint64(i + 1), User: user, Kind: map[bool]string{true: "site", false: "user"}[user == ""], Peer: "rb", Suite: "aes256-gcm",
			Since: since.Add(time.Duration(i) * time.Minute), NotAfter: start.Add(30 * 24 * time.Hour), RxBytes: n, RxPackets: n / 1000, TxBytes: 2 * n, TxPackets: n / 500,
		})
	}
	return st
}

func TestRates(t *testing.T) {
	var r Rates
	r = r.Next(snapshot(start, map[string]uint64{"alice": 1000, "bob": 5000}), start)
	if len(r.Rows) != 2 || r.Rows[0].Measured || r.Total != (Rate{}) || len(r.Drops) != 0 {
		t.Errorf("after one snapshot: %+v", r)
	}
	st := snapshot(start, map[string]uint64{"alice": 5000, "bob": 5000, "carol": 7000})
	st.Drops["no_call"], st.Drops["bad_packet"] = 25, 2
	r = r.Next(st, start.Add(2*time.Second))
	if a := r.Rows[0]; a.Rate != (Rate{2000, 4000, 2, 4}) || !a.Measured {
		t.Errorf("alice: %+v", a)
	}
	if c := r.Rows[2]; c.Measured || c.Rate != (Rate{}) {
		t.Errorf("carol is new: %+v", c)
	}
	if r.Total != (Rate{2000, 4000, 2, 4}) || r.Drops["no_call"] != 10 || r.Drops["bad_packet"] != 1 {
		t.Errorf("in all: %+v, dropped %v", r.Total, r.Drops)
	}
	// Another run of the router counts from zero, and its calls have the same numbers.
	r = r.Next(snapshot(start.Add(time.Hour), map[string]uint64{"alice": 10}), start.Add(time.Hour))
	if r.Rows[0].Measured || r.Total != (Rate{}) || len(r.Drops) != 0 {
		t.Errorf("after a restart: %+v", r)
	}
}

func TestOrders(t *testing.T) {
	var r Rates
	r = r.Next(snapshot(start, map[string]uint64{"alice": 0, "bob": 0, "carol": 0, "": 0}), start)
	r = r.Next(snapshot(start, map[string]uint64{"alice": 10, "bob": 30, "carol": 20, "": 20}), start.Add(time.Second))
	for o, want := range map[Order]string{ByTraffic: "bob carol  alice", ByUser: " alice bob carol", ByAge: " carol bob alice"} {
		var names []string
		for _, row := range r.Sorted(o) {
			names = append(names, row.User)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("by %s: %q, want %q", o, got, want)
		}
	}
}

func TestBits(t *testing.T) {
	for v, want := range map[float64]string{0: "0 bit/s", 12: "96 bit/s", 1000: "8.0 kbit/s", 12500: "100 kbit/s", 1e6: "8.0 Mbit/s", 1.2e9: "9.6 Gbit/s"} {
		if got := bits(v); got != want {
			t.Errorf("%v: %q, want %q", v, got, want)
		}
	}
}

func press(m model, keys ...string) model {
	for _, k := range keys {
		next, _ := m.key(k)
		m = next.(model) //nolint:errcheck // it is one
	}
	return m
}

func update(m model, msgs ...tea.Msg) model {
	for _, msg := range msgs {
		next, _ := m.Update(msg)
		m = next.(model) //nolint:errcheck // it is one
	}
	return m
}

// The screen: as many lines as there are, none too long, and what matters is on it.
func TestScreen(t *testing.T) {
	now := start
	m := model{now: func() time.Time { return now }, interval: time.Second}
	m = update(m, tea.WindowSizeMsg{Width: 100, Height: 8})
	if s := m.text(); !strings.Contains(s, "asking the router") {
		t.Errorf("at first:\n%s", s)
	}
	m = update(m, answered{err: errors.New("it does not run")})
	if s := m.text(); !strings.Contains(s, "no answer from the router: it does not run") {
		t.Errorf("without a router:\n%s", s)
	}
	m = update(m, answered{status: snapshot(start, map[string]uint64{"alice": 0, "bob": 0, "carol": 0})})
	now = now.Add(time.Second)
	m = update(m, answered{status: snapshot(start, map[string]uint64{"alice": 1000, "bob": 125000, "carol": 0})})
	for _, size := range [][2]int{{200, 40}, {100, 8}, {20, 8}, {1, 2}, {80, 7}, {0, 0}} {
		s := update(m, tea.WindowSizeMsg{Width: size[0], Height: size[1]}).text()
		size[0], size[1] = max(size[0], 1), max(size[1], 1)
		lines := strings.Split(s, "\n")
		if len(lines) != size[1] {
			t.Errorf("%v: %d lines", size, len(lines))
		}
		for _, l := range lines {
			if n := len([]rune(l)); n > size[0] {
				t.Errorf("%v: a line of %d: %q", size, n, l)
			}
		}
	}
	s := m.text()
	for _, want := range []string{"router ra, up for 1.0s", "3 calls in 0 tunnels   in 1.0 Mbit/s, 126 packets/s   out 2.0 Mbit/s", "1 to 2 of 3", "order: traffic"} {
		if !strings.Contains(s, want) {
			t.Errorf("not there: %s\n%s", want, s)
		}
	}
	if b, a := strings.Index(s, "bob"), strings.Index(s, "alice"); b < 0 || a < b {
		t.Errorf("most traffic is not first:\n%s", s)
	}
	for keys, want := range map[string]string{
		"down": "2 to 3 of 3", "down down down": "2 to 3 of 3", "up": "1 to 2 of 3", "end": "2 to 3 of 3", "end home": "1 to 2 of 3",
		"pgdown": "2 to 3 of 3", "pgdown pgup": "1 to 2 of 3", "o": "order: user", "o o": "order: newest", "o o o": "order: traffic", "space": "PAUSED",
	} {
		if s := press(m, strings.Fields(keys)...).text(); !strings.Contains(s, want) {
			t.Errorf("%s: no %q in\n%s", keys, want, s)
		}
	}
	// What comes while it is paused is not shown, calls that are gone leave no hole, and an outage says since when.
	p := update(press(m, "space"), answered{status: snapshot(start, map[string]uint64{"alice": 9})})
	if len(p.rates.Rows) != 3 {
		t.Error("not paused")
	}
	gone := update(press(m, "end"), answered{status: snapshot(start, map[string]uint64{"alice": 9})})
	if s := gone.text(); !strings.Contains(s, "alice") {
		t.Errorf("after most have gone:\n%s", s)
	}
	lost := snapshot(start, map[string]uint64{"alice": 9})
	lost.Directory.Problem = "no route to host"
	if s := update(m, tea.WindowSizeMsg{Width: 300, Height: 10}, answered{status: lost}).text(); !strings.Contains(s, "directory: no route to host") {
		t.Errorf("while the directory is away:\n%s", s)
	}
	if lost.Directory.Fresh = false; !strings.Contains(update(m, tea.WindowSizeMsg{Width: 300, Height: 10}, answered{status: lost}).text(), "NEW CALLS ARE REFUSED") {
		t.Error("refused calls are hidden behind their cause")
	}
	st := snapshot(start, map[string]uint64{"alice": 9, "bob": 9})
	st.Calls[0].Ending = "the user has new keys"
	if s := update(update(m, tea.WindowSizeMsg{Width: 300, Height: 10}), answered{status: st}).text(); !strings.Contains(s, "1 of the calls END SOON") || strings.Count(s, "in 29d 23h !") != 1 {
		t.Errorf("alice's certificate ends:\n%s", s)
	}
	if s := update(m, answered{err: errors.New("connection refused")}).text(); !strings.Contains(s, "NO ANSWER since 03:04:06: connection refused") {
		t.Errorf("away:\n%s", s)
	}
}

// The whole program on a terminal's stream: it draws, asks again, and q ends it; so does a signal.
func TestRun(t *testing.T) {
	for _, how := range []string{"q", "signal"} {
		var asked atomic.Int32
		ask := func(context.Context) (admin.Status, error) {
			asked.Add(1)
			return snapshot(start, map[string]uint64{"alice": uint64(asked.Load()) * 1000}), nil //nolint:gosec // a small number
		}
		r, w := io.Pipe()
		var out bytes.Buffer
		ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
		go func() {
			for asked.Load() < 3 {
				time.Sleep(5 * time.Millisecond)
			}
			if how == "q" {
				fmt.Fprint(w, "q")
			} else {
				stop()
			}
		}()
		err := Run(ctx, ask, 10*time.Millisecond, tea.WithInput(r), tea.WithOutput(&out), tea.WithWindowSize(120, 20), tea.WithEnvironment([]string{"TERM=xterm"}), tea.WithoutSignalHandler())
		if err != nil || how == "q" && ctx.Err() != nil {
			t.Errorf("%s: %v, %v", how, err, ctx.Err())
		}
		stop()
		if s := out.String(); !strings.Contains(s, "alice") || !strings.Contains(s, "router ra") {
			t.Errorf("%s: drawn: %q", how, s)
		}
		_ = w.CloseWithError(os.ErrClosed)
	}
}
