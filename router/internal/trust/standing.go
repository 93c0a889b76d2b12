package trust

import (
	"context"
	"log/slog"
	"time"
)

// Word says by what a store knows of revocations at a moment.
type Word uint8

// The words; the zero one is that of a store that has heard nothing.
const (
	None        Word = iota // neither of both: new calls are refused
	ByCRL                   // the directory is silent for longer than the bound, a CRL is current: what was revoked since it was made is not known
	ByDirectory             // the directory speaks, or did within the bound
)

var words = [...]string{None: "none", ByCRL: "crl", ByDirectory: "directory"}

func (w Word) String() string { return words[w] }

// Standing is what a store knows of revocations by, and for how long that is enough.
type Standing struct {
	Word  Word
	Heard time.Time // when the directory last spoke; zero: never
	// Until is when new calls are refused if nothing more is heard, or since when they are; zero: nothing was ever heard.
	Until time.Time
}

// Standing says how it is at now.
func (s *Store) Standing(now time.Time) Standing {
	s.mu.RLock()
	defer s.mu.RUnlock()
	st := Standing{Word: s.word(now), Heard: s.heard}
	if !s.heard.IsZero() {
		st.Until = s.heard.Add(s.bound)
	}
	if s.crl != nil && s.crl.NextUpdate().After(st.Until) {
		st.Until = s.crl.NextUpdate()
	}
	return st
}

func (s *Store) word(now time.Time) Word {
	switch {
	case !s.heard.IsZero() && now.Sub(s.heard) <= s.bound:
		return ByDirectory
	case s.crl != nil && now.Before(s.crl.NextUpdate()):
		return ByCRL
	}
	return None
}

// Watch says in the log when one of the bounds is crossed, in either direction, and what follows from it. It keeps no
// lock and ends nothing: what is admitted, the store decides at each call.
type Watch struct {
	store *Store
	log   *slog.Logger
	was   Word
}

// NewWatch returns a watch over a store of which it is expected that it hears the directory soon.
func NewWatch(s *Store, log *slog.Logger) *Watch {
	return &Watch{store: s, log: log, was: ByDirectory}
}

// lookEvery is how late a crossing may be noticed.
const lookEvery = time.Second

// Run looks until ctx ends.
func (w *Watch) Run(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			w.Look(now)
		case <-ctx.Done():
			return
		}
	}
}

// What follows for calls that are up, whichever bound was crossed.
const running = "they go on until their certificates end, or until their revocation is heard"

// Look compares with the look before.
func (w *Watch) Look(now time.Time) {
	st := w.store.Standing(now)
	was := w.was
	if w.was = st.Word; st.Word == was {
		return
	}
	switch {
	case st.Word == ByDirectory && was == None:
		w.log.Info("the directory is heard again: new calls are admitted again")
	case st.Word == ByDirectory:
		w.log.Info("the directory is heard again: revocations are known as they are made")
	case st.Word == ByCRL && was == None:
		w.log.Warn("new calls are admitted again, by the CRL alone: later revocations are not known", "heard", st.Heard, "new_calls_until", st.Until, "calls_up", running)
	case st.Word == ByCRL:
		w.log.Warn("the directory is silent for too long: revocations are known by the CRL alone", "heard", st.Heard, "new_calls_until", st.Until, "calls_up", running)
	default:
		w.log.Error("new calls are refused: no word of revocations for too long", "heard", st.Heard, "since", st.Until, "calls_up", running, "hint", "bring the directory back")
	}
}
