//go:build linux

package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"twinkey/pkg/netlab"
)

// clientPort is where a router that is started with Clients listens for users' own machines.
const clientPort = 8443

// Clients is the YAML with which the router of a site serves users' own machines.
func (s Site) Clients() string {
	return fmt.Sprintf("clients:\n  listen: %s\n", s.Front())
}

// Front is where it does, within the users' prefix.
func (s Site) Front() netip.AddrPort { return netip.AddrPortFrom(s.Users.Addr().Next(), clientPort) }

// Masquerade has a host send what leaves through an interface from its own address there, as a site's router must with its users' datagrams,
// or a NAT does with everything.
func Masquerade(ctx context.Context, h *netlab.Host, ifname string) error {
	for _, argv := range [][]string{
		{"nft", "add", "table", "ip", "nat"},
		{"nft", "add", "chain", "ip", "nat", "post", "{ type nat hook postrouting priority srcnat; }"},
		{"nft", "add", "rule", "ip", "nat", "post", "oifname", ifname, "ip", "saddr", "10.0.0.0/8", "masquerade"},
		{"nft", "add", "rule", "ip", "nat", "post", "oifname", ifname, "ip", "saddr", "192.168.0.0/16", "masquerade"},
	} {
		if _, err := Run(ctx, h, argv...); err != nil {
			return err
		}
	}
	return nil
}

// clientHome is the home directory of a client. Each name is a machine's.
func (c *Company) clientHome(name string) string { return c.path("client-" + name) }

// ClientCommand is what runs a subcommand of the client called name.
func (c *Company) ClientCommand(name string, args ...string) []string {
	return append(append([]string{c.router, "client"}, args...), "--home", c.clientHome(name))
}

// Client runs a subcommand of the client called name on h.
func (c *Company) Client(ctx context.Context, h *netlab.Host, name string, args ...string) (string, error) {
	return Run(ctx, h, c.ClientCommand(name, args...)...)
}

// ClientLogin is the command line by which a user logs in at the router of a site, with the password of AddUser.
func (c *Company) ClientLogin(at Site, uid, name string, args ...string) []string {
	argv := append([]string{"login", uid, "--router", at.Front().String(), "--fingerprint", c.fingerprint, "--password-file", c.path(uid + ".password")}, args...)
	return c.ClientCommand(name, argv...)
}

// StartClient logs a user in from h, and waits until the client has a session.
func (c *Company) StartClient(ctx context.Context, h *netlab.Host, at Site, uid, name string, args ...string) (*Process, error) {
	p, err := start(ctx, h, c.Dir, "client-"+name, c.ClientLogin(at, uid, name, args...)...)
	if err != nil {
		return nil, err
	}
	if old := c.Clients[name]; old != nil {
		if err := old.Stop(); err != nil {
			return nil, errors.Join(err, p.Stop())
		}
	}
	c.Clients[name] = p
	return p, Until(ctx, "client "+name, serviceTimeout, func(ctx context.Context) error {
		_, err := c.ClientStatus(ctx, h, name)
		return err
	}, p)
}

// ClientStatus is what we read of `twinkey-router client status --json`.
type ClientStatus struct {
	Status
	Client struct {
		User    string     `json:"user"`
		Router  string     `json:"router"`
		Address netip.Addr `json:"address"`
		Until   time.Time  `json:"until"`
	} `json:"client"`
	Directory struct {
		Problem string `json:"problem"`
	} `json:"directory"`
}

// ClientStatus asks a client.
func (c *Company) ClientStatus(ctx context.Context, h *netlab.Host, name string) (st ClientStatus, err error) {
	out, err := c.Client(ctx, h, name, "status", "--json")
	if err != nil {
		return st, err
	}
	if err := json.Unmarshal([]byte(out), &st); err != nil {
		return st, fmt.Errorf("reading the status of client %s: %w:\n%s", name, err, out)
	}
	return st, nil
}
