package radius

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"layeh.com/radius"

	"twinkey/ca/internal/source"
	"twinkey/ca/internal/source/sourcetest"
)

// serveTLS is a RadSec server that answers as a test wants; an answer of nil ends the connection. It returns how many connections
// there were.
func serveTLS(t *testing.T, pki *sourcetest.PKI, answer func(connection, n int, req []byte) [][]byte) (addr string, connections func() int) {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(pki.Cert("radius"), pki.Key("radius"))
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.ReadFile(pki.Root())
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(root)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool})
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var open []net.Conn
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			i := len(open) - 1
			mu.Unlock()
			wg.Go(func() {
				defer c.Close()
				for n := 0; ; n++ {
					req, err := readPacket(c)
					if err != nil {
						return
					}
					answers := answer(i, n, req)
					if answers == nil {
						return
					}
					for _, b := range answers {
						if _, err := c.Write(b); err != nil {
							return
						}
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l.Addr().String(), func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(open)
	}
}

// tlsReply is an answer as a RadSec server signs it.
func tlsReply(t *testing.T, req []byte, change func(*reply)) [][]byte {
	t.Helper()
	r := replyTo(req, radius.CodeAccessAccept, avp(typeFilterID, "staff"))
	r.secret = []byte(radsecSecret)
	if change != nil {
		change(r)
	}
	return [][]byte{r.bytes(t)}
}

// TLS vouches for the server; a server that is broken into, or just broken, is still held to its signatures.
func TestLiesWithinTLS(t *testing.T) {
	pki := newPKI(t)
	for name, tt := range map[string]struct {
		lie   func(*reply)
		raw   []byte
		count string
	}{
		"no Message-Authenticator":       {lie: func(r *reply) { r.signatures = 0 }, count: "dropped: no Message-Authenticator"},
		"a wrong Message-Authenticator":  {lie: func(r *reply) { r.spoil = func(b []byte) { b[headerLen+2] ^= 1 } }, count: "dropped: wrong Message-Authenticator"},
		"a wrong Response Authenticator": {lie: func(r *reply) { r.after = func(b []byte) { b[authAt] ^= 1 } }, count: "dropped: wrong authenticator"},
		"the answer to another request":  {lie: func(r *reply) { r.id++ }, count: "dropped: stray"},
		"a Disconnect-Request":           {lie: func(r *reply) { r.id++; r.code = radius.CodeDisconnectRequest }, count: "dropped: stray"},
		"more than a packet can be":      {raw: []byte{2, 0, 0xff, 0xff}, count: "dropped: malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			addr, connections := serveTLS(t, pki, func(_, n int, req []byte) [][]byte {
				if tt.raw != nil {
					return [][]byte{tt.raw}
				}
				return tlsReply(t, req, tt.lie)
			})
			s := overTLS(t, pki, nil, addr)
			for i := range 2 {
				if a, err := check(t, s); !errors.Is(err, source.ErrUnavailable) {
					t.Errorf("%+v, %v", a, err)
				}
				if counted(s, tt.count) != uint64(i+1) || connections() != i+1 {
					t.Errorf("%d connections, %+v: each lie closes one", connections(), s.State().Counts)
				}
			}
		})
	}
}

// A connection is used for many requests, made anew when the server has closed it, and given up when it is silent.
func TestConnections(t *testing.T) {
	pki := newPKI(t)
	addr, connections := serveTLS(t, pki, func(connection, n int, req []byte) [][]byte {
		switch {
		case connection == 0 && n == 3: // closed in the face of a request
			return nil
		case connection == 1 && n == 2: // silent
			return [][]byte{}
		}
		return tlsReply(t, req, nil)
	})
	s := overTLS(t, pki, func(c *Config) { c.Wait, c.Tries = 2*time.Second, 1 }, addr)
	for i, want := range []struct {
		connections int
		err         error
	}{{1, nil}, {1, nil}, {1, nil}, {2, nil}, {2, nil}, {2, source.ErrUnavailable}, {3, nil}} {
		if _, err := check(t, s); !errors.Is(err, want.err) || connections() != want.connections {
			t.Errorf("request %d: %v, %d connections, want %v and %d", i, err, connections(), want.err, want.connections)
		}
	}
	// A server that closes at once is not tried for ever.
	addr, connections = serveTLS(t, pki, func(int, int, []byte) [][]byte { return nil })
	s = overTLS(t, pki, nil, addr)
	if _, err := check(t, s); !errors.Is(err, source.ErrUnavailable) || !errors.Is(err, errBroken) || connections() != 1 {
		t.Errorf("%v, %d connections", err, connections())
	}
}

// A connection that is dead is given up although whoever logs in gives up first, and requests that go into it do not keep it.
func TestDeadConnection(t *testing.T) {
	pki := newPKI(t)
	addr, connections := serveTLS(t, pki, func(connection, _ int, req []byte) [][]byte {
		if connection == 0 {
			return [][]byte{}
		}
		return tlsReply(t, req, nil)
	})
	s := overTLS(t, pki, func(c *Config) { c.Wait, c.Tries = 100*time.Millisecond, 8 }, addr)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if _, err := s.Check(ctx, "alice", []byte(password)); !errors.Is(err, source.ErrUnavailable) {
		t.Errorf("%v", err)
	}
	if _, err := check(t, s); err != nil || connections() != 2 {
		t.Errorf("%v, %d connections", err, connections())
	}

	c := &conn{}
	for i, want := range []bool{true, false, false} {
		if _, alone, err := c.reserve([]byte(radsecSecret), radius.CodeAccessRequest, func(*radius.Packet) error { return nil }); err != nil || alone != want {
			t.Errorf("request %d: alone is %t, %v", i, alone, err)
		}
	}
}

// Answers in another order than the requests find whom they are for.
func TestAnswersOutOfOrder(t *testing.T) {
	pki := newPKI(t)
	const many = 20
	var held [][]byte
	addr, connections := serveTLS(t, pki, func(_, n int, req []byte) [][]byte {
		p, err := parse(req)
		if err != nil {
			t.Error(err)
			return nil
		}
		uid, _ := p.Lookup(typeUserName)
		held = append(tlsReply(t, req, func(r *reply) { r.attrs = radius.Attributes{avp(typeFilterID, "group-of-"+string(uid))} }), held...)
		if len(held) < many {
			return [][]byte{}
		}
		return held
	})
	s := overTLS(t, pki, nil, addr)
	if c, _, err := s.links[addr].connect(t.Context()); err != nil || c == nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range many {
		wg.Go(func() {
			uid := string(rune('a'+i)) + "lice"
			if a, err := s.Check(t.Context(), uid, []byte(password)); err != nil || a.Group != "group-of-"+uid {
				t.Errorf("%s: %+v, %v", uid, a, err)
			}
		})
	}
	wg.Wait()
	if connections() != 1 {
		t.Errorf("%d connections", connections())
	}
}

// What is plain is not spoken to.
func TestNoTLSNoPassword(t *testing.T) {
	pki := newPKI(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := make(chan byte, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		var b [1]byte
		_, _ = c.Read(b[:])
		got <- b[0]
		_, _ = c.Write([]byte("\x02\x00\x00\x14 no TLS at all"))
	}()
	s := overTLS(t, pki, func(c *Config) { c.Wait = 100 * time.Millisecond }, l.Addr().String())
	if _, err := check(t, s); !errors.Is(err, source.ErrUnavailable) {
		t.Errorf("%v", err)
	}
	const handshake = 22 // RFC 8446 5.1
	if b := <-got; b != handshake {
		t.Errorf("the first byte sent is %d", b)
	}
}

// Our certificate is replaced while we run: the next connection shows the new one.
func TestCertificateRenewed(t *testing.T) {
	pki, other := newPKI(t), newPKI(t)
	addr, _ := serveTLS(t, pki, func(_, _ int, req []byte) [][]byte { return tlsReply(t, req, nil) })
	s := overTLS(t, pki, func(c *Config) { c.Certificate, c.Key = other.Cert("ca"), other.Key("ca") }, addr)
	if _, err := check(t, s); !errors.Is(err, source.ErrUnavailable) {
		t.Fatalf("with another's certificate: %v", err)
	}
	for from, to := range map[string]string{pki.Cert("ca"): other.Cert("ca"), pki.Key("ca"): other.Key("ca")} {
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := check(t, s); err != nil {
		t.Error(err)
	}
}
