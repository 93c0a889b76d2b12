package keyfile_test

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"twinkey/pkg/identity"
	"twinkey/pkg/keybundle"
	"twinkey/pkg/keyfile"
	"twinkey/pkg/twincert"
	"twinkey/proto/secret"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// made are keys of alice, the file of them, and what opens it.
type made struct {
	file    *keyfile.File
	private keybundle.Private
	seal    secret.Key
}

func newKeys(role twincert.Role) made {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign}
	ca := must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key))))
	control, data := must(ecdh.X25519().GenerateKey(rand.Reader)), must(ecdh.X25519().GenerateKey(rand.Reader))
	t := &twincert.Template{Profile: twincert.Paper, Role: role, Name: "alice", Serial: big.NewInt(2),
		Keys:      twincert.Keys{Control: [32]byte(control.PublicKey().Bytes()), Data: [32]byte(data.PublicKey().Bytes())},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter}
	if role == twincert.User {
		t.Group = "staff"
	}
	c := must(twincert.Parse(must(twincert.Create(rand.Reader, t, ca, key))))
	params := keybundle.Params{Salt: bytes.Repeat([]byte{3}, keybundle.SaltLen), Time: 1, MemoryKiB: 8 << 10, Threads: 1} // the least
	m := made{private: keybundle.Private{Control: secret.New(control.Bytes()), Data: secret.New(data.Bytes())}}
	m.seal = must(keybundle.Derive([]byte("password of alice"), params)).Seal
	m.file = &keyfile.File{UID: "alice", CA: "https://ca.example:8700", Directory: "https://directory.example:8702", Certificate: c,
		Roots: []*x509.Certificate{ca}, Params: params, Sealed: must(keybundle.Seal(rand.Reader, m.private, m.seal, c.Raw))}
	return m
}

func TestThereAndBack(t *testing.T) {
	m := newKeys(twincert.User)
	path := keyfile.Path(filepath.Join(t.TempDir(), "home"), "alice")
	if err := keyfile.Prepare(path); err != nil {
		t.Fatal(err)
	}
	if err := keyfile.Create(path, m.file); err != nil {
		t.Fatal(err)
	}
	for _, p := range []struct {
		path string
		mode os.FileMode
	}{{path, 0o600}, {filepath.Dir(path), 0o700}} {
		if st := must(os.Stat(p.path)); st.Mode().Perm() != p.mode {
			t.Errorf("%s has mode %v", p.path, st.Mode())
		}
	}
	b := must(os.ReadFile(path))
	for _, k := range []secret.Key{m.private.Control, m.private.Data, m.seal} {
		text := must(json.Marshal(k.Bytes()))
		if bytes.Contains(b, k.Bytes()) || bytes.Contains(b, bytes.Trim(text, `"`)) {
			t.Error("a key lies open in the file")
		}
	}
	f, err := keyfile.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	got, err := f.Open(m.seal)
	if err != nil || !got.Control.Equal(m.private.Control) || !got.Data.Equal(m.private.Data) {
		t.Errorf("opened: %v", err)
	}
	if f.UID != "alice" || f.CA != m.file.CA || f.Directory != m.file.Directory || f.Certificate.ID() != m.file.Certificate.ID() || len(f.Roots) != 1 || len(f.Intermediates) != 0 {
		t.Errorf("read: %+v", f)
	}
	if _, err := f.Open(secret.New(make([]byte, 32))); !errors.Is(err, keybundle.ErrOpen) {
		t.Errorf("with another password: %v", err)
	}
	if err := keyfile.Create(path, m.file); !errors.Is(err, keyfile.ErrExists) {
		t.Errorf("made twice: %v", err)
	}
	if err := keyfile.Prepare(path); !errors.Is(err, keyfile.ErrExists) {
		t.Errorf("prepared for another: %v", err)
	}
	other := newKeys(twincert.User)
	if err := keyfile.Replace(path, other.file); err != nil {
		t.Fatal(err)
	}
	if f, err := keyfile.Load(path); err != nil || f.Certificate.ID() != other.file.Certificate.ID() {
		// serials are alike, keys are not
		t.Errorf("replaced: %v", err)
	} else if _, err := f.Open(other.seal); err != nil {
		t.Errorf("replaced: %v", err)
	}
	if left := must(filepath.Glob(filepath.Join(filepath.Dir(path), ".keys-*"))); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// Keys of another certificate do not open, also if they were sealed for this one.
func TestKeysOfAnother(t *testing.T) {
	m := newKeys(twincert.User)
	swapped := keybundle.Private{Control: m.private.Data, Data: m.private.Control}
	m.file.Sealed = must(keybundle.Seal(rand.Reader, swapped, m.seal, m.file.Certificate.Raw))
	if k, err := m.file.Open(m.seal); !errors.Is(err, keybundle.ErrOpen) || k.Control.Len() != 0 {
		t.Errorf("got %v", err)
	}
}

// Each row is a file that is spoilt in one place.
func TestParseRefuses(t *testing.T) {
	m := newKeys(twincert.User)
	good := must(m.file.Encode())
	if _, err := keyfile.Parse(good); err != nil {
		t.Fatal(err)
	}
	for i := range len(good) - 2 {
		if _, err := keyfile.Parse(good[:i]); !errors.Is(err, keyfile.ErrFile) {
			t.Fatalf("the first %d bytes parse: %v", i, err)
		}
	}
	field := func(name string, value any) string {
		var d map[string]any
		if err := json.Unmarshal(good, &d); err != nil {
			t.Fatal(err)
		}
		d[name] = value
		return string(must(json.Marshal(d)))
	}
	for name, in := range map[string]string{
		"two": string(good) + "{}", "unknown field": field("admin", true), "version": field("version", 2), "another user": field("uid", "bob"),
		"no certificate": field("certificate", nil), "a router's": field("certificate", newKeys(twincert.Router).file.Certificate.Raw),
		"nobody to trust": field("roots", nil), "a root that is none": field("roots", [][]byte{{1}}), "endless roots": field("roots", make([][]byte, 17)),
		"plain CA": field("ca", "http://ca.example"), "no CA": field("ca", ""), "odd directory": field("directory", "directory.example"),
		"cheap": field("params", keybundle.Params{Salt: make([]byte, 16), Time: 1, MemoryKiB: 1, Threads: 1}), "dear": field("params", keybundle.Params{Salt: make([]byte, 16), Time: 16, MemoryKiB: 256 << 10, Threads: 1}),
		"nothing sealed": field("sealed", nil), "sealed too long": field("sealed", make([]byte, keybundle.Len+1)),
		"too long": string(good) + strings.Repeat(" ", 256<<10),
	} {
		if _, err := keyfile.Parse([]byte(in)); !errors.Is(err, keyfile.ErrFile) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := keyfile.Parse([]byte(field("directory", ""))); err != nil {
		t.Errorf("without a directory: %v", err)
	}
}

func TestLoadRefuses(t *testing.T) {
	m := newKeys(twincert.User)
	for name, tt := range map[string]struct {
		spoil func(path string) error
		want  error
	}{
		"none":                      {os.Remove, keyfile.ErrNone},
		"that others may read":      {func(p string) error { return os.Chmod(p, 0o640) }, identity.ErrPermissions},
		"where others may write":    {func(p string) error { return os.Chmod(filepath.Dir(p), 0o770) }, identity.ErrPermissions}, //nolint:gosec // that is the point
		"damaged":                   {func(p string) error { return os.Truncate(p, 100) }, keyfile.ErrFile},
		"a directory":               {func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o700)) }, keyfile.ErrFile},
		"a pipe of which no end is": {func(p string) error { return errors.Join(os.Remove(p), os.Symlink("/dev/null", p)) }, keyfile.ErrFile},
	} {
		t.Run(name, func(t *testing.T) {
			path := keyfile.Path(filepath.Join(t.TempDir(), "home"), "alice")
			if err := errors.Join(keyfile.Prepare(path), keyfile.Create(path, m.file), tt.spoil(path)); err != nil {
				t.Fatal(err)
			}
			if _, err := keyfile.Load(path); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

// What could not be read again does not replace what can.
func TestReplaceKeepsWhatIsGood(t *testing.T) {
	m := newKeys(twincert.User)
	path := keyfile.Path(filepath.Join(t.TempDir(), "home"), "alice")
	if err := errors.Join(keyfile.Prepare(path), keyfile.Create(path, m.file)); err != nil {
		t.Fatal(err)
	}
	bad := *m.file
	bad.Sealed = nil
	if err := keyfile.Replace(path, &bad); !errors.Is(err, keyfile.ErrFile) {
		t.Errorf("got %v", err)
	}
	if f, err := keyfile.Load(path); err != nil {
		t.Error(err)
	} else if _, err := f.Open(m.seal); err != nil {
		t.Error(err)
	}
}

// What parses encodes back and parses the same.
func FuzzParse(f *testing.F) {
	good := must(newKeys(twincert.User).file.Encode())
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add([]byte(`{"version":1}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		k, err := keyfile.Parse(in)
		if err != nil {
			if !errors.Is(err, keyfile.ErrFile) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		out, err := k.Encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := keyfile.Parse(out)
		if err != nil || again.UID != k.UID || !bytes.Equal(again.Certificate.Raw, k.Certificate.Raw) || !bytes.Equal(again.Sealed, k.Sealed) || len(again.Roots) != len(k.Roots) {
			t.Fatalf("%v: %s", err, out)
		}
	})
}
