package cmd

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"twinkey/router/internal/admin"
)

func TestWritePortal(t *testing.T) {
	now := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	p := admin.Portal{URL: "https://ra/", Listen: "10.1.1.1:443", HTTP: "10.1.1.1:80", Names: []string{"ra", "10.1.1.1"}, Captive: "https://ra/captive", Root: "00ff",
		Certificate: &admin.PortalCertificate{NotAfter: now.Add(30 * time.Hour), RenewAt: now.Add(20 * time.Hour), SHA256: "abcd"},
		Sessions:    []admin.PortalSession{{User: "alice", Address: netip.MustParseAddr("10.1.1.3"), Since: now.Add(-time.Hour), Seen: now.Add(-5 * time.Second)}}}
	var b strings.Builder
	if err := writePortal(&b, p, now); err != nil {
		t.Fatal(err)
	}
	const want = `portal https://ra/, listens on 10.1.1.1:443, sends browsers on from 10.1.1.1:80
certificate for ra, 10.1.1.1
  ends in 1d 6h, is renewed in 20h 0m
  SHA-256 abcd
root of the company
  SHA-256 00ff
captive portal API https://ra/captive

Sessions
USER   ADDRESS   LOGGED IN  LAST SEEN
alice  10.1.1.3  1h 0m ago  5.0s ago
`
	if b.String() != want {
		t.Errorf("%s\nwant\n%s", b.String(), want)
	}
	b.Reset()
	if err := writePortal(&b, admin.Portal{URL: "https://ra/", Problem: "the CA does not answer"}, now); err != nil || !strings.Contains(b.String(), "PROBLEM: the CA does not answer") || strings.Contains(b.String(), "Sessions") {
		t.Errorf("without a certificate: %v\n%s", err, b.String())
	}
}
