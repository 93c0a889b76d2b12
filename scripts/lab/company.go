//go:build linux

package lab

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"twinkey/pkg/netlab"
)

// Addresses of the company.
var (
	HQAddr    = netip.MustParseAddr("198.18.0.100")
	WANPrefix = netip.MustParsePrefix("198.18.0.0/24")
	SiteA     = Site{Name: "ra", LAN: netip.MustParsePrefix("10.1.0.0/24"), Users: netip.MustParsePrefix("10.1.1.0/24"), Router: netip.MustParseAddr("10.1.0.1"), Host: netip.MustParseAddr("10.1.0.2"), WAN: netip.MustParseAddr("198.18.0.1")}
	SiteB     = Site{Name: "rb", LAN: netip.MustParsePrefix("10.2.0.0/24"), Users: netip.MustParsePrefix("10.2.1.0/24"), Router: netip.MustParseAddr("10.2.0.1"), Host: netip.MustParseAddr("10.2.0.2"), WAN: netip.MustParseAddr("198.18.0.2")}
)

// Site is one LAN and its router.
type Site struct {
	Name              string       // of the router
	LAN               netip.Prefix // bridged by the site link
	Users             netip.Prefix // on the same cable, for users who log in: certified, and not bridged
	Router, Host, WAN netip.Addr
	Scope             string // whose keys the router may ask for; empty: those of UserGroup
}

// Ports of the services, and of the tunnels.
const (
	caPort        = 8700
	directoryPort = 8702
	tunnelPort    = 1701
)

// How long each thing may take on a slow and busy machine.
const (
	serviceTimeout = 30 * time.Second
	linkTimeout    = 30 * time.Second
)

// UserGroup is the tunnel group that both routers are allowed to serve.
const UserGroup = "staff"

// Company is the whole of it. The fields are for reading.
type Company struct {
	Lab          *netlab.Lab
	HostA, HostB *netlab.Host
	HQ           *netlab.Host
	RA, RB       *netlab.Host
	WAN          *netlab.Switch
	Dir          string // logs and state, on a file system that only the laboratory sees

	CA, Directory *Process
	Routers       map[string]*Process // by the router's name
	Clients       map[string]*Process // users' own machines

	fingerprint string // of the root
	ca          string // paths of the binaries
	directory   string
	router      string
}

// New makes the network and no process. Close takes all of it away, and must be called also when ctx has ended.
func New(ctx context.Context) (c *Company, err error) {
	c = &Company{Routers: map[string]*Process{}, Clients: map[string]*Process{}}
	for name, path := range map[string]*string{CA: &c.ca, Directory: &c.directory, Router: &c.router} {
		if *path, err = binary(name); err != nil {
			return nil, err
		}
	}
	if c.Lab, err = netlab.New(context.WithoutCancel(ctx)); err != nil {
		return nil, err
	}
	if err := c.cable(); err != nil {
		return nil, errors.Join(fmt.Errorf("building the network: %w", err), c.Close())
	}
	return c, nil
}

// cable makes the picture in the package's comment.
func (c *Company) cable() (err error) {
	if c.Dir, err = os.MkdirTemp("/run", "company-"); err != nil {
		return err
	}
	for name, h := range map[string]**netlab.Host{"hosta": &c.HostA, "hostb": &c.HostB, "hq": &c.HQ, SiteA.Name: &c.RA, SiteB.Name: &c.RB} {
		if *h, err = c.Lab.Host(name); err != nil {
			return err
		}
	}
	if c.WAN, err = c.Lab.Switch("wan"); err != nil {
		return err
	}
	if err := c.Lab.Attach(c.HQ, "wan0", wan(HQAddr), c.WAN); err != nil {
		return err
	}
	for _, x := range []struct {
		Site
		router, host *netlab.Host
	}{{SiteA, c.RA, c.HostA}, {SiteB, c.RB, c.HostB}} {
		lan := func(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, x.LAN.Bits()) }
		err := errors.Join(
			c.Lab.Link(x.host, "eth0", lan(x.Host), x.router, "lan0", lan(x.Router)),
			c.Lab.Attach(x.router, "wan0", wan(x.WAN), c.WAN),
			x.router.AddAddress("lan0", netip.PrefixFrom(x.Users.Addr().Next(), x.Users.Bits())),
			x.router.Sysctl("net.ipv4.ip_forward", "1"),
			x.host.DefaultRoute(x.Router))
		if err != nil {
			return err
		}
	}
	return nil
}

func wan(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, WANPrefix.Bits()) }

func url(port uint16) string { return "https://" + netip.AddrPortFrom(HQAddr, port).String() }

// Close stops the processes, clients and routers first, and takes the network away. Errors are of processes that did not stop
// cleanly.
func (c *Company) Close() error {
	var errs []error
	for _, p := range c.Clients {
		errs = append(errs, p.Stop())
	}
	for _, p := range c.Routers {
		errs = append(errs, p.Stop())
	}
	for _, p := range []*Process{c.Directory, c.CA} {
		if p != nil {
			errs = append(errs, p.Stop())
		}
	}
	errs = append(errs, c.Lab.Close())
	if c.Dir != "" {
		errs = append(errs, os.RemoveAll(c.Dir))
	}
	return errors.Join(errs...)
}

func (c *Company) path(name ...string) string {
	return filepath.Join(append([]string{c.Dir}, name...)...)
}

var fingerprintPattern = regexp.MustCompile(`\b[0-9a-f]{64}\b`)

// StartCA makes the CA and starts it.
func (c *Company) StartCA(ctx context.Context) error {
	out, err := Run(ctx, c.HQ, c.ca, "init", "--dir", c.path("ca"), "--name", "Example Corp", "--dns", HQAddr.String(), "--directory", url(directoryPort))
	if err != nil {
		return err
	}
	if c.fingerprint = fingerprintPattern.FindString(out); c.fingerprint == "" {
		return fmt.Errorf("making the CA: it printed no fingerprint of its root:\n%s", out)
	}
	return c.ServeCA(ctx)
}

// Fingerprint is the SHA-256 of the root certificate, in hex.
func (c *Company) Fingerprint() string { return c.fingerprint }

// ServeCA starts the CA that there is (again).
func (c *Company) ServeCA(ctx context.Context) (err error) {
	c.CA, err = start(ctx, c.HQ, c.Dir, "ca", c.ca, "serve", "--dir", c.path("ca"), "--listen", netip.AddrPortFrom(HQAddr, caPort).String())
	if err != nil {
		return err
	}
	return Until(ctx, "the CA", serviceTimeout, c.answers(caPort), c.CA)
}

// StartDirectory enrols the directory and starts it.
func (c *Company) StartDirectory(ctx context.Context) error {
	token, err := c.token(ctx, "directory", "token")
	if err != nil {
		return err
	}
	if _, err := Run(ctx, c.HQ, c.directory, "enroll", "--ca", url(caPort), "--fingerprint", c.fingerprint, "--token", token, "--dir", c.path("directory")); err != nil {
		return err
	}
	return c.ServeDirectory(ctx)
}

// ServeDirectory starts the directory that there is (again).
func (c *Company) ServeDirectory(ctx context.Context) (err error) {
	c.Directory, err = start(ctx, c.HQ, c.Dir, "directory", c.directory, "serve", "--dir", c.path("directory"), "--listen", netip.AddrPortFrom(HQAddr, directoryPort).String())
	if err != nil {
		return err
	}
	return Until(ctx, "the directory", serviceTimeout, c.answers(directoryPort), c.Directory)
}

// answers probes whether a service of hq takes connections.
func (c *Company) answers(port uint16) func(context.Context) error {
	return func(ctx context.Context) error {
		conn, err := c.HQ.Dial(ctx, "tcp", netip.AddrPortFrom(HQAddr, port))
		if err != nil {
			return err
		}
		return conn.Close()
	}
}

// token asks the CA for a one-time enrolment token by a command of its own.
func (c *Company) token(ctx context.Context, args ...string) (string, error) {
	argv := append([]string{c.ca}, args...)
	out, err := Run(ctx, c.HQ, append(argv, "--dir", c.path("ca"), "--json")...)
	if err != nil {
		return "", err
	}
	var answer struct {
		Token string `json:"token"`
	}
	if err := json.Unmarshal([]byte(out), &answer); err != nil || answer.Token == "" {
		return "", fmt.Errorf("%s printed no token: %q", strings.Join(args, " "), out)
	}
	return answer.Token, nil
}

// routerHost is the machine of a router.
func (c *Company) routerHost(s Site) *netlab.Host {
	if s.Name == SiteA.Name {
		return c.RA
	}
	return c.RB
}

// StartRouter enrols the router of a site, writes its configuration and starts it. extra is more YAML for the configuration.
// Without a policy in it users may do everything.
func (c *Company) StartRouter(ctx context.Context, s Site, extra string) error {
	h := c.routerHost(s)
	token, err := c.token(ctx, "router", "token", s.Name, "--prefix", s.LAN.String(), "--prefix", s.Users.String(), "--scope", cmp.Or(s.Scope, "group:"+UserGroup))
	if err != nil {
		return err
	}
	if _, err := Run(ctx, h, c.router, "enroll", "--ca", url(caPort), "--fingerprint", c.fingerprint, "--token", token, "--dir", c.path(s.Name)); err != nil {
		return err
	}
	if !strings.Contains(extra, "policy:") {
		extra += "policy:\n  - groups: [\"*\"]\n"
	}
	yaml := fmt.Sprintf("state: %s\nlisten: %s\npublic: %s\nsite:\n  prefixes: [%s]\n%s",
		c.path(s.Name), netip.AddrPortFrom(s.WAN, tunnelPort), netip.AddrPortFrom(s.WAN, tunnelPort), s.LAN, extra)
	if err := os.WriteFile(c.path(s.Name+".yaml"), []byte(yaml), 0o600); err != nil {
		return fmt.Errorf("writing the configuration of %s: %w", s.Name, err)
	}
	return c.RouterUp(ctx, s)
}

// RouterUp starts the router that there is (again), with more arguments if any, and waits until it answers.
func (c *Company) RouterUp(ctx context.Context, s Site, args ...string) error {
	argv := append([]string{c.router, "up", "--config", c.path(s.Name + ".yaml")}, args...)
	p, err := start(ctx, c.routerHost(s), c.Dir, s.Name, argv...)
	if err != nil {
		return err
	}
	c.Routers[s.Name] = p
	return Until(ctx, "router "+s.Name, serviceTimeout, func(ctx context.Context) error {
		_, err := c.Status(ctx, s)
		return err
	}, p)
}

// Up starts everything and waits for the site link.
func (c *Company) Up(ctx context.Context) error { return c.UpWith(ctx, SiteA, SiteB, "", "") }

// UpWith is Up with sites of one's own, and what is added to each router's configuration.
func (c *Company) UpWith(ctx context.Context, a, b Site, extraA, extraB string) error {
	steps := []func(context.Context) error{
		c.StartCA,
		c.StartDirectory,
		func(ctx context.Context) error { return c.StartRouter(ctx, a, extraA) },
		func(ctx context.Context) error { return c.StartRouter(ctx, b, extraB) },
		c.WaitLink,
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// WaitLink waits until both routers have the site link up.
func (c *Company) WaitLink(ctx context.Context) error {
	return Until(ctx, "the site link", linkTimeout, func(ctx context.Context) error {
		for _, s := range []Site{SiteA, SiteB} {
			st, err := c.Status(ctx, s)
			if err != nil {
				return err
			}
			if !slices.ContainsFunc(st.Calls, func(call Call) bool { return call.Kind == "site" && call.State == "up" }) {
				return fmt.Errorf("%s has no site call that is up: %+v", s.Name, st)
			}
		}
		return nil
	}, c.Routers[SiteA.Name], c.Routers[SiteB.Name], c.Directory)
}

// Status is what we read of `twinkey-router status --json`.
type Status struct {
	Name   string `json:"name"`
	Device struct {
		Kind string `json:"kind"` // offload or water
	} `json:"device"`
	Links   []Link `json:"links"`
	Tunnels []struct {
		ID    uint16 `json:"id"`
		Peer  string `json:"peer"`
		Group string `json:"group"`
		State string `json:"state"`
		Calls int    `json:"calls"`
		// PathMTU in bytes of IP packet; Path says how sure it is: "complete" is sure.
		PathMTU int    `json:"path_mtu"`
		Path    string `json:"path"`
	} `json:"tunnels"`
	Calls []Call `json:"calls"`
	// Drops are packets that the router dropped, by cause.
	Drops map[string]uint64 `json:"drops"`
	// Clients are users' own machines that the router vouches for.
	Clients []struct {
		User    string     `json:"user"`
		Address netip.Addr `json:"address"`
	} `json:"clients"`
}

// Link is a call that a router wants to have up.
type Link struct {
	Peer   string `json:"peer"`
	User   string `json:"user"`
	State  string `json:"state"`
	Reason string `json:"reason"`
}

// Call is an L2TP session.
type Call struct {
	ID     uint64 `json:"id"`
	Kind   string `json:"kind"` // site or user
	Peer   string `json:"peer"`
	User   string `json:"user"`
	Tunnel uint16 `json:"tunnel"`
	State  string `json:"state"`
	SPIIn  string `json:"spi_in"`
	SPIOut string `json:"spi_out"`
	Rekeys uint64 `json:"rekeys"`
	// RxBytes of IP packets came out of the call, TxBytes went into it.
	RxBytes uint64 `json:"rx_bytes"`
	TxBytes uint64 `json:"tx_bytes"`
	// Cert is what it stands on, serial@issuer; Ending says why that is not renewed if it ends soon.
	Cert   string `json:"certificate"`
	Ending string `json:"certificate_warning"`
}

// UserCall finds the call of a user that is up.
func (s Status) UserCall(uid string) (Call, bool) { return s.find("user", uid) }

// SiteCall finds the site link that is up.
func (s Status) SiteCall() (Call, bool) { return s.find("site", "") }

func (s Status) find(kind, uid string) (Call, bool) {
	i := slices.IndexFunc(s.Calls, func(c Call) bool { return c.Kind == kind && c.User == uid && c.State == "up" })
	if i < 0 {
		return Call{}, false
	}
	return s.Calls[i], true
}

// Status asks a router.
func (c *Company) Status(ctx context.Context, s Site) (st Status, err error) {
	out, err := c.Router(ctx, s, "status", "--json")
	if err != nil {
		return st, err
	}
	if err := json.Unmarshal([]byte(out), &st); err != nil {
		return st, fmt.Errorf("reading the status of %s: %w:\n%s", s.Name, err, out)
	}
	return st, nil
}

// Router runs a subcommand of the router on its machine.
func (c *Company) Router(ctx context.Context, s Site, args ...string) (string, error) {
	return Run(ctx, c.routerHost(s), c.RouterCommand(s, args...)...)
}

// RouterCommand is what Router runs.
func (c *Company) RouterCommand(s Site, args ...string) []string {
	return append(append([]string{c.router}, args...), "--state", c.path(s.Name))
}

// CACommand runs a subcommand of the CA at headquarters.
func (c *Company) CACommand(ctx context.Context, args ...string) (string, error) {
	argv := append([]string{c.ca}, args...)
	return Run(ctx, c.HQ, append(argv, "--dir", c.path("ca"))...)
}

// DirectoryCommand runs a subcommand of the directory at headquarters.
func (c *Company) DirectoryCommand(ctx context.Context, args ...string) (string, error) {
	argv := append([]string{c.directory}, args...)
	return Run(ctx, c.HQ, append(argv, "--dir", c.path("directory"))...)
}

// AddUser makes a user of UserGroup with this password, which stays in a file that Login uses.
func (c *Company) AddUser(ctx context.Context, uid, password string) error {
	if err := os.WriteFile(c.path(uid+".password"), []byte(password), 0o600); err != nil {
		return fmt.Errorf("adding user %s: %w", uid, err)
	}
	_, err := c.CACommand(ctx, "user", "add", uid, "--group", UserGroup, "--password-file", c.path(uid+".password"))
	return err
}

// Login logs the user in at the router of a site, from an address of its LAN, for a call to peer.
func (c *Company) Login(ctx context.Context, at Site, uid string, address netip.Addr, peer string) error {
	_, err := c.Router(ctx, at, "login", uid, "--address", address.String(), "--peer", peer, "--password-file", c.path(uid+".password"))
	return err
}

// WriteLogs copies all logs to w, for a failure that nobody foresaw.
func (c *Company) WriteLogs(w io.Writer) error {
	files, err := filepath.Glob(c.path("*.log"))
	if err != nil {
		return fmt.Errorf("looking for logs: %w", err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f) //nolint:gosec // our own logs
		if err != nil {
			return fmt.Errorf("reading a log: %w", err)
		}
		if _, err := fmt.Fprintf(w, "--- %s\n%s", filepath.Base(f), b); err != nil {
			return err
		}
	}
	return nil
}
