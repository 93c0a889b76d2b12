//go:build linux

package main

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"twinkey/pkg/netlab"
	"twinkey/scripts/lab"
)

var errPrepare error

func TestMain(m *testing.M) {
	errPrepare = lab.Prepare()
	if errPrepare != nil && !errors.Is(errPrepare, netlab.ErrPrivileges) {
		fmt.Fprintln(os.Stderr, errPrepare)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// ends are both routers' views of two users in one tunnel, as they should be; change spoils them.
func ends(change func(a, b *status)) (a, b status) {
	type tunnels = []struct {
		Group string `json:"group"`
		State string `json:"state"`
		Calls int    `json:"calls"`
	}
	type calls = []struct {
		Kind      string `json:"kind"`
		User      string `json:"user"`
		State     string `json:"state"`
		SPIIn     string `json:"spi_in"`
		SPIOut    string `json:"spi_out"`
		RxPackets uint64 `json:"rx_packets"`
		TxPackets uint64 `json:"tx_packets"`
	}
	a = status{
		Tunnels: tunnels{{"", "up", 1}, {"g", "up", 2}}, // the first is that of the site link
		Calls:   calls{{"site", "", "up", "0x01", "0x02", 0, 0}, {"user", "u1", "up", "0x03", "0x04", 3, 3}, {"user", "u2", "up", "0x05", "0x06", 3, 3}},
	}
	b = status{
		Tunnels: tunnels{{"", "up", 1}, {"g", "up", 2}},
		Calls:   calls{{"site", "", "up", "0x02", "0x01", 0, 0}, {"user", "u1", "up", "0x04", "0x03", 3, 3}, {"user", "u2", "up", "0x06", "0x05", 3, 3}},
	}
	change(&a, &b)
	return a, b
}

func TestEachCallHasItsOwnSAPair(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(a, b *status)
		want   string
	}{
		{"as it should be", func(_, _ *status) {}, ""},
		{"a user without a call", func(a, _ *status) { a.Calls = a.Calls[:2] }, "1 users have calls, not 2"},
		{"two calls with one SA", func(_, b *status) { b.Calls[2].SPIIn = b.Calls[1].SPIIn }, "share SPI in 0x04"},
		{"a call with the site link's SA", func(a, _ *status) { a.Calls[2].SPIOut = a.Calls[0].SPIOut }, "share SPI out 0x02"},
		{"ends that do not fit", func(a, _ *status) { a.Calls[1].SPIOut = "0x07" }, "u1 has the SPIs"},
		{"a call that nothing went through", func(a, _ *status) { a.Calls[1].TxPackets = 0 }, "sent 0"},
		{"a second tunnel", func(a, _ *status) { a.Tunnels = append(a.Tunnels, a.Tunnels[1]) }, "2 tunnels of groups, not 1"},
		{"a tunnel that is not up", func(_, b *status) { b.Tunnels[1].State = "setting up" }, "0 tunnels of groups, not 1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, b := ends(tt.change)
			err := checkPairs(a, b, 2, 1)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestNumbers(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want []int
	}{
		{"1,100,1000", []int{1, 100, 1000}},
		{"", []int{}}, // none of this kind
		{"0", nil},
		{"10001", nil},
		{"many", nil},
	} {
		var got []int
		err := numbers(&got)(tt.in)
		if (err == nil) != (tt.want != nil) || err == nil && !slices.Equal(got, tt.want) {
			t.Errorf("%q: %v, %v", tt.in, got, err)
		}
	}
}

// example is a report with known figures.
func example() report {
	at := func(v float64) sample { return sample{2 * v, v, v / 4, 1.5, 50 * v, 20 * v, 10 * v, 30 * v, 15 * v} }
	return report{Machine: "A machine", Rounds: 3, Seconds: 2, Flows: 1000, Setup: &setup{Users: 1000, Whole: []float64{5, 4, 8}, Argon: []float64{3, 2, 3}}, Rows: []*row{
		{Calls: 1, Tunnels: 1, Samples: []sample{at(3), at(1), at(2)}},
		{Calls: 1000, Tunnels: 1, Samples: []sample{at(2)}, Revoked: []float64{30, 10, 20, 100}},
		{Calls: 100, Tunnels: 100, Samples: []sample{at(2.5)}},
	}}
}

func TestMarkdown(t *testing.T) {
	const want = "| 1 call in 1 tunnel | 4.00 (2.00-6.00) | 2.00 (1.00-3.00) | 0.50 (0.25-0.75) | 1.50 (1.50-1.50) | 100 (50-150) | 40.0 (20.0-60.0) | 20.0 (10.0-30.0) | 60.0 (30.0-90.0) | 30.0 (15.0-45.0) |\n" +
		"| 1000 calls in 1 tunnel |"
	if got := example().markdown(); !strings.Contains(got, want) || !strings.Contains(got, "| 100 calls in 100 tunnels | 1.25 | 1.25 | 1.25 | 103.4 | 51.7 |\n") {
		t.Errorf("got\n%s\nwant in it\n%s", got, want)
	}
}

// The chart is well-formed, shows every figure of every row, and nothing outside of its frame.
func TestChart(t *testing.T) {
	svg := example().chart()
	d := xml.NewDecoder(strings.NewReader(svg))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if got, want := strings.Count(svg, "<circle"), 3*(len(panels[0].lines)+len(panels[1].lines)); got != want {
		t.Errorf("%d points, want %d", got, want)
	}
	for _, bad := range []string{"NaN", "Inf", `="-`} {
		if strings.Contains(svg, bad) {
			t.Errorf("%s in\n%s", bad, svg)
		}
	}
}

func TestTicks(t *testing.T) {
	for _, tt := range []struct{ top, want float64 }{{1, 0.2}, {7.5, 1}, {9.5, 2}, {19, 5}, {64, 10}, {335, 50}, {0, 1}} {
		if got := tick(tt.top); got != tt.want {
			t.Errorf("up to %g in steps of %g, want %g", tt.top, got, tt.want)
		}
	}
}

// A small company: three users in one tunnel, all kinds of traffic arrive, more flows than users, memory is told.
func TestMeasure(t *testing.T) {
	s := company(t, 3, 1)
	got, err := s.measure(t.Context(), 100*time.Millisecond, 7)
	check(t, err)
	for _, c := range columns {
		if !(c.of(got) > 0) && c.digits != 2 { // a fast machine may need no hundredth of a second
			t.Errorf("%s: %v", c.name, c.of(got))
		}
	}
	if got.TCP1 <= 0 || got.TCP <= 0 || got.UDP <= 0 {
		t.Errorf("throughput: %+v", got)
	}
}

// Some are revoked, their calls end at both ends, and the others' do not.
func TestRevoke(t *testing.T) {
	s := company(t, 3, 1)
	ms, err := s.revoke(t.Context(), 2)
	check(t, err)
	t.Logf("took %v ms", ms)
	// On a machine that does other things besides, one of the two may wait for it.
	if len(ms) != 2 || !(slices.Min(ms) > 0) || slices.Min(ms) >= float64(promised.Milliseconds()) || slices.Max(ms) >= 2*float64(promised.Milliseconds()) {
		t.Errorf("took %v ms", ms)
	}
	st, err := s.status(t.Context(), s.siteB)
	check(t, err)
	if left := st.users(); len(left) != 1 || left[userName(0)] == (pair{}) {
		t.Errorf("left: %v", left)
	}
}

func TestRevocations(t *testing.T) {
	const want = "| 1000 calls in 1 tunnel | 4 | 30 | 100 | 100 |\n"
	if got := example().markdown(); !strings.Contains(got, want) {
		t.Errorf("no %q in\n%s", want, got)
	}
}

// Revocations that take too long are a failure, and a single one of a hundred is none.
func TestLateRevocations(t *testing.T) {
	took := func(n int, ms float64) []float64 {
		v := slices.Repeat([]float64{50}, 100-n)
		return append(slices.Repeat([]float64{ms}, n), v...)
	}
	for _, tt := range []struct {
		took []float64
		late bool
	}{{nil, false}, {took(0, 0), false}, {took(1, 5000), false}, {took(2, 1000), true}, {took(2, 999), false}, {took(100, 5000), true}} {
		r := report{Rows: []*row{{Calls: 1000, Tunnels: 1, Revoked: tt.took}}}
		if err := r.late(); (err != nil) != tt.late {
			t.Errorf("%v: %v", tt.took, err)
		}
	}
}

// A user who sends is heard, and until when.
func TestChatter(t *testing.T) {
	s := company(t, 2, 1)
	c, err := s.hear()
	check(t, err)
	talking, stop := context.WithCancel(t.Context())
	defer stop()
	check(t, c.talk(talking, s.addresses[0]))
	first := c.heard(s.addresses[0])
	check(t, lab.Until(t.Context(), "another datagram", checkTime, func(context.Context) error {
		if !c.heard(s.addresses[0]).After(first) {
			return errors.New("it is the first")
		}
		return nil
	}))
	if at := c.heard(s.addresses[1]); !at.IsZero() {
		t.Errorf("the other one was heard at %s", at)
	}
	stop()
	check(t, c.close())
}

func TestSetupRates(t *testing.T) {
	r := example()
	_ = r.table() // what is written twice is the same
	got := r.markdown()
	for _, want := range []string{"| calls a second, Argon2id included | 200 | 125-250 |\n", "| Argon2id alone, s for all | 3.00 | 2.00-3.00 |\n", "| calls a second, Argon2id aside | 500 | 200-500 |\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

// Some users log in all at once, are logged out, and log in again.
func TestSetup(t *testing.T) {
	privileged(t)
	got, err := measureSetup(t.Context(), 5, 2, t.Logf)
	check(t, err)
	if len(got.Whole) != 2 || len(got.Argon) != 2 {
		t.Fatalf("%+v", got)
	}
	for i := range got.Whole {
		if got.Argon[i] <= 0 || got.Whole[i] <= 0 {
			t.Errorf("round %d: %v s, Argon2id alone %v s", i+1, got.Whole[i], got.Argon[i])
		}
	}
}

func TestTunnelsByGroup(t *testing.T) {
	s := company(t, 2, 2)
	a, err := s.status(t.Context(), s.siteA)
	check(t, err)
	if got := len(a.Tunnels); got != 3 {
		t.Errorf("%d tunnels for two groups and the site link", got)
	}
}

func privileged(t *testing.T) {
	t.Helper()
	switch {
	case errPrepare != nil && os.Getenv("TWINKEY_NO_SKIP") == "1":
		t.Fatal("needs root:", errPrepare)
	case errPrepare != nil:
		t.Skip("needs root:", errPrepare)
	}
}

func company(t *testing.T, users, groups int) *set {
	t.Helper()
	privileged(t)
	s, err := newSet(t.Context(), users, groups, t.Logf)
	if s != nil {
		t.Cleanup(func() { check(t, s.Close()) })
	}
	check(t, err)
	return s
}
