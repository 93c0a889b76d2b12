package pmtu_test

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"twinkey/proto/pmtu"
	"twinkey/proto/wire"
)

var start = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// path is a machine, and a network that answers for the far end.
type path struct {
	t       testing.TB
	now     time.Time
	m       *pmtu.Machine
	carries int           // bytes of IP packet; 0: the path is down
	deaf    bool          // the far end answers no probes
	delay   time.Duration // round trip
	lose    func(pmtu.Probe) bool
	busy    bool // data is sent all the time
	late    []answer
	probes  []int // sizes, of all that was sent
}

type answer struct {
	at time.Time
	pmtu.Probe
}

func newPath(t testing.TB, c pmtu.Config, carries int) *path {
	p := &path{t: t, now: start, m: pmtu.New(start, c), carries: carries, delay: 20 * time.Millisecond}
	p.turn()
	return p
}

// turn puts on the wire what the machine has to say.
func (p *path) turn() {
	for {
		probe, ok := p.m.Poll()
		if !ok {
			return
		}
		p.probes = append(p.probes, probe.Size)
		if len(p.probes) > 100_000 {
			p.t.Fatal("probes without end")
		}
		if !p.deaf && probe.Size <= p.carries && (p.lose == nil || !p.lose(probe)) {
			p.reply(answer{p.now.Add(p.delay), probe})
		}
	}
}

// reply has an answer arrive in its time.
func (p *path) reply(a answer) {
	i, _ := slices.BinarySearchFunc(p.late, a, func(x, y answer) int { return cmp.Or(x.at.Compare(y.at), -1) })
	p.late = slices.Insert(p.late, i, a)
}

// pass lets time go by.
func (p *path) pass(d time.Duration) {
	end := p.now.Add(d)
	if p.busy {
		p.m.Sent()
	}
	for turns := 0; p.now.Before(end); turns++ {
		if turns > 1_000_000 {
			p.t.Fatal("the machine wants to be called without end")
		}
		next := end
		if at := p.m.Deadline(); !at.IsZero() && at.Before(next) {
			next = at
			if next.Before(p.now) {
				next = p.now
			}
		}
		if len(p.late) > 0 && !p.late[0].at.After(next) {
			a := p.late[0]
			p.late = p.late[1:]
			p.now = a.at
			p.m.Answer(p.now, a.ID, a.Size)
		} else {
			p.now = next
			p.m.Advance(p.now)
		}
		if p.busy {
			p.m.Sent()
		}
		p.turn()
	}
}

// want demands that the machine stands in a state, with this MTU.
func (p *path) want(s pmtu.State, mtu int) {
	p.t.Helper()
	if p.m.State() != s || p.m.MTU() != mtu {
		p.t.Errorf("after %v: %v, %d bytes; want %v, %d", p.now.Sub(start), p.m.State(), p.m.MTU(), s, mtu)
	}
}

func TestSearch(t *testing.T) {
	v4, v6 := pmtu.For(false, 1500), pmtu.For(true, 1500)
	blocks := v4 // of a cipher: 28 bytes of headers, 40 around the payload
	blocks.Fit = func(size int) int { return (size-68)&^15 + 68 }
	for _, tt := range []struct {
		name      string
		c         pmtu.Config
		carries   int
		within    time.Duration
		state     pmtu.State
		mtu, most int // and how many probes, at most
	}{
		{"Ethernet, two round trips", v4, 1500, 41 * time.Millisecond, pmtu.SearchComplete, 1500, 20},
		{"Ethernet over IPv6", v6, 1500, 41 * time.Millisecond, pmtu.SearchComplete, 1500, 20},
		{"more than is of use", v4, 9000, 41 * time.Millisecond, pmtu.SearchComplete, 1500, 20},
		{"PPPoE is used at once", v4, 1492, 41 * time.Millisecond, pmtu.Searching, 1492, 20},
		{"PPPoE is sure after three rounds", v4, 1492, 4 * time.Second, pmtu.SearchComplete, 1492, 20},
		{"a size that is not in the table", v4, 1399, 4 * time.Second, pmtu.SearchComplete, 1360, 80},
		{"nothing above the base", v4, 1200, 4 * time.Second, pmtu.SearchComplete, 1200, 60},
		{"nothing above the base of IPv6", v6, 1280, 4 * time.Second, pmtu.SearchComplete, 1280, 60},
		{"not even the base", v4, 1000, 6 * time.Second, pmtu.Error, 576, 20},
		{"jumbo where it is of use", pmtu.For(false, 9000), 9000, 41 * time.Millisecond, pmtu.SearchComplete, 9000, 40},
		{"no jumbo on the way", pmtu.For(false, 9000), 1500, 4 * time.Second, pmtu.SearchComplete, 1500, 60},
		{"a cipher of 16 bytes a block", blocks, 1500, 41 * time.Millisecond, pmtu.SearchComplete, 1492, 20},
		{"an older far end, for ever", v4, 0, time.Hour, pmtu.Base, 1500, 500},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPath(t, tt.c, tt.carries)
			p.pass(tt.within)
			p.want(tt.state, tt.mtu)
			if len(p.probes) > tt.most {
				t.Errorf("%d probes: %v", len(p.probes), p.probes)
			}
		})
	}
}

// RFC 8899 section 4.3: a path that carries less than it did swallows what is longer, and no
// router says so. While data flows, the next probe of the PLPMTU finds out.
func TestBlackHole(t *testing.T) {
	for _, tt := range []struct {
		name    string
		c       pmtu.Config
		carries int
		state   pmtu.State
		mtu     int
	}{
		{"1400", pmtu.For(false, 1500), 1400, pmtu.SearchComplete, 1400},
		{"1280 over IPv6", pmtu.For(true, 1500), 1280, pmtu.SearchComplete, 1280},
		{"less than the base", pmtu.For(false, 1500), 600, pmtu.Error, 576},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPath(t, tt.c, 1500)
			p.busy = true
			p.pass(time.Minute)
			p.want(pmtu.SearchComplete, 1500)
			p.carries = tt.carries
			p.pass(15 * time.Second)
			p.want(tt.state, tt.mtu)
			p.carries = 1500
			p.pass(11 * time.Minute) // PMTU_RAISE_TIMER, however often the PLPMTU is confirmed meanwhile
			p.want(pmtu.SearchComplete, 1500)
		})
	}
}

// Nobody asks where nobody sends.
func TestAnIdlePathIsLeftAlone(t *testing.T) {
	p := newPath(t, pmtu.For(false, 1500), 1500)
	p.pass(time.Second)
	n := len(p.probes)
	p.pass(24 * time.Hour)
	if len(p.probes) != n {
		t.Errorf("%d probes in a day without data", len(p.probes)-n)
	}
	p.m.Sent()
	p.pass(time.Second)
	if len(p.probes) != n+1 || p.probes[n] != 1500 {
		t.Errorf("after data: %v", p.probes[n:])
	}
}

// An outage loses probes of all sizes and proves nothing.
func TestAnOutageIsNoBlackHole(t *testing.T) {
	p := newPath(t, pmtu.For(false, 1500), 1500)
	p.busy = true
	p.pass(time.Minute)
	p.carries, p.probes = 0, nil
	for range 60 {
		p.pass(10 * time.Second)
		p.want(pmtu.SearchComplete, 1500)
	}
	if len(p.probes) > 1000 {
		t.Errorf("%d probes into the void", len(p.probes))
	}
	p.carries = 1420 // it comes back by another way
	p.pass(30 * time.Second)
	p.want(pmtu.SearchComplete, 1420)
}

func TestProbesThatAreLostByChance(t *testing.T) {
	p := newPath(t, pmtu.For(false, 1500), 1500)
	n := 0
	p.lose = func(pmtu.Probe) bool { n++; return n%3 != 0 } // two of three
	p.busy = true
	p.pass(20 * time.Second)
	p.lose = nil
	p.pass(11 * time.Minute)
	p.want(pmtu.SearchComplete, 1500)
}

// A round trip of more than PROBE_TIMER: answers to the rounds before count as well.
func TestSlowPath(t *testing.T) {
	p := newPath(t, pmtu.For(false, 1500), 1500)
	p.delay = 2500 * time.Millisecond
	p.pass(30 * time.Second)
	p.want(pmtu.SearchComplete, 1500)
}

func TestHints(t *testing.T) {
	for _, tt := range []struct {
		name         string
		carries, say int
		probes       []int // within the first round trip
		mtu          int   // in the end
	}{
		{"true, and not in the table", 1390, 1390, []int{1390, 1500}, 1390},
		{"true, and without a size", 1400, 0, []int{1500}, 1400},
		{"forged: the probe of the PLPMTU is answered", 1500, 1300, []int{1300, 1500}, 1500},
		{"forged: below the base", 1500, 1199, nil, 1500},
		{"forged: the smallest there is", 1500, 68, nil, 1500},
		{"what is carried anyway", 1500, 1500, nil, 1500},
		{"more than is carried", 1500, 9000, nil, 1500},
		{"negative", 1500, -1, nil, 1500},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPath(t, pmtu.For(false, 1500), 1500)
			p.pass(time.Minute)
			p.carries, p.probes = tt.carries, nil
			p.m.TooBig(p.now, tt.say)
			p.turn()
			p.pass(100 * time.Millisecond)
			slices.Sort(p.probes)
			if !slices.Equal(p.probes, tt.probes) {
				t.Errorf("probes %v, want %v", p.probes, tt.probes)
			}
			p.pass(5 * time.Second)
			p.want(pmtu.SearchComplete, tt.mtu)
		})
	}
}

// Whoever sends forged ICMP has us send no flood.
func TestHintsAreBounded(t *testing.T) {
	p := newPath(t, pmtu.For(false, 1500), 1500)
	p.pass(time.Minute)
	p.probes = nil
	for range 10_000 {
		p.m.TooBig(p.now, 1300)
		p.pass(time.Millisecond)
	}
	if len(p.probes) > 25 {
		t.Errorf("%d probes in 10 s", len(p.probes))
	}
	p.want(pmtu.SearchComplete, 1500)
}

// Forged hints on a path that loses packets do not make its losses look like a narrower path.
func TestForgedHintsOnALossyPath(t *testing.T) {
	narrow := func(forge bool) (below time.Duration) {
		r := rand.New(rand.NewPCG(1, 2))
		p := newPath(t, pmtu.For(false, 1500), 1500)
		p.busy = true
		p.lose = func(pmtu.Probe) bool { return r.Float64() < 0.15 }
		const step = 100 * time.Millisecond
		for p.now.Before(start.Add(4 * time.Hour)) {
			if forge {
				p.m.TooBig(p.now, []int{0, 1280, 1400, 1499}[r.IntN(4)])
			}
			p.turn()
			p.probes = nil
			p.pass(step)
			if p.m.MTU() < 1500 {
				below += step
			}
		}
		return below
	}
	if plain, forged := narrow(false), narrow(true); forged > plain+30*time.Minute {
		t.Errorf("below 1,500 bytes for %v of 4 h, without forged hints for %v", forged, plain)
	}
}

// Another way to the far end: what was known is asked anew, and answers to what went the old way are void.
func TestMoved(t *testing.T) {
	p := newPath(t, pmtu.For(false, 1500), 1500)
	p.pass(time.Second)
	p.carries = 1400
	p.m.Moved(p.now, pmtu.For(false, 1500))
	p.turn()
	p.pass(5 * time.Second)
	p.want(pmtu.SearchComplete, 1400)
	p.carries = 1500
	p.m.Moved(p.now, pmtu.For(true, 1500))
	p.turn()
	p.pass(time.Second)
	p.want(pmtu.SearchComplete, 1500)

	early := pmtu.New(start, pmtu.For(false, 1500))
	probe, _ := early.Poll()
	early.Moved(start, pmtu.For(false, 1500))
	early.Answer(start, probe.ID, probe.Size)
	if early.State() != pmtu.Base {
		t.Error("an answer that went another way counts")
	}
}

// A far end that got less than was sent did not get what was sent; address translators take 20 bytes.
func TestWhatArrived(t *testing.T) {
	for _, tt := range []struct {
		arrived int
		state   pmtu.State
	}{{1200, pmtu.Searching}, {1180, pmtu.Searching}, {1220, pmtu.Searching}, {1179, pmtu.Base}, {0, pmtu.Base}, {-1, pmtu.Base}} {
		m := pmtu.New(start, pmtu.For(false, 1500))
		p, _ := m.Poll()
		m.Answer(start, p.ID, tt.arrived)
		if m.State() != tt.state {
			t.Errorf("%d of 1200 arrived: %v, want %v", tt.arrived, m.State(), tt.state)
		}
	}
}

func TestMessages(t *testing.T) {
	for _, tt := range []struct {
		name, golden string
		b            []byte
		want         pmtu.Message
	}{
		{"probe", "010005dc01020304" + "00000000", pmtu.AppendProbe(nil, pmtu.Probe{ID: 0x01020304, Size: 1500}, 12), pmtu.Message{Type: pmtu.TypeProbe, Size: 1500, ID: 0x01020304}},
		{"answer", "02000578ffffffff", pmtu.AppendAnswer(nil, 0xffffffff, 1400), pmtu.Message{Type: pmtu.TypeAnswer, Size: 1400, ID: 0xffffffff}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := hex.EncodeToString(tt.b); got != tt.golden {
				t.Errorf("%s, want %s", got, tt.golden)
			}
			if m, err := pmtu.Parse(tt.b); err != nil || m != tt.want {
				t.Errorf("%+v, %v", m, err)
			}
			for n := range pmtu.HeaderLen {
				if _, err := pmtu.Parse(tt.b[:n]); !errors.Is(err, wire.ErrTruncated) && n > 0 {
					t.Errorf("its first %d bytes: %v", n, err)
				}
			}
		})
	}
	for _, b := range [][]byte{nil, make([]byte, 8), {3, 0, 0, 0, 0, 0, 0, 0}} {
		if _, err := pmtu.Parse(b); err == nil {
			t.Errorf("%x was read", b)
		}
	}
	if p := pmtu.AppendProbe([]byte{9}, pmtu.Probe{}, 0); len(p) != 1+pmtu.HeaderLen {
		t.Errorf("%d bytes", len(p))
	}
}

func FuzzParse(f *testing.F) {
	f.Add(pmtu.AppendProbe(nil, pmtu.Probe{ID: 7, Size: 1500}, 40))
	f.Add(pmtu.AppendAnswer(nil, 7, 1500))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := pmtu.Parse(b)
		if err != nil {
			return
		}
		again := pmtu.AppendAnswer(nil, m.ID, m.Size)
		if m.Type == pmtu.TypeProbe {
			again = pmtu.AppendProbe(nil, pmtu.Probe{ID: m.ID, Size: m.Size}, len(b))
		}
		if b[1] = 0; !bytes.Equal(again[:pmtu.HeaderLen], b[:pmtu.HeaderLen]) {
			t.Errorf("%x became %x", b, again)
		}
	})
}

// FuzzMachine has the network do whatever the script says: change what it carries, lose, delay, double,
// lie. The MTU stays within bounds, and in fair weather it becomes what the path carries: the next
// smaller size of the table, or one between that somebody named.
func FuzzMachine(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, uint16(1500), false)
	f.Add(bytes.Repeat([]byte{3, 200, 4, 7, 5}, 20), uint16(1333), true)
	f.Add(bytes.Repeat([]byte{2, 9, 6, 0, 250, 1}, 20), uint16(700), false)
	f.Fuzz(func(t *testing.T, script []byte, fair uint16, v6 bool) {
		c := pmtu.For(v6, 1500)
		if len(script) > 0 && script[0]&1 == 1 {
			c.Fit = func(size int) int { return (size-68)&^15 + 68 }
		}
		p := newPath(t, c, 1500)
		p.busy = true
		for i, b := range script[:min(len(script), 300)] {
			switch v := int(b >> 3); b & 7 {
			case 0:
				p.pass(time.Duration(v*v) * 100 * time.Millisecond)
			case 1:
				p.carries = 500 + v*40
			case 2:
				p.carries = 0
			case 3:
				p.m.TooBig(p.now, v*60)
			case 4:
				n := 0
				p.lose = func(pmtu.Probe) bool { n++; return n%(v+1) == 0 }
			case 5:
				p.m.Answer(p.now, uint32(v*i), 1500) //nolint:gosec // any
			case 6:
				p.delay = time.Duration(v*v) * 5 * time.Millisecond
			case 7:
				if len(p.late) > 0 {
					p.reply(p.late[0])
				}
			}
			p.turn()
			if mtu := p.m.MTU(); mtu < 560 || mtu > 1500 {
				t.Fatalf("MTU %d", mtu)
			}
		}
		p.lose, p.delay = nil, time.Millisecond
		p.carries = min(1500, max(int(fair), c.Min))
		p.probes = nil
		p.pass(30 * time.Minute)
		fit := func(n int) int {
			if c.Fit != nil {
				n = c.Fit(n)
			}
			return n
		}
		least := 0
		for _, size := range []int{c.Min, c.Base, 1280, 1360, 1400, 1420, 1452, 1472, 1492, 1500} {
			if size = fit(size); size <= p.carries {
				least = max(least, size)
			}
		}
		if mtu := p.m.MTU(); mtu > p.carries || mtu < least {
			t.Errorf("%v, MTU %d on a path of %d, want at least %d", p.m.State(), mtu, p.carries, least)
		}
		if len(p.probes) > 2000 {
			t.Errorf("%d probes in half an hour", len(p.probes))
		}
	})
}
