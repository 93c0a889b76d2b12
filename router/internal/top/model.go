package top

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"twinkey/pkg/cli"
	"twinkey/router/internal/admin"
)

// Ask fetches a snapshot.
type Ask func(context.Context) (admin.Status, error)

// Run shows the view until the person quits or ctx ends.
func Run(ctx context.Context, ask Ask, interval time.Duration, opts ...tea.ProgramOption) error {
	m := model{ctx: ctx, ask: ask, interval: interval, now: time.Now, width: 80, height: 24}
	_, err := tea.NewProgram(m, append([]tea.ProgramOption{tea.WithContext(ctx)}, opts...)...).Run()
	if ctx.Err() != nil { // it was told to stop, and has put the terminal right
		return nil
	}
	if err != nil {
		return fmt.Errorf("drawing in the terminal: %w", err)
	}
	return nil
}

// model is the state of the view.
type model struct {
	ctx           context.Context
	ask           Ask
	interval      time.Duration
	now           func() time.Time
	width, height int

	rates  Rates
	err    error // of the last question
	order  Order
	first  int // row at the top
	paused bool
}

// answered is what the router said.
type answered struct {
	status admin.Status
	err    error
}

// due says that it is time to ask again.
type due struct{}

func (m model) Init() tea.Cmd { return m.question }

func (m model) question() tea.Msg {
	ctx, stop := context.WithTimeout(m.ctx, 10*time.Second)
	defer stop()
	st, err := m.ask(ctx)
	return answered{st, err}
}

func (m model) wait() tea.Cmd {
	return tea.Tick(m.interval, func(time.Time) tea.Msg { return due{} })
}

func (m model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = max(msg.Width, 1), max(msg.Height, 1) // a terminal may not know its size
	case due:
		if m.paused {
			return m, m.wait()
		}
		return m, m.question
	case answered:
		if m.err = msg.err; msg.err == nil && !m.paused {
			m.rates = m.rates.Next(msg.status, m.now())
		}
		m.first = min(m.first, m.last())
		return m, m.wait()
	case tea.KeyPressMsg:
		return m.key(msg.String())
	}
	return m, nil
}

func (m model) key(k string) (tea.Model, tea.Cmd) {
	switch k {
	case "q", "esc", "ctrl+c":
		return m, tea.Quit
	case "o":
		m.order, m.first = (m.order+1)%orders, 0
	case "space", "p":
		m.paused = !m.paused
	case "up", "k":
		m.first--
	case "down", "j":
		m.first++
	case "pgup":
		m.first -= m.room()
	case "pgdown":
		m.first += m.room()
	case "home", "g":
		m.first = 0
	case "end", "G":
		m.first = m.last()
	}
	m.first = max(min(m.first, m.last()), 0)
	return m, nil
}

// around is how many lines there are besides rows: three of the whole, an empty one, the table's head, the keys.
const around = 6

// room is how many rows fit.
func (m model) room() int { return max(m.height-around, 1) }

// last is the greatest value of first.
func (m model) last() int { return max(len(m.rates.Rows)-m.room(), 0) }

func (m model) View() tea.View {
	v := tea.NewView(m.text())
	v.AltScreen = true
	v.WindowTitle = "twinkey-router top"
	return v
}

// text is the screen, no line longer and not more of them than it has room for.
func (m model) text() string {
	var lines []string
	lines = append(lines, m.whole()...)
	lines = append(lines, "")
	lines = append(lines, m.table()...)
	for len(lines) < m.height-1 {
		lines = append(lines, "")
	}
	lines = append(lines[:m.height-1], m.keys())
	for i, l := range lines {
		if r := []rune(l); len(r) > m.width {
			lines[i] = string(r[:max(m.width-1, 0)]) + "…"
		}
	}
	return strings.Join(lines, "\n")
}

// whole are the lines on the router as a whole.
func (m model) whole() []string {
	st, r := m.rates.Status, m.rates
	if r.at.IsZero() {
		first := "asking the router ..."
		if m.err != nil {
			first = "no answer from the router: " + m.err.Error()
		}
		return []string{first, "", ""}
	}
	head := fmt.Sprintf("router %s, up for %s, interface %s (%s)", st.Name, cli.Duration(r.at.Sub(st.Since)), st.Device.Name, st.Device.Kind)
	switch {
	case m.err != nil:
		head = fmt.Sprintf("NO ANSWER since %s: %v", r.at.Format(time.TimeOnly), m.err)
	case !st.Directory.Fresh: // before its cause, which may be long
		head += "; NEW CALLS ARE REFUSED: the directory was not heard for too long"
	case st.Directory.Problem != "":
		head += "; directory: " + st.Directory.Problem
	}
	if n := ending(st.Calls); n > 0 && m.err == nil {
		head += fmt.Sprintf("; %d of the calls END SOON with their certificate", n)
	}
	total := fmt.Sprintf("%d calls in %d tunnels   in %s, %.0f packets/s   out %s, %.0f packets/s", len(st.Calls), len(st.Tunnels),
		bits(r.Total.In), r.Total.InPackets, bits(r.Total.Out), r.Total.OutPackets)
	var dropped []string
	for _, cause := range slices.Sorted(maps.Keys(r.Drops)) {
		dropped = append(dropped, fmt.Sprintf("%s %.0f/s", cause, r.Drops[cause]))
	}
	if len(dropped) == 0 {
		return []string{head, total, ""}
	}
	return []string{head, total, "dropped: " + strings.Join(dropped, ", ")}
}

// ending is how many calls end soon because their certificate is not renewed.
func ending(calls []admin.Call) (n int) {
	for _, c := range calls {
		if c.Ending != "" {
			n++
		}
	}
	return n
}

func (m model) table() []string {
	rows := m.rates.Sorted(m.order)
	if len(rows) == 0 {
		return nil
	}
	rows = rows[m.first:min(m.first+m.room(), len(rows))]
	t := cli.NewTable("USER", "PEER", "CALL", "IN", "OUT", "PACKETS IN", "OUT", "IN ALL", "OUT ALL", "SUITE", "UP FOR", "CERTIFICATE LIVES")
	for _, r := range rows {
		user := r.User
		if user == "" {
			user = "(" + r.Kind + ")"
		}
		in, out, pin, pout := "", "", "", ""
		if r.Measured {
			in, out, pin, pout = bits(r.In), bits(r.Out), fmt.Sprintf("%.0f/s", r.InPackets), fmt.Sprintf("%.0f/s", r.OutPackets)
		}
		lives := cli.Until(m.rates.at, r.NotAfter)
		if r.Ending != "" {
			lives += " !"
		}
		t.Row(user, r.Peer, r.ID, in, out, pin, pout, cli.Bytes(r.RxBytes), cli.Bytes(r.TxBytes), r.Suite, cli.Duration(m.rates.at.Sub(r.Since)), lives)
	}
	var b bytes.Buffer
	_, _ = t.WriteTo(&b) // a buffer takes everything
	return strings.Split(strings.TrimRight(b.String(), "\n"), "\n")
}

func (m model) keys() string {
	s := "q quit   o order: " + m.order.String() + "   space pause   ↑ ↓ PgUp PgDn"
	if n := len(m.rates.Rows); n > m.room() {
		s += fmt.Sprintf("   %d to %d of %d", m.first+1, min(m.first+m.room(), n), n)
	}
	if m.paused {
		s += "   PAUSED"
	}
	return s
}

// bits is a rate of bytes as a rate of bits, for people.
func bits(perSecond float64) string {
	v, unit := perSecond*8, "bit/s"
	for _, u := range []string{"kbit/s", "Mbit/s", "Gbit/s"} {
		if v < 1000 {
			break
		}
		v, unit = v/1000, u
	}
	if v >= 100 || unit == "bit/s" {
		return fmt.Sprintf("%.0f %s", v, unit)
	}
	return fmt.Sprintf("%.1f %s", v, unit)
}
