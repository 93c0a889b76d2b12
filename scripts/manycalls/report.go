package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// promised is how long a revocation may take, at the 99th percentile.
const promised = time.Second

// sample is what one round has found.
type sample struct {
	TCP1       float64 `json:"tcp1_gbits"`      // one stream through the first call
	TCP        float64 `json:"tcp_gbits"`       // all streams through all calls
	UDP        float64 `json:"udp_gbits"`       // as it was received
	CPU        float64 `json:"cpu_s_per_gb"`    // of both routers, TCP
	NearLogin  float64 `json:"near_login_mib"`  // the most that the logins took where the users are: Argon2id
	NearIdle   float64 `json:"near_idle_mib"`   // resident memory of the router where the users are, before the first load
	FarIdle    float64 `json:"far_idle_mib"`    // of the other
	NearLoaded float64 `json:"near_loaded_mib"` // the most, TCP or UDP
	FarLoaded  float64 `json:"far_loaded_mib"`
}

// row is one number of calls.
type row struct {
	Calls   int      `json:"calls"`
	Tunnels int      `json:"tunnels"`
	Samples []sample `json:"samples"`
	// Revoked is how long each of some users' revocation took, ms.
	Revoked []float64 `json:"revoked_ms,omitempty"`
}

func (r *row) name() string {
	calls := fmt.Sprintf("%d calls", r.Calls)
	if r.Calls == 1 {
		calls = "1 call"
	}
	if r.Tunnels == 1 {
		return calls + " in 1 tunnel"
	}
	return fmt.Sprintf("%s in %d tunnels", calls, r.Tunnels)
}

// report is what a run has found.
type report struct {
	Machine string  `json:"machine"`
	Rounds  int     `json:"rounds"`
	Seconds float64 `json:"seconds"` // of each kind of traffic
	Flows   int     `json:"flows"`   // streams of TCP, and sockets of UDP, in every row
	Rows    []*row  `json:"rows"`
	Setup   *setup  `json:"setup,omitempty"`
}

// setup is how long the logins of a number of users took, seconds a round.
type setup struct {
	Users int       `json:"users"`
	Whole []float64 `json:"whole_s"` // until every call was up
	// Argon is Argon2id alone in the same round: as many passwords of the same cost, by as many cores.
	Argon []float64 `json:"argon2id_s"`
}

// column is a figure of the table.
type column struct {
	name   string
	digits int
	of     func(sample) float64
}

var columns = []column{
	{"TCP, one stream, Gbit/s", 2, func(s sample) float64 { return s.TCP1 }},
	{"TCP, all streams, Gbit/s", 2, func(s sample) float64 { return s.TCP }},
	{"UDP 1,300 B, Gbit/s", 2, func(s sample) float64 { return s.UDP }},
	{"CPU s/GB, TCP, both", 2, func(s sample) float64 { return s.CPU }},
	{"ra at logins, MiB", 0, func(s sample) float64 { return s.NearLogin }},
	{"ra idle, MiB", 1, func(s sample) float64 { return s.NearIdle }},
	{"rb idle, MiB", 1, func(s sample) float64 { return s.FarIdle }},
	{"ra loaded, MiB", 1, func(s sample) float64 { return s.NearLoaded }},
	{"rb loaded, MiB", 1, func(s sample) float64 { return s.FarLoaded }},
}

// spread is the median, the least and the largest of some figures.
type spread struct{ median, min, max float64 }

func (r *row) spread(of func(sample) float64) spread {
	v := make([]float64, 0, len(r.Samples))
	for _, s := range r.Samples {
		v = append(v, of(s))
	}
	return spreadOf(v)
}

func spreadOf(v []float64) spread {
	if len(v) == 0 {
		return spread{math.NaN(), math.NaN(), math.NaN()}
	}
	v = slices.Sorted(slices.Values(v))
	return spread{(v[(len(v)-1)/2] + v[len(v)/2]) / 2, v[0], v[len(v)-1]}
}

func (r *row) cells() []string {
	cells := []string{r.name()}
	for _, c := range columns {
		s := r.spread(c.of)
		cells = append(cells, fmt.Sprintf("%.*f (%.*f-%.*f)", c.digits, s.median, c.digits, s.min, c.digits, s.max))
	}
	return cells
}

// table is for a terminal.
func (r report) table() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, c := range columns {
		fmt.Fprintf(w, "\t%s", c.name)
	}
	fmt.Fprintln(w)
	for _, row := range r.Rows {
		fmt.Fprintln(w, strings.Join(row.cells(), "\t"))
	}
	_ = w.Flush() // a Builder takes everything
	return b.String() + r.ratios() + r.revocations() + r.setup()
}

// markdown is for the documentation.
func (r report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Many calls\n\nWritten by `make bench-calls` (see `scripts/manycalls`): two routers, traffic from hosta to hostb. Every call has an SA pair of its own, which was checked at both ends.\n\n"+
		"%s, which both routers and both hosts share. Medians of %d rounds of %g s each, all rows in turn, with minimum and maximum.\n\n"+
		"![throughput and memory against the number of calls](calls.svg)\n\n|", r.Machine, r.Rounds, r.Seconds)
	for _, c := range columns {
		fmt.Fprintf(&b, " | %s", c.name)
	}
	b.WriteString(" |\n|---" + strings.Repeat("|---", len(columns)) + "|\n")
	for _, row := range r.Rows {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(row.cells(), " | "))
	}
	fmt.Fprintf(&b, "\nThe flows are the same in every row, %d of TCP and %d of UDP, spread over the calls there are: what differs is the number of calls. "+
		"One stream goes through one of the calls while the others are up. UDP is offered as fast as one thread can send, a datagram of each flow in turn, and counted where it arrives. "+
		"Memory is resident: at logins the peak of ra, as many Argon2id at a time as there are cores; idle some time later, before the first packet; loaded the most that was seen.\n", r.Flows, r.Flows)
	b.WriteString(r.ratios())
	b.WriteString(r.revocations())
	b.WriteString(r.setup())
	return b.String()
}

// ratios compares the rows with one call.
func (r report) ratios() string {
	var one *row
	for _, row := range r.Rows {
		if row.Calls == 1 {
			one = row
		}
	}
	if one == nil {
		return ""
	}
	var b strings.Builder
	b.WriteString("\n## Beside one call\n\nThroughput as ratios of the medians; memory as what each further call takes while idle, KiB.\n\n" +
		"| | TCP, one stream | TCP, all streams | UDP | ra, KiB a call | rb, KiB a call |\n|---|---|---|---|---|---|\n")
	for _, row := range r.Rows {
		if row == one {
			continue
		}
		fmt.Fprintf(&b, "| %s", row.name())
		for _, of := range []func(sample) float64{func(s sample) float64 { return s.TCP1 }, func(s sample) float64 { return s.TCP }, func(s sample) float64 { return s.UDP }} {
			fmt.Fprintf(&b, " | %.2f", row.spread(of).median/one.spread(of).median)
		}
		for _, of := range []func(sample) float64{func(s sample) float64 { return s.NearIdle }, func(s sample) float64 { return s.FarIdle }} {
			const kib = 1 << 10 // in a MiB
			fmt.Fprintf(&b, " | %.1f", (row.spread(of).median-one.spread(of).median)*kib/float64(row.Calls-one.Calls))
		}
		b.WriteString(" |\n")
	}
	return b.String()
}

// revocations is the table of them.
func (r report) revocations() string {
	var b strings.Builder
	for _, row := range r.Rows {
		if len(row.Revoked) == 0 {
			continue
		}
		if b.Len() == 0 {
			b.WriteString("\n## Revocation\n\nUsers revoked one after another: from the start of `twinkey-ca user revoke`, the program included, until the call is down at both " +
				"routers and the last packet has arrived: they send all the time, and go on. All other calls were there before and afterwards with the same SPIs.\n\n| | users | median, ms | 99th percentile, ms | most, ms |\n|---|---|---|---|---|\n")
		}
		v := slices.Sorted(slices.Values(row.Revoked))
		fmt.Fprintf(&b, "| %s | %d | %.0f | %.0f | %.0f |\n", row.name(), len(v), v[len(v)/2], percentile99(v), v[len(v)-1])
	}
	return b.String()
}

// percentile99 is the 99th percentile of sorted values.
func percentile99(v []float64) float64 { return v[(len(v)*99+99)/100-1] }

// late says that revocations took longer than they may.
func (r report) late() error {
	var errs []error
	for _, row := range r.Rows {
		if len(row.Revoked) == 0 {
			continue
		}
		if p := percentile99(slices.Sorted(slices.Values(row.Revoked))); p >= float64(promised.Milliseconds()) {
			errs = append(errs, fmt.Errorf("%s: a revocation takes %.0f ms at the 99th percentile, and may take %s", row.name(), p, promised))
		}
	}
	return errors.Join(errs...)
}

// rates are calls a second: as it was, and with Argon2id aside. What took no longer than Argon2id alone, on a machine that was
// busy with other things, tells nothing: NaN.
func (s *setup) rates() (whole, aside []float64) {
	for i := range s.Whole {
		whole = append(whole, float64(s.Users)/s.Whole[i])
		rest := s.Whole[i] - s.Argon[i]
		if rest <= 0 {
			rest = math.NaN()
		}
		aside = append(aside, float64(s.Users)/rest)
	}
	return whole, aside
}

// setup is the section on logins.
func (r report) setup() string {
	if r.Setup == nil {
		return ""
	}
	whole, aside := r.Setup.rates()
	w, a, t := spreadOf(whole), spreadOf(aside), spreadOf(r.Setup.Argon)
	return fmt.Sprintf("\n## Call set-up\n\n%d users log in at one router, %d at a time, each to a call in the same tunnel, until the last call is up: the control socket, both requests to the directory with its audit record "+
		"on the disk, Argon2id, opening the keys, the call with both ends' checks of certificates and four SAs. CA, directory, both routers and whoever asks share the cores. "+
		"A password costs 8 MiB and one pass of Argon2id here, the least that is taken; the same number of them was stretched by itself in the same round.\n\n"+
		"| | median | min-max |\n|---|---|---|\n| calls a second, Argon2id included | %.0f | %.0f-%.0f |\n| Argon2id alone, s for all | %.2f | %.2f-%.2f |\n| calls a second, Argon2id aside | %.0f | %.0f-%.0f |\n",
		r.Setup.Users, atOnce, w.median, w.min, w.max, t.median, t.min, t.max, a.median, a.min, a.max)
}

// machine says on what it was measured.
func machine() string {
	model := runtime.GOARCH
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	return fmt.Sprintf("%s, %d cores", model, runtime.NumCPU())
}
