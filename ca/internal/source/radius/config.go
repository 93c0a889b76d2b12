package radius

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"layeh.com/radius"

	"twinkey/ca/internal/source"
	"twinkey/pkg/config"
)

// Config is the section radius of a source.
type Config struct {
	Servers        []string         `yaml:"servers" doc:"Servers as host:port; the next one is asked when one is silent. The port of RadSec is 2083, that of UDP 1812." example:"[radius1.example:2083, radius2.example:2083]"`
	Transport      string           `yaml:"transport" doc:"radsec (TLS, RFC 6614) or udp, which hides the password by MD5 only and nothing else at all: use it where nobody else has the line." default:"radsec"`
	Root           string           `yaml:"root" doc:"RadSec: file with the root certificate of the servers, relative to the CA's directory; root.crt is our own. Without one, the system's." example:"root.crt"`
	ServerName     string           `yaml:"server_name" doc:"RadSec: name in the servers' certificates, if it is not the host above." example:"radius.example"`
	Certificate    string           `yaml:"certificate" doc:"RadSec: file with our certificate (PEM)." example:"identity/current/tls.pem"`
	Key            string           `yaml:"key" doc:"RadSec: file with the key to it, mode 0600." example:"identity/current/tls.key"`
	SecretFile     string           `yaml:"secret_file" doc:"UDP: file with the shared secret, mode 0600." example:"radius.secret"`
	NASIdentifier  string           `yaml:"nas_identifier" doc:"How we call ourselves (NAS-Identifier)." default:"twinkey-ca"`
	GroupAttribute string           `yaml:"group_attribute" doc:"Attribute that names the tunnel group: Filter-Id, Class, Tunnel-Private-Group-Id, or 26.VENDOR.TYPE for a vendor's." default:"Filter-Id"`
	Groups         []source.Mapping `yaml:"groups" doc:"What its values mean; the first that fits. Without any, the value is the group."`
	Group          string           `yaml:"group" doc:"Tunnel group of whom the server puts into none." example:"staff"`
	Wait           time.Duration    `yaml:"wait" doc:"How long to wait for an answer before asking again; each time twice as long." default:"1s"`
	Tries          int              `yaml:"tries" doc:"How often a server is asked before the next one is." default:"3"`
	Accounting     []string         `yaml:"accounting" doc:"Servers that are told of calls, as host:port: RadSec 2083, UDP 1813. None: nobody is." example:"[radius1.example:2083]"`
	Disconnect     Disconnect       `yaml:"disconnect" doc:"Disconnect-Requests and CoA-Requests (RFC 5176): a server ends the calls of a user, whose certificate is withdrawn, or puts them into another group or under another time. They come by UDP."`
}

// Disconnect says who may end or change a user's calls.
type Disconnect struct {
	Listen  netip.AddrPort    `yaml:"listen" doc:"UDP address to listen on; without one nobody is listened to." example:"192.0.2.10:3799"`
	Clients map[string]string `yaml:"clients" doc:"Who may send them: address, and the file with the secret shared with it, mode 0600." example:"{192.0.2.20: disconnect.secret}"`
	Window  time.Duration     `yaml:"window" doc:"How far the sender's clock may be from ours." default:"300s"`
}

// Values of Transport.
const (
	RadSec = "radsec"
	UDP    = "udp"
)

// Bounds of the configuration.
const (
	maxServers  = 8
	maxClients  = 64
	maxTries    = 8
	leastWait   = 50 * time.Millisecond
	mostWaiting = 50 * time.Second // for one server: whoever logs in waits for it
	mostWindow  = time.Hour
	goodSecret  = 16 // octets, RFC 2865 3
	maxString   = 253
)

// waiting is how long one server is given in all.
func (c *Config) waiting() time.Duration { return c.Wait * time.Duration(int64(1)<<c.Tries-1) }

// Check fails with a *config.Error; key is the path of the section.
func (c *Config) Check(key string) error {
	wrong := func(k, format string, args ...any) error {
		return config.Wrong(key+"."+k, fmt.Errorf(format, args...))
	}
	if len(c.Servers) == 0 {
		return wrong("servers", "at least one is needed")
	}
	for k, list := range map[string][]string{"servers": c.Servers, "accounting": c.Accounting} {
		if len(list) > maxServers {
			return wrong(k, "more than %d", maxServers)
		}
		for i, s := range list {
			if err := checkServer(s); err != nil {
				return config.Wrong(fmt.Sprintf("%s.%s[%d]", key, k, i), err)
			}
			if slices.Contains(list[:i], s) {
				return config.Wrong(fmt.Sprintf("%s.%s[%d]", key, k, i), fmt.Errorf("%q stands there twice", s))
			}
		}
	}
	switch c.Transport {
	case RadSec:
		if c.Certificate == "" {
			return wrong("certificate", "RadSec needs a certificate of ours: the server has to know us")
		}
		if c.Key == "" {
			return wrong("key", "RadSec needs the key to our certificate")
		}
		if c.SecretFile != "" {
			return wrong("secret_file", `RadSec has no secret of its own, both sides show certificates; it is for "transport: udp"`)
		}
	case UDP:
		if c.SecretFile == "" {
			return wrong("secret_file", "UDP needs the secret that is shared with the server")
		}
		for k, v := range map[string]string{"certificate": c.Certificate, "key": c.Key, "root": c.Root, "server_name": c.ServerName} {
			if v != "" {
				return wrong(k, `UDP knows no certificates; it is for "transport: radsec"`)
			}
		}
	default:
		return wrong("transport", "%q is neither %s nor %s", c.Transport, RadSec, UDP)
	}
	if c.NASIdentifier == "" || len(c.NASIdentifier) > maxString {
		return wrong("nas_identifier", "it has 1 to %d bytes", maxString)
	}
	if _, err := parseAttribute(c.GroupAttribute); err != nil {
		return config.Wrong(key+".group_attribute", err)
	}
	if err := source.CheckGroups(key, c.Groups, c.Group); err != nil {
		return err
	}
	if c.Tries < 1 || c.Tries > maxTries {
		return wrong("tries", "%d is not within 1 and %d", c.Tries, maxTries)
	}
	if c.Wait < leastWait || c.waiting() > mostWaiting {
		return wrong("wait", "%s is less than %s, or %d tries take longer than %s", c.Wait, leastWait, c.Tries, mostWaiting)
	}
	return c.Disconnect.check(key + ".disconnect")
}

func (d *Disconnect) check(key string) error {
	if d.Listen.IsValid() != (len(d.Clients) > 0) {
		return config.Wrong(key, errors.New("listen and clients are given together: who listens must know to whom"))
	}
	if len(d.Clients) > maxClients {
		return config.Wrong(key+".clients", fmt.Errorf("more than %d", maxClients))
	}
	for addr, file := range d.Clients {
		if _, err := netip.ParseAddr(addr); err != nil {
			return config.Wrong(key+".clients."+addr, fmt.Errorf("%q is no address", addr))
		}
		if file == "" {
			return config.Wrong(key+".clients."+addr, errors.New("the file with the secret is missing"))
		}
	}
	if d.Window < time.Second || d.Window > mostWindow {
		return config.Wrong(key+".window", fmt.Errorf("%s is not within 1s and %s", d.Window, mostWindow))
	}
	return nil
}

func checkServer(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" {
		return fmt.Errorf("%q is no host:port, such as radius.example:2083", s)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("%q: %q is no port", s, port)
	}
	return nil
}

// attribute says where in a packet a string stands.
type attribute struct {
	typ        radius.Type
	vendor     uint32 // of typ 26
	vendorType byte
	tagged     bool // RFC 2868 3: an octet up to 0x1f before the string is a tag
	name       string
}

// parseAttribute reads the name of an attribute with a string in it; a vendor's is written as RFC 6929 2.7 does.
func parseAttribute(name string) (attribute, error) {
	for _, a := range []attribute{
		{typ: typeFilterID, name: "Filter-Id"},
		{typ: typeClass, name: "Class"},
		{typ: typeTunnelPrivateGroupID, name: "Tunnel-Private-Group-Id", tagged: true},
	} {
		if strings.EqualFold(name, a.name) {
			return a, nil
		}
	}
	if p := strings.Split(name, "."); len(p) == 3 && p[0] == "26" {
		vendor, errV := strconv.ParseUint(p[1], 10, 24) // RFC 2865 5.26: the high octet is 0
		typ, errT := strconv.ParseUint(p[2], 10, 8)
		if errV == nil && errT == nil && vendor > 0 && typ > 0 {
			return attribute{typ: typeVendorSpecific, vendor: uint32(vendor), vendorType: byte(typ), name: name}, nil
		}
	}
	return attribute{}, fmt.Errorf("%q is none of Filter-Id, Class, Tunnel-Private-Group-Id or 26.VENDOR.TYPE, such as 26.9.1", name)
}

// values are all strings of the attribute in a packet, in their order.
func (a attribute) values(attrs radius.Attributes) []string {
	var out []string
	for _, v := range attrs {
		if v.Type != a.typ {
			continue
		}
		switch {
		case a.typ == typeVendorSpecific:
			out = append(out, a.vendorValues(v.Attribute)...)
		case a.tagged && len(v.Attribute) > 0 && v.Attribute[0] <= 0x1f:
			out = append(out, string(v.Attribute[1:]))
		default:
			out = append(out, string(v.Attribute))
		}
	}
	return out
}

// is says whether v is the attribute, and nothing besides.
func (a attribute) is(v *radius.AVP) bool {
	if v.Type != a.typ || a.typ != typeVendorSpecific {
		return v.Type == a.typ
	}
	n := vendorLen
	for _, value := range a.vendorValues(v.Attribute) {
		n += vendorHead + len(value)
	}
	return n > vendorLen && n == len(v.Attribute)
}

// What stands before the values in a Vendor-Specific attribute: the vendor, and before each of them type and length.
const vendorLen, vendorHead = 4, 2

// vendorValues reads a Vendor-Specific attribute of the form that RFC 2865 5.26 recommends: vendor, then
// type, length, value, of which there may be several. What has another form has no values.
func (a attribute) vendorValues(v radius.Attribute) []string {
	if len(v) < vendorLen || uint32(v[0])<<24|uint32(v[1])<<16|uint32(v[2])<<8|uint32(v[3]) != a.vendor {
		return nil
	}
	var out []string
	for rest := v[vendorLen:]; len(rest) >= vendorHead; {
		n := int(rest[1])
		if n < vendorHead || n > len(rest) {
			break
		}
		if rest[0] == a.vendorType {
			out = append(out, string(rest[vendorHead:n]))
		}
		rest = rest[n:]
	}
	return out
}
