package twincert

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unique"
)

// Profile says where the second key stands.
type Profile uint8

// The profiles.
const (
	Paper  Profile = iota + 1 // two BIT STRINGs in SubjectPublicKeyInfo
	Compat                    // the data key in the extension subjectAltPublicKeyInfo
)

func (p Profile) String() string {
	switch p {
	case Paper:
		return "paper"
	case Compat:
		return "compat"
	}
	return "unknown"
}

// ParseProfile is the inverse of String.
func ParseProfile(s string) (Profile, error) {
	for _, p := range []Profile{Paper, Compat} {
		if p.String() == s {
			return p, nil
		}
	}
	return 0, fmt.Errorf("profile %q is neither paper nor compat", s)
}

// Role says what the bearer is.
type Role uint8

// The roles.
const (
	Router Role = iota + 1
	User
)

func (r Role) String() string {
	switch r {
	case Router:
		return "router"
	case User:
		return "user"
	}
	return "unknown"
}

// MarshalText is String.
func (r Role) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText is its inverse.
func (r *Role) UnmarshalText(b []byte) error {
	switch string(b) {
	case "router":
		*r = Router
	case "user":
		*r = User
	case "unknown":
		*r = 0
	default:
		return fmt.Errorf("role %q is neither router nor user", b)
	}
	return nil
}

// Keys are the two X25519 public keys (RFC 7748), 32 bytes each.
type Keys struct{ Control, Data [32]byte }

// ID is the identity of a certificate: who issued it and under which number.
type ID struct {
	Issuer string // lower-case hex of the issuer Name's DER
	Serial string // decimal
}

// IDOf returns the identity of any certificate.
func IDOf(c *x509.Certificate) ID {
	// One string for all of an issuer: thousands of calls keep the IDs of their certificates.
	return ID{Issuer: unique.Make(hex.EncodeToString(c.RawIssuer)).Value(), Serial: c.SerialNumber.String()}
}

// IsZero says whether the ID names nothing.
func (id ID) IsZero() bool { return id == ID{} }

func (id ID) String() string { return id.Serial + "@" + id.Issuer }

// MarshalText is String.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText is its inverse.
func (id *ID) UnmarshalText(b []byte) error {
	serial, issuer, ok := strings.Cut(string(b), "@")
	n, isNumber := new(big.Int).SetString(serial, 10)
	raw, err := hex.DecodeString(issuer)
	if !ok || !isNumber || n.Sign() < 0 || n.String() != serial || err != nil || hex.EncodeToString(raw) != issuer {
		return fmt.Errorf("%q is not serial@issuer", b)
	}
	*id = ID{Issuer: issuer, Serial: serial}
	return nil
}

// Certificate is a parsed twin certificate. It is not to be changed.
type Certificate struct {
	Raw                 []byte
	Profile             Profile
	Role                Role
	Keys                Keys
	Name                string // subject CN: a router's name or a user's UID
	Group               string // subject OU: a user's tunnel group
	Issuer              pkix.Name
	Serial              *big.Int
	NotBefore, NotAfter time.Time
	Scope               []string       // a router's: whose keys it may ask for
	Prefixes            []netip.Prefix // a router's: what it may announce

	std *x509.Certificate // as crypto/x509 reads it, its second key spliced out
	id  ID
}

// ID returns the certificate's identity.
func (c *Certificate) ID() ID { return c.id }

// Covers says whether p lies within a prefix that the certificate names.
func (c *Certificate) Covers(p netip.Prefix) bool {
	return covers(c.Prefixes, p)
}

// PEM encodes the certificate.
func (c *Certificate) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: c.Raw})
}

const pemType = "CERTIFICATE"

// ErrPEM says that a text holds no certificate in PEM.
var ErrPEM = errors.New("no PEM block of type CERTIFICATE")

// ParsePEM parses the first certificate in b; nothing but white space may follow it.
func ParsePEM(b []byte) (*Certificate, error) {
	block, rest := pem.Decode(b)
	if block == nil || block.Type != pemType || len(bytes.TrimSpace(rest)) > 0 {
		return nil, &Error{Field: "PEM", Err: ErrPEM}
	}
	return Parse(block.Bytes)
}

// MaxName is the length of the longest name, UID or group, in bytes.
const MaxName = 63

// ErrName says what a name may look like.
var ErrName = errors.New("a name is 1 to 63 of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit")

// CheckName says whether s can name a router, user or group.
func CheckName(s string) error {
	if len(s) == 0 || len(s) > MaxName {
		return ErrName
	}
	for i := range len(s) {
		c := s[i]
		alnum := c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || c != '.' && c != '_' && c != '-') {
			return ErrName
		}
	}
	return nil
}

// CheckScope says whether s is an element of a scope: *, group:NAME or user:UID.
func CheckScope(s string) error {
	if s == "*" {
		return nil
	}
	kind, name, ok := strings.Cut(s, ":")
	if !ok || kind != "group" && kind != "user" || CheckName(name) != nil {
		return fmt.Errorf("scope %q is none of *, group:NAME, user:UID", s)
	}
	return nil
}

// InScope says whether a scope takes in the user uid of a group.
func InScope(scope []string, uid, group string) bool {
	return slices.ContainsFunc(scope, func(s string) bool {
		return s == "*" || s == "user:"+uid || group != "" && s == "group:"+group
	})
}
