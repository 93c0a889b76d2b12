package keybundle_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"strings"
	"testing"

	"twinkey/pkg/keybundle"
	"twinkey/proto/secret"
)

// cheap are the least params that Check lets pass.
func cheap() keybundle.Params {
	return keybundle.Params{Salt: bytes.Repeat([]byte{7}, 16), Time: 1, MemoryKiB: 8 << 10, Threads: 1}
}

func private() keybundle.Private {
	return keybundle.Private{Control: secret.New(bytes.Repeat([]byte{1}, 32)), Data: secret.New(bytes.Repeat([]byte{2}, 32))}
}

func derive(t testing.TB, password string) keybundle.Proof {
	t.Helper()
	p, err := keybundle.Derive([]byte(password), cheap())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestABundleOpensWithItsPasswordAndCertificateAlone(t *testing.T) {
	proof, cert := derive(t, "correct horse"), []byte("certificate of alice")
	bundle, err := keybundle.Seal(rand.Reader, private(), proof.Seal, cert)
	if err != nil {
		t.Fatal(err)
	}
	k, err := keybundle.Open(bundle, derive(t, "correct horse").Seal, cert)
	if err != nil || !k.Control.Equal(private().Control) || !k.Data.Equal(private().Data) {
		t.Fatalf("the right password opens %v, %v", k, err)
	}
	if _, err := keybundle.Open(bundle, derive(t, "battery staple").Seal, cert); !errors.Is(err, keybundle.ErrOpen) {
		t.Errorf("wrong password: %v", err)
	}
	if _, err := keybundle.Open(bundle, proof.Seal, []byte("certificate of bob")); !errors.Is(err, keybundle.ErrOpen) {
		t.Errorf("another certificate: %v", err)
	}
	for i := range bundle {
		bad := bytes.Clone(bundle)
		bad[i] ^= 1
		if _, err := keybundle.Open(bad, proof.Seal, cert); !errors.Is(err, keybundle.ErrOpen) {
			t.Errorf("byte %d changed: %v", i, err)
		}
		if _, err := keybundle.Open(bundle[:i], proof.Seal, cert); !errors.Is(err, keybundle.ErrOpen) {
			t.Errorf("cut to %d bytes: %v", i, err)
		}
	}
}

// What the directory sees and keeps says nothing of what opens the bundle.
func TestAuthAndSealAreApart(t *testing.T) {
	p := derive(t, "correct horse")
	v := keybundle.Verifier(p.Auth.Bytes())
	if p.Auth.Equal(p.Seal) || bytes.Equal(v, p.Auth.Bytes()) || bytes.Equal(v, p.Seal.Bytes()) {
		t.Error("proof, seal and verifier must differ")
	}
	if !bytes.Equal(v, keybundle.Verifier(derive(t, "correct horse").Auth.Bytes())) {
		t.Error("the verifier is not stable")
	}
	p.Wipe()
	if !bytes.Equal(p.Seal.Bytes(), make([]byte, 32)) {
		t.Error("Wipe left the seal key")
	}
}

// A directory must be able to ask neither for a cheap hash nor for all our memory.
func TestParamsAreBoundedBothWays(t *testing.T) {
	for name, change := range map[string]func(*keybundle.Params){
		"short salt":         func(p *keybundle.Params) { p.Salt = p.Salt[:15] },
		"endless salt":       func(p *keybundle.Params) { p.Salt = make([]byte, 65) },
		"no pass":            func(p *keybundle.Params) { p.Time = 0 },
		"passes without end": func(p *keybundle.Params) { p.Time = 1 << 20 },
		"a kibibyte":         func(p *keybundle.Params) { p.MemoryKiB = 1 },
		"100 GiB":            func(p *keybundle.Params) { p.MemoryKiB = 100 << 20 },
		"no thread":          func(p *keybundle.Params) { p.Threads = 0 },
		"200 threads":        func(p *keybundle.Params) { p.Threads = 200 },
	} {
		p := cheap()
		change(&p)
		if _, err := keybundle.Derive([]byte("x"), p); !errors.Is(err, keybundle.ErrParams) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if p, err := keybundle.DefaultParams(rand.Reader); err != nil || p.Check() != nil {
		t.Errorf("the defaults %+v: %v", p, err)
	}
}

func FuzzOpen(f *testing.F) {
	proof := derive(f, "correct horse")
	// Every fuzzing process has to make the same bundle.
	good, err := keybundle.Seal(bytes.NewReader(bytes.Repeat([]byte{9}, 24)), private(), proof.Seal, []byte("c"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(append(bytes.Clone(good), 0))
	f.Add(append([]byte{2}, good[1:]...)) // another version
	f.Add(good[:len(good)-16])            // no tag
	f.Add(good[:1])
	f.Add(make([]byte, len(good)))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := keybundle.Open(b, proof.Seal, []byte("c")); err == nil && !bytes.Equal(b, good) {
			t.Errorf("%x opens", b)
		}
	})
}

// BenchmarkDerive is what a login costs a router in computing: Argon2id at the default.
func BenchmarkDerive(b *testing.B) {
	p, err := keybundle.DefaultParams(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := keybundle.Derive([]byte("correct horse"), p); err != nil {
			b.Fatal(err)
		}
	}
}

func TestCheckPassword(t *testing.T) {
	for _, tt := range []struct {
		uid, password string
		want          error
	}{
		{"alice", "", keybundle.ErrWeak}, {"alice", "1234567", keybundle.ErrWeak}, {"alice", "12345678", nil}, {"alice", "häschen", nil},
		{"caroline", "caroline", keybundle.ErrWeak}, {"caroline", "CAROLINE", keybundle.ErrWeak}, {"caroline", "caroline1", nil}, {"bob", "bob", keybundle.ErrWeak},
		{"alice", strings.Repeat("x", keybundle.MaxPassword), nil}, {"alice", strings.Repeat("x", keybundle.MaxPassword+1), keybundle.ErrLong},
		{"alice", strings.Repeat("ä", keybundle.MaxPassword), keybundle.ErrLong},
	} {
		if err := keybundle.CheckPassword(tt.uid, []byte(tt.password)); !errors.Is(err, tt.want) || tt.want == nil && err != nil {
			t.Errorf("%q of %s: %v", tt.password, tt.uid, err)
		}
	}
}

func TestEqual(t *testing.T) {
	for name, change := range map[string]func(*keybundle.Params){
		"salt": func(p *keybundle.Params) { p.Salt = bytes.Repeat([]byte{9}, len(p.Salt)) }, "time": func(p *keybundle.Params) { p.Time++ },
		"memory": func(p *keybundle.Params) { p.MemoryKiB++ }, "threads": func(p *keybundle.Params) { p.Threads++ },
	} {
		p := cheap()
		if change(&p); p.Equal(cheap()) || cheap().Equal(p) {
			t.Errorf("another %s is the same", name)
		}
	}
	if !cheap().Equal(cheap()) {
		t.Error("the same is not the same")
	}
}

func TestWeaker(t *testing.T) {
	usual, err := keybundle.DefaultParams(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		p, least keybundle.Params
		want     bool
	}{
		{usual, usual, false}, {usual, keybundle.Params{}, false},
		{keybundle.Params{Time: 2, MemoryKiB: 256 << 10}, usual, true}, {keybundle.Params{Time: 16, MemoryKiB: 32 << 10}, usual, true},
		{keybundle.Params{Time: 4, MemoryKiB: 65 << 10}, usual, false},
	} {
		if got := tt.p.Weaker(tt.least); got != tt.want {
			t.Errorf("%+v beside %+v: %v", tt.p, tt.least, got)
		}
	}
}
