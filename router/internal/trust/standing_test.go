package trust_test

import (
	"bytes"
	"crypto/x509"
	"log/slog"
	"strings"
	"testing"
	"time"

	"twinkey/pkg/twincert"
	"twinkey/router/internal/trust"
)

// script moves a clock by hand and looks each second, as Run does.
type script struct {
	*testing.T
	store *trust.Store
	watch *trust.Watch
	log   bytes.Buffer
	now   time.Time
}

func newScript(t *testing.T, a authority, bound time.Duration) *script {
	s := &script{T: t, store: trust.New(bound), now: start}
	s.store.SetAnchors([]*x509.Certificate{a.cert}, nil)
	s.watch = trust.NewWatch(s.store, slog.New(slog.NewTextHandler(&s.log, nil)))
	return s
}

// says demands that looking for so long, each second, says this once and nothing besides; "": nothing.
func (s *script) says(d time.Duration, want ...string) {
	s.Helper()
	s.log.Reset()
	for end := s.now.Add(d); s.now.Before(end); {
		s.now = s.now.Add(time.Second)
		s.watch.Look(s.now)
	}
	lines := strings.Split(strings.TrimSpace(s.log.String()), "\n")
	if lines[0] == "" {
		lines = nil
	}
	if len(lines) != len(want) {
		s.Errorf("at %s: %q, want %q", s.now.Sub(start), lines, want)
		return
	}
	for i, w := range want {
		if !strings.Contains(lines[i], w) {
			s.Errorf("at %s: %q, want %q", s.now.Sub(start), lines[i], w)
		}
	}
}

func (s *script) standing(want trust.Word, until time.Duration) {
	s.Helper()
	if st := s.store.Standing(s.now); st.Word != want || st.Until.Sub(start) != until {
		s.Errorf("at %s: %s until %s, want %s until %s", s.now.Sub(start), st.Word, st.Until.Sub(start), want, until)
	}
	if fresh := s.store.Fresh(s.now) == nil; fresh != (want != trust.None) {
		s.Errorf("at %s, by %s: fresh is %v", s.now.Sub(start), want, fresh)
	}
}

// Both bounds are said once each, in either direction, with what follows.
func TestBoundsAreSaid(t *testing.T) {
	const minute, hour = time.Minute, time.Hour
	a := newAuthority(t)
	s := newScript(t, a, 15*minute)
	s.store.Heard(start)
	if err := s.store.SetCRL(a.crl(t, 1, 2*hour), start); err != nil {
		t.Fatal(err)
	}
	s.standing(trust.ByDirectory, 2*hour)
	s.says(15 * minute)
	s.says(5*minute, "level=WARN msg=\"the directory is silent for too long: revocations are known by the CRL alone\" heard=2026-11-20T12:00:00.000Z new_calls_until=2026-11-20T14:00:00.000Z calls_up=\"they go on until their certificates end")
	s.standing(trust.ByCRL, 2*hour)
	s.says(90 * minute)
	s.says(20*minute, "level=ERROR msg=\"new calls are refused: no word of revocations for too long\" heard=2026-11-20T12:00:00.000Z since=2026-11-20T14:00:00.000Z calls_up=\"they go on")
	s.standing(trust.None, 2*hour)
	s.says(hour)

	// A later CRL, from the CA while the directory is still away.
	if err := s.store.SetCRL(a.crl(t, 2, 4*hour), s.now); err != nil {
		t.Fatal(err)
	}
	s.says(minute, "level=WARN msg=\"new calls are admitted again, by the CRL alone: later revocations are not known\"")
	s.store.Heard(s.now)
	s.says(minute, "level=INFO msg=\"the directory is heard again: revocations are known as they are made\"")
	s.standing(trust.ByDirectory, 4*hour)
	s.says(3*hour, "the directory is silent for too long", "new calls are refused")
	s.store.Heard(s.now)
	s.says(minute, "level=INFO msg=\"the directory is heard again: new calls are admitted again\"")
	s.standing(trust.ByDirectory, s.now.Sub(start)-minute+15*minute)

	// Without a CRL the first bound is the last.
	s = newScript(t, a, 15*minute)
	s.says(10*minute, "new calls are refused") // it has never heard anything
	if st := s.store.Standing(s.now); st != (trust.Standing{}) {
		t.Errorf("never heard: %+v", st)
	}
	s.store.Heard(s.now)
	s.says(15*minute, "new calls are admitted again")
	s.says(minute, "new calls are refused")
	s.store.SetBound(hour)
	s.says(minute, "new calls are admitted again")
}

// Of a CRL that is taken it is said what nobody had said before.
func TestNewsOfACRL(t *testing.T) {
	a := newAuthority(t)
	s := trust.New(time.Hour)
	s.SetAnchors([]*x509.Certificate{a.cert}, nil)
	s.Revoke(a.id(7))
	for n, want := range []twincert.ID{a.id(8), {}, a.id(9), {}} {
		serials := []int64{7, 8, 9}[:min(2+n/2, 3)]
		news, err := s.TakeCRL(a.crl(t, int64(n+1), time.Hour, serials...), start)
		if err != nil || len(news) != 1 && want.Serial != "" || want.Serial == "" && len(news) > 0 || len(news) == 1 && news[0] != want {
			t.Errorf("CRL %d: %v %v, want %v", n+1, news, err, want)
		}
	}
	if news, err := s.TakeCRL(a.crl(t, 1, time.Hour, 10), start); err != nil || len(news) > 0 || s.Revoked(a.id(10)) {
		t.Errorf("an older CRL: %v %v", news, err)
	}
}
