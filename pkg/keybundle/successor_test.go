package keybundle_test

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"strings"
	"testing"

	"twinkey/pkg/hpketest"
	"twinkey/pkg/keybundle"
	"twinkey/proto/secret"
)

var update = flag.Bool("update", false, "write testdata anew")

func dataKey(t testing.TB, fill byte) (private secret.Key, public [32]byte) {
	t.Helper()
	k, err := ecdh.X25519().NewPrivateKey(bytes.Repeat([]byte{fill}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return secret.New(k.Bytes()), [32]byte(k.PublicKey().Bytes())
}

func TestASuccessorOpensWithItsDataKeyAndCertificateAlone(t *testing.T) {
	data, public := dataKey(t, 5)
	control, cert := private().Control, []byte("a newer certificate of alice")
	sealed, err := keybundle.SealControl(control, public, cert)
	if err != nil || len(sealed) != keybundle.SuccessorLen {
		t.Fatalf("%d bytes, %v", len(sealed), err)
	}
	got, err := keybundle.OpenControl(sealed, data, cert)
	if err != nil || !got.Equal(control) {
		t.Fatalf("it opens to another key: %v", err)
	}
	other, _ := dataKey(t, 6)
	for name, try := range map[string]func() (secret.Key, error){
		"another data key":    func() (secret.Key, error) { return keybundle.OpenControl(sealed, other, cert) },
		"another certificate": func() (secret.Key, error) { return keybundle.OpenControl(sealed, data, []byte("bob's")) },
		"no data key":         func() (secret.Key, error) { return keybundle.OpenControl(sealed, secret.Key{}, cert) },
		"something behind it": func() (secret.Key, error) {
			return keybundle.OpenControl(append(bytes.Clone(sealed), 0), data, cert)
		},
	} {
		if k, err := try(); !errors.Is(err, keybundle.ErrSuccessor) || k.Len() != 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if _, err := keybundle.OpenControl(bad, data, cert); !errors.Is(err, keybundle.ErrSuccessor) {
			t.Errorf("byte %d changed: %v", i, err)
		}
		if _, err := keybundle.OpenControl(sealed[:i], data, cert); !errors.Is(err, keybundle.ErrSuccessor) {
			t.Errorf("cut to %d bytes: %v", i, err)
		}
	}
	again, err := keybundle.SealControl(control, public, cert)
	if err != nil || bytes.Equal(again, sealed) {
		t.Errorf("sealed twice it is the same (%v)", err)
	}
}

func TestWhatIsNotSealed(t *testing.T) {
	_, public := dataKey(t, 5)
	if _, err := keybundle.SealControl(secret.New(make([]byte, 31)), public, nil); err == nil {
		t.Error("a control key of 31 bytes was sealed")
	}
	// A point of low order: the shared secret would be zero, and everybody could open it.
	if _, err := keybundle.SealControl(private().Control, [32]byte{}, nil); err == nil {
		t.Error("sealed to a key that everybody has")
	}
}

// vector is a known answer: everything that goes in, the ephemeral private key included, and what comes out.
type vector struct{ data, ephemeral, certificate, control, sealed []byte }

const vectorFile = "testdata/successor.hex"

func readVector(t *testing.T) (v vector) {
	t.Helper()
	b, err := os.ReadFile(vectorFile)
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string]*[]byte{"data": &v.data, "ephemeral": &v.ephemeral, "certificate": &v.certificate, "control": &v.control, "sealed": &v.sealed}
	for line := range strings.Lines(string(b)) {
		name, rest, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || name == "#" {
			continue
		}
		p := fields[name]
		if p == nil {
			t.Fatalf("%s: field %q", vectorFile, name)
		}
		if *p, err = hex.DecodeString(strings.TrimSpace(rest)); err != nil {
			t.Fatal(err)
		}
	}
	return v
}

// The format is what the package's documentation says: RFC 9180 done by hand makes the same of the same, and the
// package opens it.
func TestKnownAnswer(t *testing.T) {
	if *update {
		v := vector{bytes.Repeat([]byte{5}, 32), bytes.Repeat([]byte{9}, 32), []byte("certificate"), bytes.Repeat([]byte{1}, 32), nil}
		v.sealed = byHand(t, v)
		text := "# A control key sealed to a data key: private data key, ephemeral private key, certificate, control key, what is stored.\n"
		for _, f := range []struct {
			name string
			b    []byte
		}{{"data", v.data}, {"ephemeral", v.ephemeral}, {"certificate", v.certificate}, {"control", v.control}, {"sealed", v.sealed}} {
			text += f.name + " " + hex.EncodeToString(f.b) + "\n"
		}
		if err := os.WriteFile(vectorFile, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	v := readVector(t)
	if got := byHand(t, v); !bytes.Equal(got, v.sealed) {
		t.Errorf("by hand %x\nin file %x", got, v.sealed)
	}
	k, err := keybundle.OpenControl(v.sealed, secret.Copy(v.data), v.certificate)
	if err != nil || !bytes.Equal(k.Bytes(), v.control) {
		t.Errorf("opened: %v", err)
	}
}

func byHand(t *testing.T, v vector) []byte {
	t.Helper()
	info := append([]byte("twinkey successor\x00"), v.certificate...)
	by := hpketest.Seal(t, v.ephemeral, v.data, info, nil, v.control)
	return append(append([]byte{1}, by.Enc...), by.Text...)
}

func FuzzOpenControl(f *testing.F) {
	data, public := dataKey(f, 5)
	good, err := keybundle.SealControl(private().Control, public, []byte("c"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(append(bytes.Clone(good), 0))
	f.Add(append([]byte{2}, good[1:]...)) // another version
	f.Add(good[:len(good)-16])            // no tag
	f.Add(append([]byte{1}, make([]byte, len(good)-1)...))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		// Nothing opens but what was sealed; a fuzzer does not find another.
		if k, err := keybundle.OpenControl(b, data, []byte("c")); err == nil && !k.Equal(private().Control) {
			t.Errorf("%x opens", b)
		}
	})
}

// BenchmarkOpenControl is what a user's successor costs a router.
func BenchmarkOpenControl(b *testing.B) {
	data, public := dataKey(b, 5)
	cert := make([]byte, 700)
	_, _ = rand.Read(cert)
	sealed, err := keybundle.SealControl(private().Control, public, cert)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := keybundle.OpenControl(sealed, data, cert); err != nil {
			b.Fatal(err)
		}
	}
}
