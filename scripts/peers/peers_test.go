//go:build linux

package main

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

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

func needLab(t *testing.T) {
	t.Helper()
	switch {
	case errPrepare != nil && os.Getenv("TWINKEY_NO_SKIP") == "1":
		t.Fatal("needs root:", errPrepare)
	case errPrepare != nil:
		t.Skip("needs root:", errPrepare)
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// For UDP iperf3's sum is the sender's, and sum_received the receiver's: it alone counts.
func TestReceived(t *testing.T) {
	for _, tt := range []struct {
		name, out   string
		bytes, rate float64
		astray      float64
		err         string
	}{
		{"UDP, lost and late", `{"end":{"streams":[{"udp":{"out_of_order":3}}],"sum_received":{"bytes":1000,"seconds":1,"packets":100,"lost_packets":4}}}`, 1000, 1000, 7, ""},
		{"UDP that was lost in part", `{"end":{"sum":{"bytes":27606400,"seconds":2},"sum_sent":{"bytes":27606400,"seconds":2},"sum_received":{"bytes":12876672,"seconds":2.0,"packets":431350}}}`, 12876672, 6438336, 0, ""},
		{"nothing came", `{"end":{"sum_sent":{"bytes":1000,"seconds":2},"sum_received":{"bytes":0,"seconds":2}}}`, 0, 0, 0, "nothing arrived"},
		{"iperf3 gave up", `{"start":{},"end":{},"error":"unable to connect to server: Connection refused"}`, 0, 0, 0, "Connection refused"},
		{"no JSON", "iperf3: error", 0, 0, 0, "reading what iperf3 says"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got transferred
			err := got.received(tt.out)
			if got.bytes != tt.bytes || got.rate != tt.rate || got.lost+got.late != tt.astray || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}

func TestCPUTimes(t *testing.T) {
	const stat = "77 (a ) b) S 1 77 77 0 -1 4194560 100 0 0 0 1250 75 9 9 20 0 6 0 4242 100 200"
	if user, system := cpuTimes(stat); user != 12.5 || system != 0.75 {
		t.Errorf("user %v, system %v", user, system)
	}
	if user, system := cpuTimes("77 (gone"); user != 0 || system != 0 {
		t.Errorf("of a torn line: user %v, system %v", user, system)
	}
}

func TestField(t *testing.T) {
	const status = "Name:\trouter\nVmHWM:\t   20480 kB\nVmRSS:\t 10240 kB\nvoluntary_ctxt_switches:\t12\nnonvoluntary_ctxt_switches:\t3\n"
	for name, want := range map[string]float64{"VmHWM": 20480, "voluntary_ctxt_switches": 12, "nonvoluntary_ctxt_switches": 3, "VmSwap": 0} {
		if got := field(status, name); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

func TestBusy(t *testing.T) {
	const before, after = "cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1 2 3\n", "cpu  120 0 110 760 110 0 0 0 0 0\n"
	if got := busy(before, after); math.Abs(got-0.3) > 1e-9 { // 30 of 100 were neither idle nor waiting
		t.Errorf("%v busy", got)
	}
	if got := busy(before, before); got != 0 {
		t.Errorf("%v busy in no time", got)
	}
}

func TestQuantile(t *testing.T) {
	for _, tt := range []struct {
		v       []float64
		q, want float64
	}{
		{[]float64{3}, 0.5, 3},
		{[]float64{3, 1, 2}, 0.5, 2},
		{[]float64{4, 1, 2, 3}, 0.5, 2.5},
		{[]float64{1, 2, 3, 4, 5}, 0.99, 4.96},
		{[]float64{1, 2}, 1, 2},
	} {
		if got := quantile(tt.v, tt.q); math.Abs(got-tt.want) > 1e-9 {
			t.Errorf("%v of %v: %v, want %v", tt.q, tt.v, got, tt.want)
		}
	}
}

func TestFlags(t *testing.T) {
	for _, tt := range []struct {
		args string
		want string // candidates; scenarios; rounds; or an error
	}{
		{"-only twinkey-aes256gcm,wireguard -scenarios off -rounds 2", "twinkey aes256-gcm, wireguard-go; off; 2"},
		{"-quick", "none, twinkey aes256-gcm, wireguard-go, openvpn aes-256-gcm; on; 1"},
		{"-quick -rounds 3 -only none", "none; on; 3"},
		{"-only none -figures udp64", "none; on; 5"}, // the others do not have it
		{"-only nobody", `no candidate "nobody"`},
		{"-scenarios 10G", `no "10G"`},
		{"-figures tcp9", `no "tcp9"`},
		{"-point cpu", `no "cpu"`},
		{"-seconds 60", "from 1 to 30"},
	} {
		o, err := parse(strings.Fields(tt.args))
		var got string
		if err != nil {
			got = err.Error()
		} else {
			var names, where []string
			for _, c := range chosen(o.only) {
				names = append(names, c.name)
			}
			for _, s := range o.plan() {
				where = append(where, s.name)
			}
			got = fmt.Sprintf("%s; %s; %d", strings.Join(names, ", "), strings.Join(where, ", "), o.rounds)
		}
		if !strings.Contains(got, tt.want) {
			t.Errorf("%s: %s, want %s", tt.args, got, tt.want)
		}
	}
}

// example is a run with known figures.
func example() *results {
	r := &results{Date: "2026-01-02", Machine: "A machine", Rounds: 3, Seconds: 2, Candidates: []string{none, oursBest, ours3DES, wireGuard, openVPN},
		Absent: []string{"nebula: nebula is not installed"}, Failed: []string{"round 1, off, tinc: no ping crosses\n  router0: no key"}, values: map[key][]float64{}}
	for i := range 3 {
		v := float64(i) / 10
		r.add("on", none, figures{"tcp1": 19 + v, "rtt": 10})
		r.add("on", oursBest, figures{"tcp1": 8 + v, "udp64": 120, "rtt": 40, "cpu": 2, "rss": 20})
		r.add("on", wireGuard, figures{"tcp1": 4 + v, "udp64": 60, "rtt": 110, "cpu": 3, "rss": 300})
		r.add("on", openVPN, figures{"tcp1": 1 + v, "udp64": 50, "rtt": 30, "cpu": 15, "rss": 9})
		r.add("100M", oursBest, figures{"use": 94})
		r.add("100M", wireGuard, figures{"use": 93})
	}
	return r
}

func TestAims(t *testing.T) {
	r := example()
	for _, tt := range []struct {
		line int // of the aims
		want outcome
	}{
		{0, outcome{is: 8.1, against: 4.1, peer: wireGuard, ratio: 8.1 / 4.1, measured: true}},
		{1, outcome{}}, // nothing was measured with offload off
		{2, outcome{is: 2, against: 3, peer: wireGuard, ratio: 2. / 3, measured: true}},
		{3, outcome{is: 20, ratio: 20, measured: true, reached: true}},
		{4, outcome{is: 30, against: 20, peer: openVPN, ratio: 1.5, measured: true}}, // without the 10 us of none
		{5, outcome{is: 30, against: 100, peer: wireGuard, ratio: 0.3, measured: true, reached: true}},
		{6, outcome{is: 120, against: 60, peer: wireGuard, ratio: 2, measured: true, reached: true}}, // the best of the peers
		{8, outcome{}}, // 3DES is there and was not measured
	} {
		a := aims()[tt.line]
		if got := a.outcome(r); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s, %s: %+v, want %+v", a.what, a.against, got, tt.want)
		}
	}
}

func TestMarkdown(t *testing.T) {
	got := example().markdown()
	for _, want := range []string{
		"| TCP, one stream | 8.10 | wireguard-go | 4.10 | 1.976 | ≥ 2 | **no** |\n",
		"| memory of a router at full load, MiB | 20.0 |  |  |  | ≤ 64 | yes |\n",
		"| TCP, one stream, 3DES | | | | | ≥ 2 | not measured |\n",
		"| 100 Mbit/s, utilization, aes256-gcm | 94.00 | wireguard-go | 93.00 | 1.011 | ≥ 1 | yes |\n",
		"| none | 19.10 <sub>19.00–19.20</sub> | | 10 <sub>10–10</sub> | | | |\n",
		"| ↓ added to the round trip, us, on | openvpn aes-256-gcm 20 | 1.50 | |\n",
		"    nebula: nebula is not installed\n",
		"    round 1, off, tinc: no ping crosses\n      router0: no key\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("not there: %s", want)
		}
	}
	if t.Failed() {
		t.Log(got)
	}
}

// The chart is well-formed, has a bar for each value, and nothing outside of its frame.
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
	const bars = 4 + 3 + 3 + 3 + 2 // tcp1, udp64, added, cpu, utilization
	if got := strings.Count(svg, "<rect"); got != bars {
		t.Errorf("%d bars, want %d", got, bars)
	}
	for _, bad := range []string{"NaN", "Inf", `="-`} {
		if strings.Contains(svg, bad) {
			t.Errorf("%s in\n%s", bad, svg)
		}
	}
}

func TestSaveLoad(t *testing.T) {
	r, file := example(), filepath.Join(t.TempDir(), "r.json")
	check(t, r.save(file))
	got, err := load(file)
	check(t, err)
	if !reflect.DeepEqual(got, r) {
		t.Errorf("wrote %+v\nread %+v", r, got)
	}
}

// only is a scenario with a few of its figures.
func only(name string, what ...string) scenario {
	for _, s := range scenarios() {
		if s.name == name {
			s.what = what
			return s
		}
	}
	panic("no scenario " + name)
}

// The kernel alone: everything is there that needs no router.
func TestMeasure(t *testing.T) {
	needLab(t)
	for _, p := range []string{"iperf3", "ethtool", "ip", "ping"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("needs %s (make bench-peers-deps)", p)
		}
	}
	for _, sc := range []scenario{only("off", "rtt", "tcp1", "udp64", astray), only("100M", "use")} {
		f, err := measure(t.Context(), chosen([]string{none})[0], sc, 1)
		check(t, err)
		for _, w := range sc.what {
			if v, ok := f[w]; !ok || !(v > 0) && w != astray { // of those we hope for none
				t.Errorf("%s: %s is %v", sc.name, w, f[w])
			}
		}
		if f["use"] > 100 {
			t.Errorf("%v %% of what there is", f["use"])
		}
	}
}

// A candidate that does not come up says why at once, and its processes are gone.
func TestCandidateThatFails(t *testing.T) {
	needLab(t)
	var routers []*router
	bad := candidate{name: "bad", up: func(_ context.Context, s *site) error {
		defer func() { routers = s.procs }()
		return errors.Join(
			s.start(0, "sh", "-c", "echo no key; exit 3"),
			s.start(1, "sh", "-c", "exec sleep 1000"))
	}}
	f, err := measure(t.Context(), bad, only("on", "tcp1"), 1)
	if f != nil || err == nil {
		t.Fatalf("measured %v, %v", f, err)
	}
	for _, want := range []string{"setting up bad", "exit status 3", "router0: no key"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
	if len(routers) != 2 || !errors.Is(routers[1].cmd.Process.Signal(unix.Signal(0)), os.ErrProcessDone) {
		t.Errorf("still running: %v", routers)
	}
}
