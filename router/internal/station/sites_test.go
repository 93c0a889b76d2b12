package station

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"twinkey/directory/client"
	"twinkey/router/internal/native"
	"twinkey/router/internal/trust"
	"twinkey/router/internal/voluntary"
)

// A router in front that is known by name, one hop away, does not vanish behind a site that is certified for where it is.
func TestTheWayToANamedRouterStaysClear(t *testing.T) {
	at, root := stub(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	_, port, err := net.SplitHostPort(at)
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Home{Dir: t.TempDir(), Router: net.JoinHostPort("localhost", port), Root: root}, Options{User: "alice", Local: netip.MustParseAddr("127.0.0.1")}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.front.Close()
	if got := front(s.home.Router, s.front.Reached()); len(got) != 0 {
		t.Fatalf("before it was asked: %v", got)
	}
	if err := s.front.Logout(t.Context(), make([]byte, 32)); err != nil {
		t.Fatal(err)
	}
	found := front(s.home.Router, s.front.Reached())
	peers := []native.Peer{{Name: "rb", Certified: prefixes("127.0.0.0/24", "10.2.0.0/24"), Announced: prefixes("127.0.0.0/24", "10.2.0.0/24")}}
	kept, refused := apart(peers, nil, reaching(found, peers))
	if got := fmt.Sprint(kept[0].Announced); got != "[10.2.0.0/24]" || len(refused) != 1 {
		t.Errorf("kept %s, refused %+v", got, refused)
	}
}

// Who answers in the router's place and is none is not noted: it would keep a site's packets out of the interface.
func TestAStrangerIsNotReached(t *testing.T) {
	at, _ := stub(t, func(http.ResponseWriter, *http.Request) {})
	c := voluntary.NewClient(at, netip.Addr{}, root())
	defer c.Close()
	if err := c.Logout(t.Context(), make([]byte, 32)); !isCode(err, voluntary.CodeRouter) {
		t.Fatalf("a stranger: %v", err)
	}
	if got := c.Reached(); len(got) != 0 {
		t.Errorf("reached %v", got)
	}
}

func TestFront(t *testing.T) {
	a, b := netip.MustParseAddr("10.1.1.1"), netip.MustParseAddr("2001:db8::1")
	for _, tt := range []struct {
		router  string
		reached []netip.Addr
		want    string
	}{
		{"gw.example:8443", nil, "[]"}, {"gw.example:8443", []netip.Addr{b, a}, "[10.1.1.1 2001:db8::1]"},
		{"10.1.1.1:8443", nil, "[10.1.1.1]"}, {"10.1.1.1:8443", []netip.Addr{a}, "[10.1.1.1]"}, {"[2001:db8::1]:8443", []netip.Addr{a}, "[10.1.1.1 2001:db8::1]"},
	} {
		if got := fmt.Sprint(front(tt.router, tt.reached)); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.router, got, tt.want)
		}
	}
}

// A single address stands in a network, unless it is the end of a line.
func TestNetworks(t *testing.T) {
	var addrs []net.Addr
	for _, a := range []string{"192.168.7.5/24", "10.128.0.5/32", "2001:db8::5/128", "fe80::1/64"} {
		p := netip.MustParsePrefix(a)
		addrs = append(addrs, &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())})
	}
	if got := fmt.Sprint(networks(net.FlagUp|net.FlagBroadcast, addrs)); got != "[192.168.7.0/24 10.128.0.5/32 2001:db8::5/128]" {
		t.Errorf("Ethernet: %s", got)
	}
	if got := fmt.Sprint(networks(net.FlagUp|net.FlagPointToPoint, addrs)); got != "[192.168.7.0/24]" {
		t.Errorf("a tunnel: %s", got)
	}
}

// A machine that changes its network has its routes looked at anew, once the map that they came from is there and believed.
func TestMoved(t *testing.T) {
	now := time.Now()
	home, away := surroundings{own: prefixes("192.168.7.0/24")}, surroundings{own: prefixes("10.2.0.0/24")}
	other := surroundings{own: home.own, front: []netip.Addr{netip.MustParseAddr("10.2.0.1")}}
	r := &run{trust: trust.New(time.Minute), sites: []client.Site{{Name: "rb"}}}
	r.trust.Heard(now)
	if r.moved(now, away) {
		t.Error("before there was a map")
	}
	r.around = &home
	if r.moved(now, home) || !r.moved(now, away) || !r.moved(now, other) {
		t.Errorf("stayed %v, moved %v, the router elsewhere %v", r.moved(now, home), r.moved(now, away), r.moved(now, other))
	}
	r.unread = true
	if r.moved(now, away) {
		t.Error("while a newer map waits")
	}
	r.unread = false
	if r.moved(now.Add(2*time.Minute), away) {
		t.Error("while nothing is believed")
	}
}
