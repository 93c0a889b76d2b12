package portal

import (
	"encoding/json"
	"net/http"
	"time"
)

// captiveState is the answer of RFC 8908 section 5. Of bytes-remaining nothing is known: the policy counts time, not bytes.
type captiveState struct {
	Captive bool   `json:"captive"`
	Portal  string `json:"user-portal-url"`
	Seconds *int64 `json:"seconds-remaining,omitempty"`
}

// PathCaptive is where the API is; DHCP option 114 and RA option 37 (RFC 8910) name it.
const PathCaptive = "/captive"

// captive tells a machine whether it has to show its user the portal.
func (p *Portal) captive(w http.ResponseWriter, r *http.Request, v visit) {
	if !p.c.Captive {
		http.NotFound(w, r)
		return
	}
	standing, err := p.c.Router.Logins(r.Context(), v.from)
	if err != nil {
		http.Error(w, "the router is busy", http.StatusServiceUnavailable)
		return
	}
	_, own, err := p.c.Router.Guest(r.Context(), v.from)
	if err != nil {
		http.Error(w, "the router is busy", http.StatusServiceUnavailable)
		return
	}
	s := captiveState{Captive: len(standing) == 0 && !own && !p.c.Router.Bridged(v.from), Portal: p.URL()}
	for _, l := range standing {
		if l.Ends.IsZero() {
			continue
		}
		if left := max(0, int64(l.Ends.Sub(v.now)/time.Second)); s.Seconds == nil || left < *s.Seconds {
			s.Seconds = &left
		}
	}
	b, err := json.Marshal(s)
	if err != nil {
		http.Error(w, "encoding the answer failed", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/captive+json")
	w.Header().Set("Cache-Control", "private")
	_, _ = w.Write(b) // the client has gone
}

// redirect answers whatever is asked without TLS, the operating systems' probes among it, so that they find the portal.
func (p *Portal) redirect(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Connection", "close") // nobody has more to ask here
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		http.Error(w, "the portal is at "+p.URL(), http.StatusForbidden)
		return
	}
	http.Redirect(w, r, p.URL(), http.StatusFound)
}
