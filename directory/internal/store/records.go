package store

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	"twinkey/directory/client"
	"twinkey/pkg/twincert"
)

// CertRow is a certificate and what is asked of it without parsing it again.
type CertRow struct {
	DER       []byte        `json:"der"`
	Kind      string        `json:"kind"` // client.KindTwin or client.KindTLS
	Role      twincert.Role `json:"role,omitzero"`
	Name      string        `json:"name"` // CN of a twin certificate, path of a TLS certificate's URI
	Group     string        `json:"group,omitempty"`
	Scope     []string      `json:"scope,omitempty"`
	NotBefore time.Time     `json:"not_before"`
	NotAfter  time.Time     `json:"not_after"`
}

// RouterRow is a router: its current twin certificate and what it announced last.
type RouterRow struct {
	ID       twincert.ID    `json:"id"`
	Endpoint string         `json:"endpoint,omitempty"`
	Prefixes []netip.Prefix `json:"prefixes,omitempty"`
	Updated  time.Time      `json:"updated"`
}

// BundleRow is a user's sealed keys and, if the CA has certified their data key anew since, what goes on
// from them. Both lie in one row: a new bundle takes the place of both.
type BundleRow struct {
	client.BundleRecord
	Successor *client.SuccessorRecord `json:"successor,omitempty"`
}

// Current names the user's present certificate.
func (b BundleRow) Current() twincert.ID {
	if b.Successor != nil {
		return b.Successor.ID
	}
	return b.ID
}

// AuditRecord says who did what to whom.
type AuditRecord struct {
	Seq      uint64          `json:"seq"`  // from 1, without a gap, whatever the clock did
	Time     time.Time       `json:"time"` // by the directory's clock
	Revision client.Revision `json:"revision"`
	Actor    string          `json:"actor"`            // URI of the certificate that asked
	For      string          `json:"for,omitempty"`    // on whose behalf the CA says it asked
	Kind     string          `json:"kind"`             // one of the Audit kinds
	Subject  string          `json:"subject"`          // user, router, group or certificate
	Detail   string          `json:"detail,omitempty"` // for people
	ChangeID string          `json:"change,omitempty"` // of the change that it is part of
	Sum      string          `json:"sum,omitempty"`    // see chain.go; the last field
}

// The kinds of audit records.
const (
	AuditCertificate = "certificate"
	AuditGroup       = "group"
	AuditUser        = "user"
	AuditBundle      = "bundle"
	AuditRouter      = "router"
	AuditRevoked     = "revoked"
	AuditCRL         = "crl"
	AuditSite        = "site"
	AuditRelease     = "release"
	AuditLogin       = "login"
	AuditPassword    = "password"
	AuditDenied      = "denied"
	AuditLocked      = "locked"
	AuditUnlocked    = "unlocked"
	AuditRestore     = "restore"
	AuditCall        = "call"
	AuditVouch       = "vouch"
)

// AuditKinds are all of them.
func AuditKinds() []string {
	return []string{AuditCertificate, AuditUser, AuditBundle, AuditGroup, AuditRouter, AuditRevoked, AuditCRL, AuditSite, AuditRelease, AuditLogin, AuditPassword, AuditDenied, AuditLocked, AuditUnlocked, AuditRestore, AuditCall, AuditVouch}
}

// change is what remains of an applied Change.
type change struct {
	Digest   []byte          `json:"digest"` // SHA-256 of its JSON
	Revision client.Revision `json:"revision"`
}

// get decodes the record at key; ok is false if there is none.
func get[T any](tx Tx, t Table, key string) (v T, ok bool, err error) {
	b := tx.Get(t, []byte(key))
	if b == nil {
		return v, false, nil
	}
	v, err = decode[T](t, []byte(key), b)
	return v, err == nil, err
}

func decode[T any](t Table, key, value []byte) (v T, err error) {
	if err := json.Unmarshal(value, &v); err != nil {
		return v, fmt.Errorf("%w: record %q of table %s: %w", ErrDamaged, key, t, err)
	}
	return v, nil
}

func put(tx Tx, t Table, key string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encoding record %q of table %s: %w", key, t, err)
	}
	return tx.Put(t, []byte(key), b)
}

// number reads a counter; one that is not there is 0.
func number(tx Tx, key string) (uint64, error) {
	switch b := tx.Get(Meta, []byte(key)); len(b) {
	case 0:
		return 0, nil
	case 8:
		return binary.BigEndian.Uint64(b), nil
	}
	return 0, fmt.Errorf("%w: counter %s", ErrDamaged, key)
}

func putNumber(tx Tx, key string, n uint64) error {
	return tx.Put(Meta, []byte(key), binary.BigEndian.AppendUint64(nil, n))
}

// eventKey orders events by revision, then by their place in it.
func eventKey(rev client.Revision, i int) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(nil, rev), uint32(i)) //nolint:gosec // i < maxEvents
}

func auditKey(seq uint64) []byte { return binary.BigEndian.AppendUint64(nil, seq) }
