package portal

import (
	"embed"
	"net/http"
	"net/netip"
	"slices"
	"time"
)

//go:embed pages
var files embed.FS

// visit is one request, as far as it was looked at.
type visit struct {
	from netip.Addr // of the connection, and so of the user
	now  time.Time
}

// policyHeaders are on every answer. There is no script, nothing comes from elsewhere, nobody frames the page, and a form goes nowhere else.
// The referrer is not hidden from ourselves: browsers would send "Origin: null" with forms.
var policyHeaders = map[string]string{
	"Content-Security-Policy":      "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
	"X-Content-Type-Options":       "nosniff",
	"X-Frame-Options":              "DENY",
	"Referrer-Policy":              "same-origin",
	"Cross-Origin-Opener-Policy":   "same-origin",
	"Cross-Origin-Resource-Policy": "same-origin",
	"Permissions-Policy":           "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
	"Cache-Control":                "no-store",
}

// handler serves everything under TLS.
func (p *Portal) handler() http.Handler {
	mux := http.NewServeMux()
	on := func(pattern string, f func(http.ResponseWriter, *http.Request, visit)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			a, err := netip.ParseAddrPort(r.RemoteAddr)
			if err != nil { // no connection of ours
				http.Error(w, "no address", http.StatusBadRequest)
				return
			}
			f(w, r, visit{from: a.Addr().Unmap().WithZone(""), now: time.Now()})
		})
	}
	on("GET /{$}", p.home)
	on("GET /login", p.loginPage)
	on("POST /login", p.own(p.login))
	on("POST /logout", p.own(p.logout))
	on("GET /password", p.passwordPage)
	on("POST /password", p.own(p.password))
	on("GET "+PathCaptive, p.captive)
	on("GET /style.css", p.style)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for k, v := range policyHeaders {
			w.Header().Set(k, v)
		}
		if !p.asks.Allow(r.RemoteAddr, time.Now()) {
			retryAfter(w, time.Second)
			http.Error(w, "too many requests from your device", http.StatusTooManyRequests)
			return
		}
		// A name that is not ours and leads here: an attacker's, whose page would be of the same origin as ours.
		if !slices.Contains(p.hosts, r.Host) {
			http.Error(w, "the portal is at "+p.URL(), http.StatusMisdirectedRequest)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// own lets pass what a browser says that a page of ours has sent.
func (p *Portal) own(f func(http.ResponseWriter, *http.Request, visit)) func(http.ResponseWriter, *http.Request, visit) {
	return func(w http.ResponseWriter, r *http.Request, v visit) {
		if !sameOrigin(r) {
			p.c.Log.Warn("portal: a form of another site was refused", "address", v.from.String(), "path", r.URL.Path)
			p.fail(w, r, v, saidForged)
			return
		}
		f(w, r, v)
	}
}

// sameOrigin asks both headers that browsers have for it. One at least must be there, and none may say otherwise.
func sameOrigin(r *http.Request) bool {
	site, origin := r.Header.Values("Sec-Fetch-Site"), r.Header.Values("Origin")
	if len(site) > 1 || len(origin) > 1 || len(site)+len(origin) == 0 {
		return false
	}
	return (len(site) == 0 || site[0] == "same-origin") && (len(origin) == 0 || origin[0] == "https://"+r.Host)
}

func (p *Portal) style(w http.ResponseWriter, r *http.Request, _ visit) {
	w.Header().Set("Cache-Control", "public, max-age=3600") // nothing of anybody's
	http.ServeFileFS(w, r, files, "pages/style.css")
}
