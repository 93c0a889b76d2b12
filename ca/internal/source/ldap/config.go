package ldap

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"

	"twinkey/ca/internal/source"
	"twinkey/pkg/config"
)

// Config is the section ldap of a source.
type Config struct {
	Servers        []string         `yaml:"servers" doc:"Servers: ldaps:// is TLS, ldap:// is StartTLS, ldapi:// with a path is a socket of this machine. The next one is asked when one cannot be reached." example:"[\"ldaps://ldap1.example\", \"ldap://ldap2.example\"]"`
	Plain          bool             `yaml:"plain" doc:"No TLS; only for ldapi:// and loopback addresses." default:"false"`
	Root           string           `yaml:"root" doc:"File with the root certificate of the servers, relative to the CA's directory; root.crt is our own. Without one, the system's." example:"root.crt"`
	ServerName     string           `yaml:"server_name" doc:"Name in the servers' certificates, if it is not the host above." example:"ldap.example"`
	BindDN         string           `yaml:"bind_dn" doc:"Service account that may search. Without one, whatever anybody may." example:"cn=twinkey,ou=services,dc=example"`
	SecretFile     string           `yaml:"secret_file" doc:"File with its password, mode 0600." example:"ldap.secret"`
	Base           string           `yaml:"base" doc:"Where users are searched for, with all that is below." example:"ou=people,dc=example"`
	Filter         string           `yaml:"filter" doc:"Who may log in; %s stands for the UserID. Disabled accounts must not match: add (!(pwdAccountLockedTime=*)) for OpenLDAP's ppolicy, (!(userAccountControl:1.2.840.113556.1.4.803:=2)) for Active Directory." default:"(&(objectClass=person)(uid=%s))"`
	GroupAttribute string           `yaml:"group_attribute" doc:"Attribute of the user that names the group, such as memberOf or departmentNumber." example:"memberOf"`
	GroupBase      string           `yaml:"group_base" doc:"Where groups are searched for whose member the user is; their DNs are looked up below." example:"ou=groups,dc=example"`
	GroupFilter    string           `yaml:"group_filter" doc:"Groups of a user; %s stands for the DN of the user." default:"(member=%s)"`
	Groups         []source.Mapping `yaml:"groups" doc:"What groups mean; the first that fits. Without any, the attribute's value is the group."`
	Group          string           `yaml:"group" doc:"Tunnel group of whom none of them fits." example:"staff"`
	Timeout        time.Duration    `yaml:"timeout" doc:"How long a server may take for one answer." default:"5s"`
	Interval       time.Duration    `yaml:"interval" doc:"How often those who logged in are looked for; whoever no longer matches the filter is cut off." default:"1m"`
}

// Bounds of the configuration.
const (
	maxServers    = 8
	leastTimeout  = 100 * time.Millisecond
	mostTimeout   = 30 * time.Second
	leastInterval = time.Second
	mostInterval  = 24 * time.Hour
)

// Schemes of Servers.
const (
	schemeTLS      = "ldaps"
	schemeStartTLS = "ldap"
	schemeSocket   = "ldapi"
)

// placeholder is what stands in a filter for what is looked for.
const placeholder = "%s"

// Check fails with a *config.Error; key is the path of the section.
func (c *Config) Check(key string) error {
	wrong := func(k, format string, args ...any) error {
		return config.Wrong(key+"."+k, fmt.Errorf(format, args...))
	}
	if len(c.Servers) == 0 || len(c.Servers) > maxServers {
		return wrong("servers", "1 to %d are needed", maxServers)
	}
	for i, s := range c.Servers {
		if err := c.checkServer(s); err != nil {
			return config.Wrong(fmt.Sprintf("%s.servers[%d]", key, i), err)
		}
		if slices.Contains(c.Servers[:i], s) {
			return config.Wrong(fmt.Sprintf("%s.servers[%d]", key, i), fmt.Errorf("%q stands there twice", s))
		}
	}
	if (c.BindDN == "") != (c.SecretFile == "") {
		return wrong("bind_dn", "bind_dn and secret_file are given together")
	}
	for k, dn := range map[string]string{"base": c.Base, "bind_dn": c.BindDN, "group_base": c.GroupBase} {
		if _, err := ldap.ParseDN(dn); err != nil {
			return wrong(k, "%q is no DN: %w", dn, err)
		}
	}
	if c.Base == "" {
		return wrong("base", "where are the users?")
	}
	for k, f := range map[string]string{"filter": c.Filter, "group_filter": c.GroupFilter} {
		if !strings.Contains(f, placeholder) {
			return wrong(k, "%q has no %s in it, so everybody would match", f, placeholder)
		}
		if _, err := ldap.CompileFilter(fill(f, "x")); err != nil {
			return wrong(k, "%q is no filter: %w", f, err)
		}
	}
	if c.GroupBase != "" && len(c.Groups) == 0 {
		return wrong("groups", "the DNs of groups have to be given a meaning")
	}
	if err := source.CheckGroups(key, c.Groups, c.Group); err != nil {
		return err
	}
	if c.Timeout < leastTimeout || c.Timeout > mostTimeout {
		return wrong("timeout", "%s is not within %s and %s", c.Timeout, leastTimeout, mostTimeout)
	}
	if c.Interval < leastInterval || c.Interval > mostInterval {
		return wrong("interval", "%s is not within %s and %s", c.Interval, leastInterval, mostInterval)
	}
	return nil
}

func (c *Config) checkServer(s string) error {
	u, err := url.Parse(s)
	if err != nil {
		return err
	}
	switch {
	case u.Scheme == schemeSocket:
		if u.Host != "" || u.Path == "" || u.Path == "/" {
			return fmt.Errorf("%q names no socket; write ldapi:///run/slapd/ldapi", s)
		}
		if !c.Plain {
			return errors.New(`a socket has no TLS: say "plain: true" if that is meant`)
		}
		return nil
	case u.Scheme != schemeTLS && u.Scheme != schemeStartTLS, u.Hostname() == "", u.Path != "" && u.Path != "/", u.RawQuery != "", u.User != nil:
		return fmt.Errorf("%q is no server; write ldaps://ldap.example, ldap://ldap.example:389 (StartTLS) or ldapi:///run/slapd/ldapi", s)
	case !c.Plain:
		return nil
	case u.Scheme == schemeTLS:
		return errors.New(`"plain: true" and ldaps:// contradict each other`)
	}
	if a, err := netip.ParseAddr(u.Hostname()); err != nil || !a.IsLoopback() {
		return fmt.Errorf("%s is no loopback address: passwords do not cross a network in the clear", u.Hostname())
	}
	return nil
}

// fill puts what is looked for into a filter.
func fill(filter, what string) string {
	return strings.ReplaceAll(filter, placeholder, ldap.EscapeFilter(what))
}

// address is where to connect to.
func address(u *url.URL) (network, addr string) {
	switch {
	case u.Scheme == schemeSocket:
		return "unix", u.Path
	case u.Port() != "":
		return "tcp", u.Host
	case u.Scheme == schemeTLS:
		return "tcp", net.JoinHostPort(u.Hostname(), ldap.DefaultLdapsPort)
	}
	return "tcp", net.JoinHostPort(u.Hostname(), ldap.DefaultLdapPort)
}
