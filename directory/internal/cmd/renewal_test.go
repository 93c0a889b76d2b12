package cmd

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"twinkey/directory/internal/store/storetest"
	"twinkey/pkg/identity"
	"twinkey/proto/secret"
)

func TestRenewal(t *testing.T) {
	start := time.Now()
	company := storetest.NewCompany(t, start)
	id := company.Identity("twinkey://directory", nil, secret.Key{}, secret.Key{}) // a day
	var log bytes.Buffer
	asked, fails := 0, true
	r := &renewal{id: id, at: 0.66, log: slog.New(slog.NewTextHandler(&log, nil)), now: func() time.Time { return start }}
	r.renew = func(context.Context) (identity.Bundle, error) {
		if asked++; fails {
			return identity.Bundle{}, errors.New("the CA is away")
		}
		b := id.Bundle()
		b.TLS = company.TLS("twinkey://directory")
		return b, nil
	}
	at := func(age time.Duration, well bool, wantAsked int, words string) {
		t.Helper()
		log.Reset()
		r.now = func() time.Time { return start.Add(age) }
		if got := r.step(t.Context()); got != well || asked != wantAsked || !strings.Contains(log.String(), words) {
			t.Errorf("at %s: well %v, asked %d times, log %q", age, got, asked, log.String())
		}
	}
	old := id.Bundle().TLS.Leaf.SerialNumber
	at(15*time.Hour, true, 0, "")
	at(17*time.Hour, false, 1, "certificate-renewal-failed")
	at(-100*time.Hour, true, 1, "") // a clock that went back renews nothing
	at(48*time.Hour, false, 2, "left=\"-1d")
	if id.Bundle().TLS.Leaf.SerialNumber.Cmp(old) != 0 {
		t.Error("a failed renewal changed the identity")
	}
	fails = false
	at(17*time.Hour, true, 3, "certificate-renewed")
	if id.Bundle().TLS.Leaf.SerialNumber.Cmp(old) == 0 {
		t.Error("the identity is the old one")
	}
	r.renew = nil
	at(17*time.Hour, true, 3, "certificate-runs-out")
}

func TestRenewalEnds(t *testing.T) {
	id := storetest.NewCompany(t, time.Now()).Identity("twinkey://directory", nil, secret.Key{}, secret.Key{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	newRenewal(id, Settings{RenewAt: 0.66, CA: "https://127.0.0.1:1"}, slog.New(slog.DiscardHandler)).run(ctx)
}
