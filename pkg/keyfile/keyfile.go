package keyfile

import (
	"crypto/ecdh"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"

	"twinkey/pkg/keybundle"
	"twinkey/pkg/strictjson"
	"twinkey/pkg/twincert"
	"twinkey/proto/secret"
)

const (
	version    = 1
	maxFile    = 256 << 10
	maxCerts   = 16 // roots, and intermediates
	maxURL     = 2048
	fileSuffix = ".keys"
)

// Errors.
var (
	ErrNone   = errors.New("there are no keys")
	ErrExists = errors.New("there are keys already")
	ErrFile   = errors.New("not a file of keys, or a damaged one")
)

// File is what the file says.
type File struct {
	UID                  string
	CA, Directory        string // URLs; Directory may be empty
	Certificate          *twincert.Certificate
	Roots, Intermediates []*x509.Certificate
	Params               keybundle.Params
	Sealed               []byte
}

// Path is where the keys of uid lie.
func Path(home, uid string) string { return filepath.Join(home, uid+fileSuffix) }

// Open opens the private keys. It fails with keybundle.ErrOpen for another password's key, and for private keys that are
// not the certificate's. They are the caller's to wipe.
func (f *File) Open(seal secret.Key) (keybundle.Private, error) {
	k, err := keybundle.Open(f.Sealed, seal, f.Certificate.Raw)
	if err != nil {
		return keybundle.Private{}, err
	}
	if !belongs(k.Control, f.Certificate.Keys.Control) || !belongs(k.Data, f.Certificate.Keys.Data) {
		k.Control.Wipe()
		k.Data.Wipe()
		return keybundle.Private{}, keybundle.ErrOpen
	}
	return k, nil
}

func belongs(private secret.Key, public [32]byte) bool {
	k, err := ecdh.X25519().NewPrivateKey(private.Bytes())
	return err == nil && [32]byte(k.PublicKey().Bytes()) == public
}

// document is the file as JSON.
type document struct {
	Version       int              `json:"version"`
	UID           string           `json:"uid"`
	CA            string           `json:"ca"`
	Directory     string           `json:"directory,omitempty"`
	Certificate   []byte           `json:"certificate"`
	Roots         [][]byte         `json:"roots"`
	Intermediates [][]byte         `json:"intermediates"`
	Params        keybundle.Params `json:"params"`
	Sealed        []byte           `json:"sealed"`
}

// Encode is the inverse of Parse.
func (f *File) Encode() ([]byte, error) {
	d := document{Version: version, UID: f.UID, CA: f.CA, Directory: f.Directory, Certificate: f.Certificate.Raw,
		Roots: raw(f.Roots), Intermediates: raw(f.Intermediates), Params: f.Params, Sealed: f.Sealed}
	b, err := json.MarshalIndent(d, "", "\t")
	if err != nil {
		return nil, fmt.Errorf("encoding a file of keys: %w", err)
	}
	return append(b, '\n'), nil
}

func raw(cs []*x509.Certificate) [][]byte {
	ders := [][]byte{}
	for _, c := range cs {
		ders = append(ders, c.Raw)
	}
	return ders
}

// Parse reads strictly: nothing unknown, nothing behind it, nothing that could not have been written. Whether the
// certificate is to be believed it does not say. Its error is ErrFile.
func Parse(b []byte) (*File, error) {
	bad := func(format string, args ...any) (*File, error) {
		return nil, fmt.Errorf("%w: %w", ErrFile, fmt.Errorf(format, args...))
	}
	if len(b) > maxFile {
		return bad("longer than %d bytes", maxFile)
	}
	var d document
	if err := strictjson.Decode(b, &d); err != nil {
		return bad("%w", err)
	}
	if d.Version != version {
		return bad("version %d, this program knows %d", d.Version, version)
	}
	f := &File{UID: d.UID, CA: d.CA, Directory: d.Directory, Params: d.Params, Sealed: d.Sealed}
	var err error
	if f.Certificate, err = twincert.Parse(d.Certificate); err != nil {
		return bad("certificate: %w", err)
	}
	if c := f.Certificate; c.Role != twincert.User || c.Name != d.UID {
		return bad("the certificate is that of %s %s, not of user %q", c.Role, c.Name, d.UID)
	}
	for _, u := range []struct {
		name, value string
		empty       bool
	}{{"ca", d.CA, false}, {"directory", d.Directory, true}} {
		if err := checkURL(u.value); err != nil && (u.value != "" || !u.empty) {
			return bad("%s: %w", u.name, err)
		}
	}
	if f.Roots, err = parse(d.Roots); err != nil {
		return bad("roots: %w", err)
	}
	if len(f.Roots) == 0 {
		return bad("roots: nobody to trust")
	}
	if f.Intermediates, err = parse(d.Intermediates); err != nil {
		return bad("intermediates: %w", err)
	}
	if err := d.Params.Check(); err != nil {
		return bad("params: %w", err)
	}
	if len(d.Sealed) != keybundle.Len {
		return bad("sealed: %d bytes, sealed keys have %d", len(d.Sealed), keybundle.Len)
	}
	return f, nil
}

func checkURL(s string) error {
	u, err := url.Parse(s)
	if err != nil || len(s) > maxURL || u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("%.80q is no https:// URL", s)
	}
	return nil
}

func parse(ders [][]byte) ([]*x509.Certificate, error) {
	if len(ders) > maxCerts {
		return nil, fmt.Errorf("%d certificates, at most %d are taken", len(ders), maxCerts)
	}
	var cs []*x509.Certificate
	for _, der := range ders {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		cs = append(cs, c)
	}
	return cs, nil
}
