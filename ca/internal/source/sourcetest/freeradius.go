package sourcetest

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

// Secret is what a FreeRADIUS shares with its clients.
const Secret = "a secret of thirty-two characters"

// FreeRADIUS is a server that runs, with its own ports.
type FreeRADIUS struct {
	*Process
	Auth, Acct, TLS netip.AddrPort // TLS is zero without a PKI
	detail          string
}

// StartFreeRADIUS runs one with a file of users as users(5) describes it. With a PKI, which must have issued the
// certificates "radius", it speaks RadSec besides, to whoever has one of its certificates. tls is the TLS version, such as 1.2.
func StartFreeRADIUS(tb testing.TB, users string, pki *PKI, tls string) *FreeRADIUS {
	tb.Helper()
	program := Program(tb, "freeradius", "freeradius")
	dir := tb.TempDir()
	f := &FreeRADIUS{Auth: FreePort(tb), Acct: FreePort(tb), detail: filepath.Join(dir, "detail")}
	WriteFile(tb, dir, "users", users)
	radsec := ""
	if pki != nil {
		f.TLS = FreePort(tb)
		radsec = fmt.Sprintf(`
listen {
	ipaddr = 127.0.0.1
	port = %d
	type = auth+acct
	proto = tcp
	virtual_server = all
	clients = radsec
	limit {
		max_connections = 16
		lifetime = 0
		idle_timeout = 30
	}
	tls {
		private_key_file = %s
		certificate_file = %s
		ca_file = %s
		require_client_cert = yes
		tls_min_version = "%s"
		tls_max_version = "%s"
		cipher_list = "DEFAULT"
		ecdh_curve = ""
		fragment_size = 8192
	}
}
clients radsec {
	client 127.0.0.1 {
		ipaddr = 127.0.0.1
		proto = tls
		secret = radsec
	}
}
`, f.TLS.Port(), pki.Key("radius"), pki.Cert("radius"), pki.Root(), tls, tls)
	}
	WriteFile(tb, dir, "radiusd.conf", fmt.Sprintf(`
prefix = /usr
libdir = /usr/lib/freeradius
confdir = %[1]s
raddbdir = %[1]s
logdir = %[1]s
run_dir = %[1]s
pidfile = %[1]s/pid
max_request_time = 10
cleanup_delay = 2
max_requests = 4096
hostname_lookups = no
security {
	allow_core_dumps = no
	max_attributes = 200
	reject_delay = 0
	status_server = no
	allow_vulnerable_openssl = yes
}
proxy_requests = no
thread pool {
	start_servers = 1
	max_servers = 2
	min_spare_servers = 1
	max_spare_servers = 2
	max_requests_per_server = 0
}
modules {
	pap {
	}
	files {
		filename = %[1]s/users
	}
	detail {
		filename = %[4]s
		permissions = 0600
	}
	always reject {
		rcode = reject
	}
}
client loopback {
	ipaddr = 127.0.0.1
	secret = "%[5]s"
	require_message_authenticator = yes
}
server all {
	listen {
		type = auth
		ipaddr = 127.0.0.1
		port = %[2]d
	}
	listen {
		type = acct
		ipaddr = 127.0.0.1
		port = %[3]d
	}
	authorize {
		files
		pap
	}
	authenticate {
		Auth-Type PAP {
			pap
		}
	}
	accounting {
		detail
	}
	post-auth {
		update reply {
			Message-Authenticator := 0x00
		}
		Post-Auth-Type REJECT {
			update reply {
				Message-Authenticator := 0x00
			}
		}
		Post-Auth-Type Challenge {
			update reply {
				Message-Authenticator := 0x00
			}
		}
	}
}
%[6]s`, dir, f.Auth.Port(), f.Acct.Port(), f.detail, Secret, radsec))
	f.Process = start(tb, func(p *Process) bool { return p.says("Ready to process requests") }, program, "-f", "-d", dir, "-n", "radiusd", "-l", "stdout", "-xx")
	return f
}

// Detail is what it noted of accounting; empty before the first event.
func (f *FreeRADIUS) Detail(tb testing.TB) string {
	tb.Helper()
	b, err := os.ReadFile(f.detail)
	if err != nil && !os.IsNotExist(err) {
		tb.Fatal(err)
	}
	return string(b)
}
