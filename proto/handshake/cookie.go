package handshake

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"time"

	"twinkey/proto/secret"
)

// CookieLife is how long a CookieJar's secret is used to bake. A cookie is accepted for
// between one and two of it.
const CookieLife = 2 * time.Minute

// CookieSize is the length of a cookie in bytes.
const CookieSize = 16

const labelCookie = "twinkey cookie v1"

// CookieJar makes and checks cookies that prove, without any state per peer, that whoever
// speaks receives at the address it speaks from:
//
//	secret(n) = HMAC-SHA256(master, label | n), n the number of the CookieLife that it is
//	cookie    = first 16 bytes of HMAC-SHA256(secret(n), address (16) | port (2) | id)
//
// A clock that jumps makes cookies stale, no more: the peer gets a new one. A CookieJar
// does not change after NewCookieJar and is safe for concurrent use.
type CookieJar struct{ master secret.Key }

// NewCookieJar draws the master secret.
func NewCookieJar(rand io.Reader) (*CookieJar, error) {
	b := make([]byte, sha256.Size)
	if _, err := io.ReadFull(rand, b); err != nil {
		return nil, fmt.Errorf("drawing the cookie secret: %w", err)
	}
	return &CookieJar{secret.New(b)}, nil
}

// Bake returns the cookie for a peer at from that gave id, the initiator's tunnel ID or
// message 1.
func (j *CookieJar) Bake(now time.Time, from netip.AddrPort, id []byte) [CookieSize]byte {
	return j.bake(lifetime(now), from, id)
}

// Check says whether cookie was baked for from and id in this CookieLife or the one
// before. It takes the same time for every cookie of the right length.
func (j *CookieJar) Check(now time.Time, from netip.AddrPort, id, cookie []byte) bool {
	n := lifetime(now)
	fresh, stale := j.bake(n, from, id), j.bake(n-1, from, id)
	isFresh, isStale := hmac.Equal(fresh[:], cookie), hmac.Equal(stale[:], cookie)
	return isFresh || isStale
}

func lifetime(now time.Time) int64 { return now.Unix() / int64(CookieLife/time.Second) }

func (j *CookieJar) bake(n int64, from netip.AddrPort, id []byte) [CookieSize]byte {
	mac := hmac.New(sha256.New, j.master.Bytes())
	mac.Write(binary.BigEndian.AppendUint64([]byte(labelCookie), uint64(n))) //nolint:gosec // a number, whatever its sign
	key := mac.Sum(nil)
	defer clear(key)
	mac = hmac.New(sha256.New, key)
	address := from.Addr().As16() // the same for 192.0.2.1 and ::ffff:192.0.2.1
	mac.Write(binary.BigEndian.AppendUint16(address[:], from.Port()))
	mac.Write(id)
	return [CookieSize]byte(mac.Sum(nil))
}
