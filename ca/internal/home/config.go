package home

import (
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"twinkey/ca/internal/issue"
	"twinkey/pkg/config"
	"twinkey/pkg/lockout"
	"twinkey/pkg/twincert"
)

// Config is ca.yaml.
type Config struct {
	Name      string            `yaml:"name" doc:"Company; it stands in the certificates of the CA." default:"Example Corp"`
	Hosts     []string          `yaml:"hosts" doc:"Names and addresses under which the CA is reached; they stand in its TLS certificate." example:"[ca.example, 192.0.2.10]"`
	URL       string            `yaml:"url" doc:"Where boxes reach the CA. Certificates name URL/crl as the place of the CRL." example:"https://ca.example:8700"`
	Listen    config.TCPAddress `yaml:"listen" doc:"TCP address of the server." default:":8700"`
	Directory string            `yaml:"directory" doc:"URL of the directory. Without one nothing but the directory itself can be enrolled." example:"https://directory.example:8702"`
	ACME      bool              `yaml:"acme" doc:"Give plain TLS certificates by ACME to whoever answers the challenge. They open nothing in twinkey." default:"true"`
	Domain    string            `yaml:"portal-domain" doc:"Domain of the routers' login portals: the portal of router ra may be called ra.DOMAIN, besides ra and its address; empty: no more than those. Nobody else gets a certificate for such a name by ACME." example:"portal.example"`
	Profile   string            `yaml:"profile" doc:"Form of the twin certificates: paper (two keys in SubjectPublicKeyInfo) or compat (readable for standard tools)." default:"paper"`
	Patience  time.Duration     `yaml:"patience" doc:"How long a command waits for the directory before it gives up." default:"10s"`
	Renew     bool              `yaml:"renew-users" doc:"Renew local users' certificates by itself after two thirds of their life, with the same keys and without a password, until the user is revoked. A call that is up goes on." default:"false"`
	Validity  Validity          `yaml:"validity" doc:"How long things live."`
	Sources   []SourceConfig    `yaml:"sources" doc:"Who else knows users and their passwords: RADIUS and LDAP servers, asked in this order. Try one with: twinkey-ca source test NAME UID."`
	Lockout   Lockout           `yaml:"lockout" doc:"When wrong passwords of users of sources lock. If a source locks accounts itself: failures below its threshold, window and lock no shorter than the time for which it counts; otherwise whoever guesses at a router locks users out everywhere."`
}

// Lockout says when wrong passwords of users of sources lock.
type Lockout struct {
	Failures  int           `yaml:"failures" doc:"How many of one user, within the window, lock." default:"10"`
	Window    time.Duration `yaml:"window" doc:"From the first failure on." default:"15m"`
	Lock      time.Duration `yaml:"lock" doc:"How long the first lock is; each later one is twice as long, up to an hour or this." default:"1m"`
	Strangers int           `yaml:"strangers" doc:"After how many of a user out of the router's scope the source is not asked by this router for an hour; the answer stays that of a wrong password." default:"3"`
}

// Policy is what it comes to.
func (l Lockout) Policy() lockout.Policy {
	p := lockout.Default()
	p.UserFailures, p.Window, p.Lock, p.MaxLock = l.Failures, l.Window, l.Lock, max(p.MaxLock, l.Lock)
	return p
}

func (l Lockout) check(key string) error {
	for k, n := range map[string]int{"failures": l.Failures, "strangers": l.Strangers} {
		if n < 1 || n > mostFailures {
			return config.Wrong(key+"."+k, fmt.Errorf("%d is not within 1 and %d", n, mostFailures))
		}
	}
	for k, d := range map[string]time.Duration{"window": l.Window, "lock": l.Lock} {
		if d < leastLock || d > mostLock {
			return config.Wrong(key+"."+k, fmt.Errorf("%s is not within %s and %s", d, leastLock, mostLock))
		}
	}
	return nil
}

// Validity is how long things live.
type Validity struct {
	Router time.Duration `yaml:"router" doc:"Twin certificates of routers." default:"2160h"`
	TLS    time.Duration `yaml:"tls" doc:"TLS certificates of routers, of the directory and of the CA itself." default:"2160h"`
	User   time.Duration `yaml:"user" doc:"Twin certificates of users." default:"720h"`
	Grace  time.Duration `yaml:"grace" doc:"How long after expiry a router or directory may still renew, and a user is renewed by renew-users." default:"720h"`
	CRL    time.Duration `yaml:"crl" doc:"From one CRL to its nextUpdate; a new one is made after a third of it." default:"24h"`
}

// Bounds of the terms: the least leaves time to renew, the most is what a leaked key costs.
const (
	leastTerm = time.Minute
	mostTerm  = 2 * 365 * 24 * time.Hour
	mostCRL   = 30 * 24 * time.Hour
	mostWait  = 30 * time.Second // twice this, and the client still waits

	mostFailures = 100 // as many lock the router
	leastLock    = time.Minute
	mostLock     = 24 * time.Hour // after which failures are forgotten
)

// LoadConfig reads the ca.yaml of a home.
func LoadConfig(dir string) (Config, error) {
	return config.Load(filepath.Join(dir, fileConfig), func(c Config) error { return c.check() })
}

// check fails with a *config.Error.
func (c *Config) check() error {
	wrong := func(key, format string, args ...any) error { return config.Wrong(key, fmt.Errorf(format, args...)) }
	if len(c.Hosts) == 0 {
		return wrong("hosts", "at least one name or address is needed")
	}
	for i, h := range c.Hosts {
		if err := issue.CheckHost(h); err != nil {
			return config.Wrong(fmt.Sprintf("hosts[%d]", i), err)
		}
	}
	for key, raw := range map[string]string{"url": c.URL, "directory": c.Directory} {
		if key == "directory" && raw == "" {
			continue
		}
		u, err := url.Parse(raw)
		if err != nil || u.Scheme != "https" || u.Host == "" {
			return wrong(key, "%q is no https:// URL", raw)
		}
	}
	if _, err := netip.ParseAddr(c.Domain); c.Domain != "" && (err == nil || issue.CheckHost(c.Domain) != nil || strings.Trim(c.Domain, ".") != c.Domain) {
		return wrong("portal-domain", "%q is no domain in lower case, such as portal.example", c.Domain)
	}
	if _, err := twincert.ParseProfile(c.Profile); err != nil {
		return config.Wrong("profile", err)
	}
	for _, t := range []struct {
		key  string
		got  time.Duration
		most time.Duration
	}{
		{"validity.router", c.Validity.Router, mostTerm}, {"validity.tls", c.Validity.TLS, mostTerm}, {"validity.user", c.Validity.User, mostTerm},
		{"validity.crl", c.Validity.CRL, mostCRL},
	} {
		if t.got < leastTerm || t.got > t.most {
			return wrong(t.key, "%s is not within %s and %s", t.got, leastTerm, t.most)
		}
	}
	if c.Validity.Grace < 0 || c.Validity.Grace > mostTerm {
		return wrong("validity.grace", "%s is not within 0 and %s", c.Validity.Grace, mostTerm)
	}
	if c.Patience < time.Second || c.Patience > mostWait {
		return wrong("patience", "%s is not within 1s and %s", c.Patience, mostWait)
	}
	if err := c.Lockout.check("lockout"); err != nil {
		return err
	}
	return checkSources(c.Sources)
}

// CRLURL is where the CRL lies.
func (c *Config) CRLURL() string { return strings.TrimRight(c.URL, "/") + "/crl" }

// yaml writes c as a commented file. Every value is quoted as JSON, which YAML reads.
func (c *Config) yaml() string {
	doc := config.Document[Config]()
	set := func(key, value string) {
		lines := strings.Split(doc, "\n")
		for i, l := range lines {
			if bare := strings.TrimPrefix(strings.TrimPrefix(l, "#"), " "); strings.HasPrefix(bare, key+":") {
				lines[i] = key + ": " + value
				break
			}
		}
		doc = strings.Join(lines, "\n")
	}
	quoted := make([]string, len(c.Hosts))
	for i, h := range c.Hosts {
		quoted[i] = fmt.Sprintf("%q", h)
	}
	set("name", fmt.Sprintf("%q", c.Name))
	set("hosts", "["+strings.Join(quoted, ", ")+"]")
	set("url", fmt.Sprintf("%q", c.URL))
	if c.Directory != "" {
		set("directory", fmt.Sprintf("%q", c.Directory))
	}
	set("profile", c.Profile)
	return doc
}
