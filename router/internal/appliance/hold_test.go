package appliance

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"twinkey/directory/client"
	"twinkey/pkg/identity"
	"twinkey/pkg/keybundle"
	"twinkey/router/internal/admin"
	"twinkey/router/internal/portal"
)

// Wherever a router refuses somebody for who they are, it does so at the same moments: where its operator logs users in and changes passwords, at the
// portal, at the clients' listener.
func TestEveryRefusalIsHeld(t *testing.T) {
	const hold = 4 * time.Second
	directory := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close") // nothing is left over in the bubble that would keep its clock from going on
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, `{"error": {"code": "denied"}}`)
	}))
	t.Cleanup(directory.Close)
	dir := t.TempDir()
	enrolled(dir, "twinkey://router/ra", netip.MustParsePrefix("10.1.0.0/16"))
	s := load(t, dir, "")
	a := &Appliance{id: must(identity.Load(filepath.Join(dir, "identity"))), gate: keybundle.NewGate(), dir: client.New(directory.URL, nil), log: slog.New(slog.DiscardHandler)}
	a.set.Store(s)
	a.users = a.newUsers()
	for name, refused := range map[string]func(context.Context) error{
		"login": func(ctx context.Context) error {
			_, err := a.Login(ctx, admin.Login{User: "alice", Password: []byte("wrong")})
			return err
		},
		"passwd": func(ctx context.Context) error {
			return a.Passwd(ctx, admin.Passwd{User: "alice", Password: []byte("wrong"), New: []byte("correct horse battery staple")})
		},
		"portal": func(ctx context.Context) error {
			a.portalConfig(s, nil).Hold(ctx, time.Now(), client.ErrDenied)
			return client.ErrDenied
		},
		"passwd at the portal": func(ctx context.Context) error {
			c, began := a.portalConfig(s, nil), time.Now()
			err := c.Router.ChangePassword(ctx, portal.Change{User: "alice", Password: []byte("wrong"), New: []byte("correct horse battery staple")})
			c.Hold(ctx, began, err)
			return err
		},
		"clients": func(ctx context.Context) error {
			a.deskConfig().Hold(ctx, time.Now(), client.ErrDenied)
			return client.ErrDenied
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			err := refused(t.Context())
			if got := time.Since(began); err == nil || got != hold {
				t.Errorf("%s: %v after %s, want %s", name, err, got, hold)
			}
		})
	}
}
