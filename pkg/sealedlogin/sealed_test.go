package sealedlogin_test

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"strings"
	"testing"

	"twinkey/pkg/hpketest"
	"twinkey/pkg/keybundle"
	"twinkey/pkg/sealedlogin"
	"twinkey/proto/secret"
)

var update = flag.Bool("update", false, "write testdata anew")

func loginKey(t testing.TB, fill byte) (secret.Key, sealedlogin.Key) {
	t.Helper()
	k, err := ecdh.X25519().NewPrivateKey(bytes.Repeat([]byte{fill}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return secret.New(k.Bytes()), sealedlogin.Key(k.PublicKey().Bytes())
}

// A sealed password opens with its login key, for the router that it goes by, for its user, and not otherwise.
func TestSealedForOneRouterAndOneUser(t *testing.T) {
	private, public := loginKey(t, 5)
	other, _ := loginKey(t, 6)
	sealed, _, err := sealedlogin.Seal(public, "ra", "alice", []byte("spring"))
	if err != nil || len(sealed) != sealedlogin.SealedLen || bytes.Contains(sealed, []byte("spring")) {
		t.Fatalf("%d bytes, %v", len(sealed), err)
	}
	if got, _, err := sealedlogin.Open(private, "ra", "alice", sealed); err != nil || string(got) != "spring" {
		t.Fatalf("%q, %v", got, err)
	}
	for name, tt := range map[string]struct {
		key         secret.Key
		router, uid string
		sealed      []byte
	}{
		"another login key":   {other, "ra", "alice", sealed},
		"no login key":        {secret.Key{}, "ra", "alice", sealed},
		"another router":      {private, "rb", "alice", sealed},
		"another user":        {private, "ra", "bob", sealed},
		"no router":           {private, "", "alice", sealed},
		"the names run over":  {private, "raa", "lice", sealed},
		"something behind it": {private, "ra", "alice", append(bytes.Clone(sealed), 0)},
		"nothing":             {private, "ra", "alice", nil},
	} {
		if got, _, err := sealedlogin.Open(tt.key, tt.router, tt.uid, tt.sealed); !errors.Is(err, sealedlogin.ErrOpen) || got != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := range sealed {
		for _, bit := range []byte{1, 0x80} { // the highest one of enc X25519 itself overlooks
			bad := bytes.Clone(sealed)
			bad[i] ^= bit
			if _, _, err := sealedlogin.Open(private, "ra", "alice", bad); !errors.Is(err, sealedlogin.ErrOpen) {
				t.Errorf("byte %d changed: %v", i, err)
			}
		}
		if _, _, err := sealedlogin.Open(private, "ra", "alice", sealed[:i]); !errors.Is(err, sealedlogin.ErrOpen) {
			t.Errorf("cut to %d bytes: %v", i, err)
		}
	}
	again, _, err := sealedlogin.Seal(public, "ra", "alice", []byte("spring"))
	if err != nil {
		t.Fatal(err)
	}
	a, _ := sealedlogin.ParseEnvelope(sealed)
	b, ok := sealedlogin.ParseEnvelope(again)
	if !ok || a.To != public || b.To != public || a.Enc == b.Enc {
		t.Errorf("sealed twice: %x and %x", a, b)
	}
}

// How long a password is does not show, and one that is too long goes as none.
func TestLengths(t *testing.T) {
	private, public := loginKey(t, 5)
	for n, want := range map[int]int{0: 0, 1: 1, 8: 8, 255: 255, 256: 256, 257: 0, 70_000: 0} {
		password := bytes.Repeat([]byte{'p'}, n)
		sealed, _, err := sealedlogin.Seal(public, "ra", "alice", password)
		if err != nil || len(sealed) != sealedlogin.SealedLen {
			t.Fatalf("%d: %d bytes, %v", n, len(sealed), err)
		}
		got, _, err := sealedlogin.Open(private, "ra", "alice", sealed)
		if err != nil || !bytes.Equal(got, password[:want]) {
			t.Errorf("%d bytes came back as %d, %v", n, len(got), err)
		}
	}
	// A point of low order: everybody could open it.
	if _, _, err := sealedlogin.Seal(sealedlogin.Key{}, "ra", "alice", []byte("spring")); err == nil {
		t.Error("sealed to a key that everybody has")
	}
}

// vector is a known answer: everything that goes in, the ephemeral private key included, and what comes out.
type vector struct{ login, ephemeral, router, uid, password, sealed, answer []byte }

const vectorFile = "testdata/sealed.hex"

func (v *vector) fields() []field {
	return []field{{"login", &v.login}, {"ephemeral", &v.ephemeral}, {"router", &v.router}, {"uid", &v.uid}, {"password", &v.password}, {"sealed", &v.sealed}, {"answer", &v.answer}}
}

type field struct {
	name string
	b    *[]byte
}

// readHex reads lines of a name and hex digits; "#" begins a comment.
func readHex(t *testing.T, file string, fields []field) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		name, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		for _, f := range fields {
			if f.name != name {
				continue
			}
			if *f.b, err = hex.DecodeString(rest); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func writeHex(t *testing.T, file, comment string, fields []field) {
	t.Helper()
	text := "# " + comment + "\n"
	for _, f := range fields {
		text += f.name + " " + hex.EncodeToString(*f.b) + "\n"
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// The format is what the package's documentation says: RFC 9180 done by hand makes the same of the same, and the
// package opens it.
func TestKnownAnswer(t *testing.T) {
	var v vector
	if *update {
		v = vector{bytes.Repeat([]byte{5}, 32), bytes.Repeat([]byte{9}, 32), []byte("ra"), []byte("alice"), []byte("correct horse"), nil, nil}
		v.sealed, v.answer = byHand(t, v, padded(v.password))
		writeHex(t, vectorFile, "A sealed password: private login key, ephemeral private key, router, UserID, password, what is sent, the key by which the answer is known.", v.fields())
		v = vector{}
	}
	readHex(t, vectorFile, v.fields())
	if got, answer := byHand(t, v, padded(v.password)); !bytes.Equal(got, v.sealed) || !bytes.Equal(answer, v.answer) {
		t.Errorf("by hand %x, %x\nin file %x, %x", got, answer, v.sealed, v.answer)
	}
	got, answer, err := sealedlogin.Open(secret.Copy(v.login), string(v.router), string(v.uid), v.sealed)
	if err != nil || !bytes.Equal(got, v.password) || len(got) == 0 || !bytes.Equal(answer.Bytes(), v.answer) {
		t.Errorf("opened: %q, %v", got, err)
	}
	// Sealed as it should be, and not what should be in it.
	for name, plain := range map[string][]byte{
		"longer than it may be":    append([]byte{1, 1}, make([]byte, 256)...),
		"something in the padding": append(append([]byte{0, 2, 'p', 'w'}, make([]byte, 253)...), 1),
	} {
		bad, _ := byHand(t, v, plain)
		if _, _, err := sealedlogin.Open(secret.Copy(v.login), "ra", "alice", bad); !errors.Is(err, sealedlogin.ErrOpen) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func padded(password []byte) []byte {
	p := binary.BigEndian.AppendUint16(nil, uint16(len(password)))
	return append(append(p, password...), make([]byte, 256-len(password))...)
}

func byHand(t *testing.T, v vector, plain []byte) (sealed, answer []byte) {
	t.Helper()
	ad := append([]byte{0, byte(len(v.router))}, v.router...)
	ad = append(append(ad, 0, byte(len(v.uid))), v.uid...)
	by := hpketest.Seal(t, v.ephemeral, v.login, []byte("twinkey sealed login 1"), ad, plain)
	return append(append(append([]byte{1}, by.To...), by.Enc...), by.Text...), by.Export(t, []byte("twinkey sealed answer 1"), 32)
}

// What is said of how the password is stretched is the word of who has opened it, about this one, and of nobody else.
func TestConfirmed(t *testing.T) {
	private, public := loginKey(t, 5)
	sealed, answer, err := sealedlogin.Seal(public, "ra", "alice", []byte("spring"))
	if err != nil {
		t.Fatal(err)
	}
	_, opened, err := sealedlogin.Open(private, "ra", "alice", sealed)
	if err != nil {
		t.Fatal(err)
	}
	_, other, err := sealedlogin.Seal(public, "ra", "alice", []byte("spring"))
	if err != nil {
		t.Fatal(err)
	}
	p := keybundle.Params{Salt: bytes.Repeat([]byte{7}, 16), Time: 3, MemoryKiB: 64 << 10, Threads: 1}
	with := func(change func(p *keybundle.Params)) keybundle.Params {
		q := p
		q.Salt = bytes.Clone(p.Salt)
		change(&q)
		return q
	}
	word := sealedlogin.Confirm(opened, p)
	for name, tt := range map[string]struct {
		answer secret.Key
		p      keybundle.Params
		word   []byte
		good   bool
	}{
		"the word of who has opened it": {answer, p, word, true},
		"of another sealed password":    {other, p, word, false},
		"nothing was sealed":            {secret.Key{}, p, sealedlogin.Confirm(secret.Key{}, p), false},
		"no word":                       {answer, p, nil, false},
		"half of it":                    {answer, p, word[:16], false},
		"another salt":                  {answer, with(func(p *keybundle.Params) { p.Salt[0]++ }), word, false},
		"a longer salt":                 {answer, with(func(p *keybundle.Params) { p.Salt = append(p.Salt, 0) }), word, false},
		"less time":                     {answer, with(func(p *keybundle.Params) { p.Time-- }), word, false},
		"less memory":                   {answer, with(func(p *keybundle.Params) { p.MemoryKiB-- }), word, false},
		"other threads":                 {answer, with(func(p *keybundle.Params) { p.Threads++ }), word, false},
	} {
		if err := sealedlogin.Confirmed(tt.answer, tt.p, tt.word); (err == nil) != tt.good || err != nil && !errors.Is(err, sealedlogin.ErrAnswer) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzOpen(f *testing.F) {
	private, public := loginKey(f, 5)
	good, _, err := sealedlogin.Seal(public, "ra", "alice", []byte("spring"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(append(bytes.Clone(good), 0))
	f.Add(append([]byte{2}, good[1:]...)) // another version
	f.Add(good[:len(good)-16])            // no tag
	f.Add(append(bytes.Clone(good[:33]), make([]byte, len(good)-33)...))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		// Nothing opens but what was sealed; a fuzzer does not find another.
		if got, _, err := sealedlogin.Open(private, "ra", "alice", b); err == nil && string(got) != "spring" {
			t.Errorf("%x opens", b)
		}
		if e, ok := sealedlogin.ParseEnvelope(b); ok && (!bytes.Equal(b[1:33], e.To[:]) || !bytes.Equal(b[33:65], e.Enc[:])) {
			t.Errorf("%x was read as %x", b, e)
		}
	})
}

// BenchmarkOpen is what a sealed login costs the CA besides.
func BenchmarkOpen(b *testing.B) {
	private, public := loginKey(b, 5)
	password := make([]byte, 20)
	_, _ = rand.Read(password)
	sealed, _, err := sealedlogin.Seal(public, "ra", "alice", password)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, _, err := sealedlogin.Open(private, "ra", "alice", sealed); err != nil {
			b.Fatal(err)
		}
	}
}
