package authority

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"

	"github.com/go-chi/chi/v5"
	"github.com/smallstep/certificates/acme"
	acmeapi "github.com/smallstep/certificates/acme/api"
	acmedb "github.com/smallstep/certificates/acme/db/nosql"
	"github.com/smallstep/certificates/api"
	stepauth "github.com/smallstep/certificates/authority"
	"github.com/smallstep/certificates/db"
)

// PortalACME is where routers order the certificates of their portals.
const PortalACME = "/acme/" + routersACME + "/"

// maxBody bounds what a stranger can send to smallstep's handlers.
const maxBody = 64 << 10

// Handler serves smallstep's part of the API: those of its routes that we mean to have,
// each by itself. port is that of the server, for the links in ACME answers. What is under PortalACME is for routers alone, which
// the caller sees to; their challenges are answered by answer and by nobody else, and may says whether
// who sends a request, which its context tells, may be called identifier now.
func (a *Authority) Handler(port uint16, answer func(identifier, token string) (string, bool), may func(ctx context.Context, identifier string) error) (http.Handler, error) {
	r := chi.NewRouter()
	r.Get("/health", api.Health)
	r.Get("/version", api.Version)
	r.Get("/roots", api.Roots)
	r.Get("/roots.pem", api.RootsPEM)
	r.Get("/root/{sha}", api.Root)
	r.Get("/intermediates", api.Intermediates)
	r.Get("/intermediates.pem", api.IntermediatesPEM)
	r.Get("/crl", api.CRL)
	r.Get("/provisioners", api.Provisioners)
	r.Post("/sign", api.Sign)
	r.Route("/acme", func(r chi.Router) { acmeapi.Route(r) }) // strangers' is not known where it is not wanted
	records, err := acmedb.New(a.store)
	if err != nil {
		return nil, fmt.Errorf("preparing ACME: %w", explain(err))
	}
	dns := net.JoinHostPort(a.cfg.DNSNames[0], strconv.Itoa(int(port)))
	linker := acme.NewLinker(dns, "acme")
	var strangers, routers acme.Client = &outside{acme.NewClient(), a.reserved}, &posted{answer}
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		// An ACME path needs no escapes, and two readers could understand one differently.
		if q.URL.RawPath != "" || strings.Contains(q.URL.Path, "%") {
			http.NotFound(w, q)
			return
		}
		var (
			client         = strangers
			kept   acme.DB = records
		)
		if strings.HasPrefix(q.URL.Path, PortalACME) {
			client, kept = routers, &orders{records, may}
		}
		q.Body = http.MaxBytesReader(w, q.Body, maxBody)
		ctx := db.NewContext(stepauth.NewContext(q.Context(), a.step), held{a.store})
		ctx = acme.NewContext(ctx, kept, client, linker, nil)
		r.ServeHTTP(w, q.WithContext(ctx))
	}), nil
}
