package station

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"twinkey/pkg/keybundle"
	"twinkey/router/internal/voluntary"
)

// Home is the directory where a client keeps whom it trusts and where the router is; the user's own, 0700.
//
//	root.pem      the company's root certificate
//	client.json   where the router in front listens, who logged in last, how users' passwords were stretched when they did, and
//	              who was let in by the directory alone
//	control.sock  while a client runs
type Home struct {
	Dir    string
	Root   *x509.Certificate // nil: not known yet
	Router string            // "host:port"; empty: not known yet
	User   string
	// Passwords says how each user's was stretched when it last opened their keys.
	Passwords map[string]keybundle.Params
	// Local says who was let in last by the directory, and no source: their password is sealed to nobody.
	Local map[string]bool
}

const (
	rootFile   = "root.pem"
	clientFile = "client.json"
	socketFile = "control.sock"

	// DefaultPort is where routers listen for clients unless something else is said.
	DefaultPort = "8443"
)

// Errors of Home.
var (
	ErrNoRoot   = errors.New("the company's root certificate is not known here yet")
	ErrNoRouter = errors.New("no router is named, and none is known from an earlier login")
)

// saved is client.json.
type saved struct {
	Router string `json:"router"`
	User   string `json:"user"`

	Passwords map[string]keybundle.Params `json:"passwords,omitempty"`
	Local     map[string]bool             `json:"local,omitempty"`
}

// OpenHome reads what is there. A directory that is not there yet is an empty one.
func OpenHome(dir string) (Home, error) {
	h := Home{Dir: dir}
	b, err := os.ReadFile(filepath.Join(dir, rootFile)) //nolint:gosec // the user's own directory
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return h, fmt.Errorf("reading the root certificate: %w", err)
	default:
		block, _ := pem.Decode(b)
		if block == nil {
			return h, fmt.Errorf("reading %s: there is no certificate in it", filepath.Join(dir, rootFile))
		}
		if h.Root, err = x509.ParseCertificate(block.Bytes); err != nil {
			return h, fmt.Errorf("reading %s: %w", filepath.Join(dir, rootFile), err)
		}
	}
	b, err = os.ReadFile(filepath.Join(dir, clientFile)) //nolint:gosec // the user's own directory
	if errors.Is(err, os.ErrNotExist) {
		return h, nil
	}
	var s saved
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err != nil {
		return h, fmt.Errorf("reading %s: %w", filepath.Join(dir, clientFile), err)
	}
	h.Router, h.User, h.Passwords, h.Local = s.Router, s.User, s.Passwords, s.Local
	return h, nil
}

// Socket is the client's control socket.
func (h *Home) Socket() string { return filepath.Join(h.Dir, socketFile) }

// At names the router, with a port or without; empty: the one that is known.
func (h *Home) At(router string) error {
	if router == "" {
		router = h.Router
	}
	if router == "" {
		return ErrNoRouter
	}
	if _, _, err := net.SplitHostPort(router); err != nil {
		if a, aerr := netip.ParseAddr(router); aerr == nil {
			router = a.String() // without brackets
		}
		router = net.JoinHostPort(router, DefaultPort)
	}
	host, port, err := net.SplitHostPort(router)
	if err != nil || host == "" || port == "" {
		return fmt.Errorf("%q is no router: write a host and a port, such as 10.1.1.1:%s", router, DefaultPort)
	}
	h.Router = router
	return nil
}

// Trust makes the root certificate with this fingerprint the one that counts, asking the router for it if it is not here. Without a
// fingerprint the one that is here has to do.
func (h *Home) Trust(ctx context.Context, local netip.Addr, fingerprint string) error {
	switch {
	case fingerprint == "" && h.Root == nil:
		return ErrNoRoot
	case fingerprint == "":
		return nil
	case h.Root != nil:
		if _, err := voluntary.ParseRoot(h.Root.Raw, fingerprint); err == nil {
			return nil
		}
	}
	root, err := voluntary.FetchRoot(ctx, h.Router, local, fingerprint)
	if err == nil {
		h.Root, h.Passwords, h.Local = root, nil, nil // of another company
	}
	return err
}

// Remember keeps how a user's password was stretched, and whether the directory alone has let them in.
func (h *Home) Remember(uid string, p keybundle.Params, local bool) error {
	h.Passwords, h.Local = with(h.Passwords, uid, p), with(h.Local, uid, local)
	return h.Save()
}

// with is a copy of m with v under k: others may have m.
func with[V any](m map[string]V, k string, v V) map[string]V {
	m = maps.Clone(m)
	if m == nil {
		m = make(map[string]V)
	}
	m[k] = v
	return m
}

// Save keeps all that there is.
func (h *Home) Save() error {
	b, err := json.MarshalIndent(saved{Router: h.Router, User: h.User, Passwords: h.Passwords, Local: h.Local}, "", "\t")
	if err == nil {
		err = os.MkdirAll(h.Dir, 0o700)
	}
	if err == nil {
		err = replace(filepath.Join(h.Dir, clientFile), append(b, '\n'))
	}
	if err == nil {
		err = replace(filepath.Join(h.Dir, rootFile), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: h.Root.Raw}))
	}
	if err != nil {
		return fmt.Errorf("saving whom to trust: %w", err)
	}
	return nil
}

// replace writes a file whole or not at all.
func replace(path string, b []byte) error {
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
