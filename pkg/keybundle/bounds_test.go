package keybundle_test

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"testing"

	"twinkey/pkg/keybundle"
	"twinkey/proto/secret"
)

// A bundle that was stored once has to open for ever: neither derivation nor format may
// change unnoticed.
func TestWhatWasStoredStillOpens(t *testing.T) {
	p := derive(t, "correct horse")
	for _, tt := range []struct {
		name string
		got  []byte
		want string
	}{
		{"auth", p.Auth.Bytes(), "bc82c600f8cda2a46dd9d38f0b3e64fefa0b2b3b35afff26847d506d34e3b3a0"},
		{"seal", p.Seal.Bytes(), "24a5e3d32416bf7aa542713722a0490fb6b9663c3e4d38590fb791a5f40d73aa"},
		{"verifier", keybundle.Verifier(p.Auth.Bytes()), "abafd37cffbf8743e67de0e2820e5fe3712ba5f36a98586aaa2b08a67d8f549a"},
	} {
		if got := hex.EncodeToString(tt.got); got != tt.want {
			t.Errorf("%s is %s, was %s", tt.name, got, tt.want)
		}
	}
	const stored = "01090909090909090909090909090909090909090909090909da30dae64c4ad86a965f2b2b6479e905528879046e375729f5767b4b9fda9010d0161c3ae16cee0684cb66ed7771ac5f3a8d5e9ba95107631ac6192c29639130a90a16a4d06e3466a1244b49728d90a9"
	nonce := bytes.NewReader(bytes.Repeat([]byte{9}, 24))
	bundle, err := keybundle.Seal(nonce, private(), p.Seal, []byte("certificate of alice"))
	if got := hex.EncodeToString(bundle); err != nil || got != stored {
		t.Errorf("the bundle is %s, was %s (%v)", got, stored, err)
	}
	old, _ := hex.DecodeString(stored)
	if k, err := keybundle.Open(old, p.Seal, []byte("certificate of alice")); err != nil || !k.Control.Equal(private().Control) || !k.Data.Equal(private().Data) {
		t.Errorf("what was stored opens %v, %v", k, err)
	}
}

// Each bound from both its sides.
func TestTheEdgesOfParams(t *testing.T) {
	salt := func(n int) []byte { return make([]byte, n) }
	tests := []struct {
		name string
		p    keybundle.Params
		ok   bool
	}{
		{"the least", keybundle.Params{Salt: salt(16), Time: 1, MemoryKiB: 8 << 10, Threads: 1}, true},
		{"salt of 15", keybundle.Params{Salt: salt(15), Time: 1, MemoryKiB: 8 << 10, Threads: 1}, false},
		{"salt of 64", keybundle.Params{Salt: salt(64), Time: 1, MemoryKiB: 8 << 10, Threads: 1}, true},
		{"salt of 65", keybundle.Params{Salt: salt(65), Time: 1, MemoryKiB: 8 << 10, Threads: 1}, false},
		{"no salt", keybundle.Params{Time: 1, MemoryKiB: 8 << 10, Threads: 1}, false},
		{"a KiB too few", keybundle.Params{Salt: salt(16), Time: 1, MemoryKiB: 8<<10 - 1, Threads: 1}, false},
		{"most memory", keybundle.Params{Salt: salt(16), Time: 4, MemoryKiB: 256 << 10, Threads: 1}, true},
		{"a KiB too many", keybundle.Params{Salt: salt(16), Time: 1, MemoryKiB: 256<<10 + 1, Threads: 1}, false},
		{"most memory, and one pass too many", keybundle.Params{Salt: salt(16), Time: 5, MemoryKiB: 256 << 10, Threads: 1}, false},
		{"16 passes", keybundle.Params{Salt: salt(16), Time: 16, MemoryKiB: 64 << 10, Threads: 1}, true},
		{"17 passes", keybundle.Params{Salt: salt(16), Time: 17, MemoryKiB: 8 << 10, Threads: 1}, false},
		{"passes that overflow the product", keybundle.Params{Salt: salt(16), Time: 1<<32 - 1, MemoryKiB: 1<<32 - 1, Threads: 1}, false},
		{"16 threads", keybundle.Params{Salt: salt(16), Time: 1, MemoryKiB: 8 << 10, Threads: 16}, true},
		{"17 threads", keybundle.Params{Salt: salt(16), Time: 1, MemoryKiB: 8 << 10, Threads: 17}, false},
		{"nothing", keybundle.Params{}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.p.Check(); (err == nil) != tt.ok || err != nil && !errors.Is(err, keybundle.ErrParams) {
				t.Errorf("err = %v", err)
			}
		})
	}
}

// The names are part of what the directory stores and says.
func TestParamsInJSON(t *testing.T) {
	p := keybundle.Params{Salt: []byte{1, 2, 3}, Time: 3, MemoryKiB: 65536, Threads: 1}
	b, err := json.Marshal(p)
	if want := `{"salt":"AQID","time":3,"memory_kib":65536,"threads":1}`; err != nil || string(b) != want {
		t.Errorf("%s, %v", b, err)
	}
	var back keybundle.Params
	if err := json.Unmarshal(b, &back); err != nil || !reflect.DeepEqual(back, p) {
		t.Errorf("came back as %+v, %v", back, err)
	}
}

// Password, salt and each cost count.
func TestEveryInputChangesTheProof(t *testing.T) {
	want := derive(t, "correct horse")
	for name, change := range map[string]func(*keybundle.Params){
		"salt":    func(p *keybundle.Params) { p.Salt[0] ^= 1 },
		"time":    func(p *keybundle.Params) { p.Time++ },
		"memory":  func(p *keybundle.Params) { p.MemoryKiB += 1 << 10 },
		"threads": func(p *keybundle.Params) { p.Threads++ },
	} {
		p := cheap()
		change(&p)
		got, err := keybundle.Derive([]byte("correct horse"), p)
		if err != nil || got.Auth.Equal(want.Auth) || got.Seal.Equal(want.Seal) {
			t.Errorf("another %s, the same proof (%v)", name, err)
		}
	}
	if got := derive(t, "correct horsf"); got.Auth.Equal(want.Auth) || got.Seal.Equal(want.Seal) {
		t.Error("another password, the same proof")
	}
}

// Why a bundle does not open is said to nobody: it is one error, the same in every case.
func TestOpenSaysNothingOfTheCause(t *testing.T) {
	seal, ad := secret.New(bytes.Repeat([]byte{5}, 32)), []byte("certificate")
	good, err := keybundle.Seal(rand.Reader, private(), seal, ad)
	if err != nil {
		t.Fatal(err)
	}
	version := bytes.Clone(good)
	version[0] = 2
	tests := []struct {
		name   string
		bundle []byte
		key    secret.Key
		ad     []byte
	}{
		{"wrong key", good, secret.New(bytes.Repeat([]byte{6}, 32)), ad},
		{"wiped key", good, secret.New(make([]byte, 32)), ad},
		{"no key", good, secret.Key{}, ad},
		{"short key", good, secret.New(make([]byte, 31)), ad},
		{"no associated data", good, seal, nil},
		{"a prefix of it", good, seal, ad[:3]},
		{"more of it", good, seal, append(bytes.Clone(ad), 0)},
		{"nothing", nil, seal, ad},
		{"version alone", good[:1], seal, ad},
		{"another version", version, seal, ad},
		{"a byte behind it", append(bytes.Clone(good), 0), seal, ad},
		{"a megabyte", make([]byte, 1<<20), seal, ad},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k, err := keybundle.Open(tt.bundle, tt.key, tt.ad)
			if err != keybundle.ErrOpen { //nolint:errorlint // it is to be that very error, with nothing around it
				t.Errorf("err = %v", err)
			}
			if k.Control.Len() != 0 || k.Data.Len() != 0 {
				t.Error("it left something of a key")
			}
		})
	}
}

func TestSealRefuses(t *testing.T) {
	seal := secret.New(bytes.Repeat([]byte{5}, 32))
	short := private()
	short.Data = secret.New(make([]byte, 31))
	for name, err := range map[string]error{
		"a key of 31 bytes":        sealError(rand.Reader, short, seal),
		"no keys":                  sealError(rand.Reader, keybundle.Private{}, seal),
		"no sealing key":           sealError(rand.Reader, private(), secret.Key{}),
		"a nonce of too few bytes": sealError(bytes.NewReader(make([]byte, 23)), private(), seal),
	} {
		if err == nil {
			t.Errorf("sealed with %s", name)
		}
	}
	if _, err := keybundle.DefaultParams(bytes.NewReader(make([]byte, 15))); err == nil {
		t.Error("a salt of too few bytes")
	}
}

func sealError(r io.Reader, k keybundle.Private, seal secret.Key) error {
	_, err := keybundle.Seal(r, k, seal, nil)
	return err
}

// The same keys sealed twice: nobody sees that they are the same.
func TestNoTwoBundlesAreTheSame(t *testing.T) {
	seal := secret.New(bytes.Repeat([]byte{5}, 32))
	a, errA := keybundle.Seal(rand.Reader, private(), seal, nil)
	b, errB := keybundle.Seal(rand.Reader, private(), seal, nil)
	if err := errors.Join(errA, errB); err != nil {
		t.Fatal(err)
	}
	for i := 1; i+8 <= len(a); i++ { // behind the version
		if bytes.Equal(a[i:i+8], b[i:i+8]) {
			t.Errorf("bytes %d to %d are the same", i, i+8)
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	seal := secret.New(bytes.Repeat([]byte{5}, 32))
	bundle, err := keybundle.Seal(rand.Reader, private(), seal, make([]byte, 600))
	if err != nil {
		b.Fatal(err)
	}
	ad := make([]byte, 600)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := keybundle.Open(bundle, seal, ad); err != nil {
			b.Fatal(err)
		}
	}
}
