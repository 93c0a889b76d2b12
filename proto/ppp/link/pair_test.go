package link_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"twinkey/proto/ppp"
	"twinkey/proto/ppp/link"
)

// weather is what a path does to frames.
type weather struct {
	loss, dup float64
	jitter    time.Duration // added to a delay of 1 ms: beyond 0 frames overtake each other
	until     time.Duration // after which the path is fair
}

// world is two links on a path, with one clock.
type world struct {
	t       *testing.T
	now     time.Time
	rand    *rand.Rand
	path    weather
	ends    [2]*link.Link
	events  [2][]string
	flying  []flight
	sent    int
	capture [][]byte
}

type flight struct {
	at    time.Time
	to    int
	frame []byte
}

func newWorld(t *testing.T, seed uint64, path weather, a, b link.Config) *world {
	t.Helper()
	a.Rand, b.Rand = seeded(2*seed), seeded(2*seed+1)
	return &world{t: t, now: start, rand: rand.New(rand.NewPCG(seed, 1)), path: path, ends: [2]*link.Link{link.New(a), link.New(b)}}
}

func (w *world) poll() {
	for i, l := range w.ends {
		for {
			o, ok := l.Poll()
			if !ok {
				break
			}
			if o.Frame == nil {
				w.events[i] = append(w.events[i], eventString(o.Event))
				continue
			}
			w.sent++
			w.capture = append(w.capture, o.Frame)
			w.throw(1-i, o.Frame)
		}
	}
}

// throw puts a frame on the path.
func (w *world) throw(to int, frame []byte) {
	p := w.path
	if w.now.Sub(start) >= p.until {
		p = weather{}
	}
	copies := 1
	if w.rand.Float64() < p.loss {
		copies = 0
	} else if w.rand.Float64() < p.dup {
		copies = 2
	}
	for range copies {
		at := w.now.Add(time.Millisecond)
		if p.jitter > 0 {
			at = at.Add(time.Duration(w.rand.Int64N(int64(p.jitter))))
		}
		w.flying = append(w.flying, flight{at, to, frame})
	}
}

// run lets the world go on for d.
func (w *world) run(d time.Duration) {
	end := w.now.Add(d)
	for range 100000 {
		w.poll()
		next := end
		for _, f := range w.flying {
			if f.at.Before(next) {
				next = f.at
			}
		}
		for _, l := range w.ends {
			if at := l.Deadline(); !at.IsZero() && at.Before(next) {
				next = at
			}
		}
		if !next.Before(end) {
			w.now = end
			return
		}
		w.now = latest(w.now, next)
		for i := 0; i < len(w.flying); i++ {
			if f := w.flying[i]; !f.at.After(w.now) {
				w.flying = slices.Delete(w.flying, i, i+1)
				_ = w.ends[f.to].Receive(w.now, f.frame) // stale and early ones are dropped
				break
			}
		}
		for _, l := range w.ends {
			l.Advance(w.now)
		}
	}
	w.t.Fatalf("no rest after %v, %d frames: % x", w.now.Sub(start), len(w.capture), w.capture[max(0, len(w.capture)-8):])
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (w *world) happened(i int, want ...string) {
	w.t.Helper()
	if got := strings.Join(w.events[i], "; "); got != strings.Join(want, "; ") {
		w.t.Errorf("end %d: %s\nwant   %s", i, got, strings.Join(want, "; "))
	}
	w.events[i] = nil
}

// last is the last event of its kind: is the protocol up or down at the end of it all?
func (w *world) last(i int, prefix string) string {
	for _, e := range slices.Backward(w.events[i]) {
		if strings.HasPrefix(e, prefix) {
			return e
		}
	}
	return ""
}

func site(local string, mru uint16) link.Config {
	return link.Config{
		MRU: mru, PFC: true, ACFC: true, EchoInterval: 10 * time.Second,
		IPv4:   &link.IPv4Config{Local: addr(local), Allow: netip.Addr.IsPrivate},
		IPv6:   &link.IPv6Config{},
		Method: lz,
	}
}

func TestTwoLinksOpen(t *testing.T) {
	for _, simultaneous := range []bool{true, false} {
		w := newWorld(t, 1, weather{}, site("10.0.0.1", 1400), site("10.0.0.2", 1380))
		w.ends[0].Up(w.now)
		if !simultaneous {
			w.run(time.Second) // the first request meets a link that is still Dead
		}
		w.ends[1].Up(w.now)
		w.run(5 * time.Second)
		if got := w.last(0, "IPv4"); got != "IPv4Up 10.0.0.1 10.0.0.2" {
			t.Errorf("end 0: %s", got)
		}
		if got := w.last(1, "IPv4"); got != "IPv4Up 10.0.0.2 10.0.0.1" {
			t.Errorf("end 1: %s", got)
		}
		if a, b := strings.Fields(w.last(0, "IPv6")), strings.Fields(w.last(1, "IPv6")); len(a) != 3 || len(b) != 3 || a[1] != b[2] || a[2] != b[1] {
			t.Errorf("IPv6: %q and %q", a, b)
		}
		if w.ends[0].PeerMRU() != 1380 || w.ends[1].PeerMRU() != 1400 {
			t.Errorf("PeerMRU %d and %d", w.ends[0].PeerMRU(), w.ends[1].PeerMRU())
		}
		if got := w.ends[0].AppendPrefix(nil, ppp.ProtoIPv4); len(got) != 1 {
			t.Errorf("prefix % x", got)
		}
		if simultaneous && w.sent != 16 {
			t.Errorf("%d frames, four requests and four acknowledgements each way are enough", w.sent)
		}
		w.events = [2][]string{}
		w.run(time.Hour) // echoes pass, nothing happens
		w.happened(0)
		w.happened(1)
		w.ends[0].Close(w.now, "over")
		w.run(10 * time.Second)
		w.happened(0, "IPv4Down", "IPv6Down", "CCPDown", `Down closed "over"`)
		w.happened(1, "IPv4Down", "IPv6Down", "CCPDown", `Down closed by peer "over"`)
	}
}

// Whatever the path does for a minute, the links find each other afterwards, and every Up
// has its Down.
func TestBadWeather(t *testing.T) {
	frames := 0
	for seed := range uint64(200) {
		path := weather{loss: 0.3, dup: 0.3, jitter: 4 * time.Second, until: time.Minute}
		a, b := site("10.0.0.1", 1400), site("10.0.0.2", 1400)
		a.MaxConfigure, b.MaxConfigure = 60, 60
		a.EchoInterval, b.EchoInterval = 0, 0
		w := newWorld(t, seed, path, a, b)
		w.ends[0].Up(w.now)
		w.ends[1].Up(w.now)
		w.run(3 * time.Minute)
		frames += w.sent
		for i, want := range []string{"IPv4Up 10.0.0.1 10.0.0.2", "IPv4Up 10.0.0.2 10.0.0.1"} {
			if got := w.last(i, "IPv4"); got != want {
				t.Errorf("seed %d: end %d: %q, want %q", seed, i, got, want)
			}
			if got := w.last(i, "IPv6"); !strings.HasPrefix(got, "IPv6Up fe80::") {
				t.Errorf("seed %d: end %d: %q", seed, i, got)
			}
			paired(t, w.events[i])
		}
	}
	t.Logf("%d frames, 3200 in fair weather", frames)
	if frames < 2*3200 {
		t.Error("that was no bad weather")
	}
}

// Duplicates and nothing else: no protocol that is up ever goes down.
func TestDuplicatesDoNotFlap(t *testing.T) {
	for seed := range uint64(50) {
		w := newWorld(t, seed, weather{dup: 1, until: time.Hour}, site("10.0.0.1", 1400), site("10.0.0.2", 1400))
		w.ends[0].Up(w.now)
		w.ends[1].Up(w.now)
		w.run(30 * time.Second)
		for i := range w.events {
			if len(w.events[i]) != 4 {
				t.Errorf("seed %d: end %d: %q", seed, i, w.events[i])
			}
		}
	}
}

// paired checks the promise of EventKind: each Up before its Down, none twice.
func paired(t *testing.T, events []string) {
	t.Helper()
	up := map[string]bool{}
	for _, e := range events {
		kind, _, _ := strings.Cut(e, " ")
		proto, isUp := strings.CutSuffix(kind, "Up")
		switch {
		case proto == "LCP":
		case kind == "Down":
			if up["IPv4"] || up["IPv6"] || up["CCP"] {
				t.Errorf("down with a network protocol up: %q", events)
			}
		case isUp == up[strings.TrimSuffix(proto, "Down")]:
			t.Errorf("%s out of turn: %q", e, events)
		default:
			up[strings.TrimSuffix(proto, "Down")] = isUp
		}
	}
}

func TestSilentPeerIsNoticed(t *testing.T) {
	w := newWorld(t, 1, weather{}, site("10.0.0.1", 1400), site("10.0.0.2", 1400))
	w.ends[0].Up(w.now)
	w.ends[1].Up(w.now)
	w.run(5 * time.Second)
	w.path, w.events = weather{loss: 1, until: 1 << 60}, [2][]string{}
	w.run(30 * time.Second)
	w.happened(0)
	w.run(17 * time.Second)
	w.happened(0, "IPv4Down", "IPv6Down", "CCPDown", `Down peer silent "no echo"`)
}

// FuzzLink feeds a live pair random frames, ticks, losses and duplicates.
func FuzzLink(f *testing.F) {
	f.Add(uint64(1), []byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10})
	f.Add(uint64(2), []byte{3, 0xc0, 0x21, 1, 1, 0, 8, 1, 4, 5, 0xdc, 0, 0, 0})
	f.Add(uint64(3), []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11, 8, 0x80, 0x21, 5, 1, 0, 4, 0, 0})
	f.Fuzz(func(t *testing.T, seed uint64, script []byte) {
		w := newWorld(t, seed, weather{}, site("10.0.0.1", 1400), site("10.0.0.2", 1400))
		w.ends[0].Up(w.now)
		w.ends[1].Up(w.now)
		all := [2][]string{}
		for len(script) > 0 {
			op := script[0]
			script = script[1:]
			w.sent = 0
			w.poll()
			if w.sent > 16 {
				t.Fatalf("%d frames after one step", w.sent)
			}
			script = w.play(op, script)
			for i := range all {
				all[i] = append(all[i], w.events[i]...)
			}
			w.events = [2][]string{}
		}
		w.poll()
		for i := range all {
			paired(t, append(all[i], w.events[i]...))
			w.ends[i].Down(w.now)
			if !w.ends[i].Deadline().IsZero() {
				t.Fatal("a dead link waits")
			}
		}
	})
}

// play does one step of a fuzzed script and returns the rest of it.
func (w *world) play(op byte, rest []byte) []byte {
	l := w.ends[op>>7]
	switch op & 15 {
	case 0, 1, 2:
		w.run(2 * time.Millisecond)
	case 3, 8: // a frame out of nowhere
		n := min(int(op>>4&7)*4+4, len(rest))
		_ = l.Receive(w.now, rest[:n])
		return rest[n:]
	case 4: // a frame that was sent, again and bent
		if len(w.capture) > 0 && len(rest) > 1 {
			frame := slices.Clone(w.capture[int(rest[0])%len(w.capture)])
			frame[int(rest[1])%len(frame)] ^= 1 << (op >> 4 & 7)
			_ = l.Receive(w.now, frame)
			return rest[2:]
		}
	case 5: // a frame that was sent, again
		if len(w.capture) > 0 && len(rest) > 0 {
			_ = l.Receive(w.now, w.capture[int(rest[0])%len(w.capture)])
			return rest[1:]
		}
	case 6:
		w.flying = nil
	case 7:
		w.run(3 * time.Second)
	case 9:
		l.Close(w.now, "fuzz")
	case 10:
		l.Down(w.now)
	case 11:
		l.Up(w.now)
	case 12:
		l.Heard(w.now)
	case 13: // the clock jumps, either way
		w.now = w.now.Add(time.Duration(int8(op)) * time.Hour)
	case 14:
		l.Advance(w.now)
	}
	return rest
}

// BenchmarkMemory reports what an opened, idle link holds.
func BenchmarkMemory(b *testing.B) {
	const n = 2000
	links := make([]*link.Link, 0, n)
	v4, v6 := &link.IPv4Config{Local: addr("10.0.0.1")}, &link.IPv6Config{Interface: [8]byte{7: 1}}
	c := link.Config{Rand: seeded(1), MRU: 1400, PFC: true, ACFC: true, EchoInterval: time.Minute, IPv4: v4, IPv6: v6}
	var perLink float64
	for b.Loop() {
		clear(links)
		links = links[:0]
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for range n {
			links = append(links, openAlone(c))
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		perLink = float64(after.HeapAlloc-before.HeapAlloc) / n
	}
	runtime.KeepAlive(links)
	b.ReportMetric(perLink, "B/link")
}

// openAlone opens a link whose peer acknowledges everything and asks for nothing.
func openAlone(c link.Config) *link.Link {
	l := link.New(c)
	l.Up(start)
	for {
		o, ok := l.Poll()
		if !ok {
			return l
		}
		proto, info, err := ppp.ParseFrame(o.Frame)
		if err != nil || len(info) == 0 || info[0] != byte(ppp.ConfigureRequest) {
			continue
		}
		p, _ := ppp.ParsePacket(info)
		p.Code = ppp.ConfigureAck
		_ = l.Receive(start, ppp.AppendFrame(nil, proto, false, false, p.Append(nil)))
		_ = l.Receive(start, ppp.AppendFrame(nil, proto, false, false, ppp.Packet{Code: ppp.ConfigureRequest, ID: 1}.Append(nil)))
	}
}

// BenchmarkSetUp is the negotiation of LCP, IPCP, IPV6CP and CCP, both ends.
func BenchmarkSetUp(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		ends := [2]*link.Link{link.New(site("10.0.0.1", 1400)), link.New(site("10.0.0.2", 1400))}
		ends[0].Up(start)
		ends[1].Up(start)
		up := 0
		for busy := true; busy; {
			busy = false
			for i, l := range ends {
				for o, ok := l.Poll(); ok; o, ok = l.Poll() {
					busy = true
					if o.Frame != nil {
						_ = ends[1-i].Receive(start, o.Frame)
					} else if o.Event.Kind == link.IPv4Up {
						up++
					}
				}
			}
		}
		if up != 2 {
			b.Fatal(fmt.Sprint(up, " ends up"))
		}
	}
}

func TestDataPathDoesNotAllocate(t *testing.T) {
	l := openAlone(link.Config{PFC: true, ACFC: true, IPv4: &link.IPv4Config{}})
	buf := make([]byte, 0, 8)
	if n := testing.AllocsPerRun(100, func() {
		buf = l.AppendPrefix(buf[:0], ppp.ProtoIPv4)
		l.Heard(start)
		l.Advance(start)
		_ = l.Deadline()
		_, _ = l.Poll()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
