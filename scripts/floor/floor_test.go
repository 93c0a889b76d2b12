//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"twinkey/pkg/netlab"
	"twinkey/proto/ip"
)

var errPrepare error

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == boxRole {
		exit(box(os.Args[2:], os.Stdin, os.Stdout))
	}
	if errPrepare = netlab.EnsurePrivileges(); errPrepare == nil {
		errPrepare = netlab.CheckTUN()
	}
	os.Exit(m.Run())
}

func laboratory(t *testing.T) *netlab.Lab {
	t.Helper()
	switch {
	case errPrepare != nil && os.Getenv("TWINKEY_NO_SKIP") == "1":
		t.Fatal("needs root:", errPrepare)
	case errPrepare != nil:
		t.Skip("needs root:", errPrepare)
	}
	lab, err := netlab.New(t.Context())
	check(t, err)
	t.Cleanup(func() { check(t, lab.Close()) })
	return lab
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A noisy minute must not fall on one row alone: rows take turns.
func TestRowsAreMeasuredInTurn(t *testing.T) {
	var order []string
	constant := func(name string) *row {
		return &row{Name: name, run: func(context.Context, time.Duration) ([]float64, error) {
			order = append(order, name)
			return []float64{float64(len(order))}, nil
		}}
	}
	tables := []*table{
		{Columns: []column{{"n", 0}}, Rows: []*row{constant("a"), constant("b")}},
		{Columns: []column{{"n", 0}}, Rows: []*row{constant("c")}},
	}
	check(t, measure(t.Context(), tables, 3, time.Nanosecond, func(string) {}))
	if got := strings.Join(order, ""); got != "abcabcabc" {
		t.Error("measured in the order", got)
	}
	if got, want := tables[0].Rows[1].spread(0), (spread{5, 2, 8}); got != want {
		t.Errorf("spread of b: %v, want %v", got, want)
	}
}

func TestMeasureNamesWhatFailed(t *testing.T) {
	errBroken := errors.New("broken")
	for _, tt := range []struct {
		sample []float64
		err    error
		want   string
	}{
		{nil, errBroken, "broken"},
		{[]float64{1, 2}, nil, "2 numbers for 1 columns"},
	} {
		r := &row{Name: "r", run: func(context.Context, time.Duration) ([]float64, error) { return tt.sample, tt.err }}
		err := measure(t.Context(), []*table{{Title: "T", Columns: []column{{"n", 0}}, Rows: []*row{r}}}, 1, 0, func(string) {})
		if err == nil || !strings.Contains(err.Error(), "T, r: "+tt.want) {
			t.Errorf("got %v", err)
		}
	}
}

func TestMarkdown(t *testing.T) {
	r := report{Machine: "A machine", Rounds: 3, Tables: []*table{{
		Title: "Copies", Note: "As they come.", Columns: []column{{"ns", 0}, {"GB/s", 1}},
		Rows: []*row{{Name: "packets", Samples: [][]float64{{30, 1}, {10, 3}, {20, 2}}}},
	}}}
	const want = "A machine. Medians of 3 rounds, all rows in turn, with minimum and maximum.\n\n" +
		"## Copies\n\n| | ns | GB/s |\n|---|---|---|\n| packets | 20 (10-30) | 2.0 (1.0-3.0) |\n\nAs they come.\n"
	if got := r.markdown(); !strings.HasSuffix(got, want) {
		t.Errorf("got\n%s\nwant it to end with\n%s", got, want)
	}
}

// What is written into a TUN interface must be what a kernel would have handed out.
func TestShapesAreValid(t *testing.T) {
	for _, s := range shapes {
		from, to := netip.MustParseAddr("10.78.0.2"), netip.MustParseAddr("203.0.113.9")
		if s.v6 {
			from, to = netip.MustParseAddr("fd78::2"), netip.MustParseAddr("2001:db8::9")
		}
		b := s.build(from, to)
		p, err := ip.Parse(b[vnetSize:])
		check(t, err)
		network, transport := s.headers()
		if !p.HeaderOK() || p.Src() != from || p.Dst() != to {
			t.Errorf("%s: header of %s to %s, checksum right: %v", s.name, p.Src(), p.Dst(), p.HeaderOK())
		}
		if got := len(b) - vnetSize - network - transport; got != s.segments*(packetSize-network-transport) || len(b) > maxWire {
			t.Errorf("%s: %d bytes of payload", s.name, got)
		}
	}
}

// Every row once, as short as can be: what they need of the kernel is there.
func TestRowsRun(t *testing.T) {
	lab := laboratory(t)
	c, err := ciphers()
	check(t, err)
	u, err := overCable(lab)
	check(t, err)
	d, err := acrossTUN(t.Context(), lab)
	check(t, err)
	tables := []*table{c, u, d}
	check(t, measure(t.Context(), tables, 1, time.Millisecond, func(string) {}))
	for _, table := range tables {
		for _, r := range table.Rows {
			if !(r.Samples[0][0] > 0) {
				t.Errorf("%s, %s: %v", table.Title, r.Name, r.Samples[0])
			}
		}
	}
}

// Two boxes carry packets, train for train, drop nothing, and end when their input does.
func TestBoxesForward(t *testing.T) {
	lab := laboratory(t)
	for i, spin := range []time.Duration{0, spinTime} {
		t.Run(fmt.Sprint("polling for ", spin), func(t *testing.T) {
			w, hosts, err := chain(lab, string(rune('a'+i)))
			check(t, err)
			check(t, w.startBox(t.Context(), hosts[1], wanA, wanB, spin, "-route", lanB.String()))
			check(t, w.startBox(t.Context(), hosts[2], wanB, wanA, spin, "-route", lanA.String()))
			data := slices.Repeat([]byte("0123456789abcdef"), 1<<16)
			got, err := netlab.Transfer(t.Context(), w.from, hosts[3], hostB, strings.NewReader(string(data)))
			check(t, err)
			if !got.Intact() {
				t.Error("what arrived is not what was sent")
			}
			trip, err := roundTrip(w.from, w.to, 5)
			check(t, err)
			if trip <= 0 || trip > echoTimeout {
				t.Errorf("a round trip of %v", trip)
			}
			sum, err := w.tallies()
			check(t, err)
			if sum.Dropped != 0 || sum.Bytes < uint64(len(data)) || sum.Trains == 0 || sum.Sleeps == 0 {
				t.Errorf("the boxes counted %+v", sum)
			}
			check(t, w.stop())
		})
	}
}

func TestBoxSaysWhatItLacks(t *testing.T) {
	laboratory(t)
	err := box([]string{"-local", "192.0.2.1:1701", "-remote", "192.0.2.2:1701"}, strings.NewReader(""), os.Stderr)
	if !errors.Is(err, unix.EADDRNOTAVAIL) {
		t.Errorf("got %v", err)
	}
}
