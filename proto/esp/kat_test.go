package esp

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"os"
	"os/exec"
	"strings"
	"testing"

	"twinkey/proto/secret"
)

// unhex reads hex that may be grouped by spaces and lines.
func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func mustTransform(t *testing.T, spi uint32, s Suite, material []byte, decrypt bool) *transform {
	t.Helper()
	tr, err := newTransform(spi, s, secret.New(material), decrypt)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// The case of draft-mcgrew-gcm-test-01 section 4 (the vectors that RFC 4106 section 9 asks for) with an extended
// sequence number, as a whole packet: 0x8765432100000000, of which only the zeros are sent.
func TestRFC4106PacketWithESN(t *testing.T) {
	const seq = 0x8765432100000000
	material := unhex(t, "4c80cdefbb5d10da906ac73c3613a634 2e443b68")
	plain := unhex(t, `45000048 699a0000 80114db7 c0a80102 c0a80101 0a9bf156 38d30100 00010000 00000000
		045f7369 70045f75 64700373 69700963 79626572 63697479 02646b00 00210001 01020201`)
	packet := unhex(t, `00004321 00000000 4956ed7e3b244cfe
		fecf537e729d5b07dc30df528dd22b768d1b98736696a6fd348509fa13ceac34
		cfa2436f14a3f3cf65925bf1f4a13c5d15b21e1884f5ff6247aeabb786b93bce
		61bc17d768fd9732 459018148f6cbe722fd04796562dfdb4`)

	sealer := mustTransform(t, 0x4321, AES128GCM, bytes.Clone(material), false)
	l, err := sealer.take()
	if err != nil {
		t.Fatal(err)
	}
	got := append(bytes.Clone(packet[:16]), plain...)
	got = append(got, make([]byte, 16)...)
	sealer.sealIV(l, seq, got, inner(sealer, got))
	if !bytes.Equal(got, packet) {
		t.Errorf("sealed\n%x, want\n%x", got, packet)
	}

	opener := mustTransform(t, 0x4321, AES128GCM, bytes.Clone(material), true)
	if _, ok, err := openInPlace(opener, seq+1<<32, bytes.Clone(packet)); ok || err != nil {
		t.Errorf("opened with another high half: %v, %v", ok, err)
	}
	opened, ok, err := openInPlace(opener, seq, bytes.Clone(packet))
	if !ok || err != nil || !bytes.Equal(opened, plain) {
		t.Fatalf("opened %x, %v, %v", opened, ok, err)
	}
	// The trailer of that packet is 01 02 | 02 | 01: two octets of padding, next header ICMP.
	in := &Inbound{t: opener}
	payload, next, err := in.accept(opened)
	if err != nil || next != 1 || !bytes.Equal(payload, plain[:len(plain)-4]) {
		t.Errorf("payload %x, next header %d, %v", payload, next, err)
	}
}

// Vectors whose sequence numbers have 32 bits, so that their associated data is 8 octets: the cipher, salt and IV
// as the suite arranges them.
func TestAEADVectors(t *testing.T) {
	tests := []struct {
		name                          string
		suite                         Suite
		material, iv, aad, plain, out string
	}{
		{"draft-mcgrew-gcm-test-01, AES-256", AES256GCM,
			"abbccddef00112233445566778899aababbccddef00112233445566778899aab 11223344", "0102030405060708", "4a2cbfe300000002",
			`4500003069a6400080062690c0a801029389155e0a9e008b2dc57ee0000000007002400020bf0000020405b40101040201020201`,
			`ff425c9b724599df7a3bcd510194e00d6a78107f1b0b1cbf06efae9d65a5d763748a637985771d347f0545659f14e99def842d8e
			b335f4eecfdbf831824b4c4915956c96`},
		{"draft-mcgrew-gcm-test-01, AES-128, all zero", AES128GCM,
			"00000000000000000000000000000000 00000000", "0000000000000000", "0000000000000001",
			`4500003c99c500008001cb7a40679318010101010800075c020044006162636465666768696a6b6c6d6e6f707172737475767761626364656667686901020201`,
			`4688daf2f973a392732909c331d56d60f694abaa414b5e7ff5fdcdfff5e9a284456476492719ffb64de7d9dca1e1d894bc3bd57873ed4d181d19d4d5c8c18af3
			f821d496eeb096e98ad2b69e4799c71d`},
		{"draft-mcgrew-gcm-test-01, AES-128, trailer only", AES128GCM,
			"7d773d00c144c525ac619d18c84a3f47 d9664267", "43457e9182443bc6", "335467aeffffffff",
			"01020201", "437f866b cb3f699fe9b0822bac961c4504bef270"},
		{"RFC 7634 appendix A", ChaCha20Poly1305,
			"808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f a0a1a2a3", "1011121314151617", "0102030400000005",
			`45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec100007362708090a0b0c0d0e0f1011121314151617
			18191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f303132333435363701020204`,
			`24039428b97f417e3c13753a4f05087b67c352e6a7fab1b982d466ef407ae5c614ee8099d52844eb61aa95dfab4c02f72aa71e7c4c4f64c9befe2facc638e8f3
			cbec163fac469b502773f6fb94e664da9165b82829f641e0 76aaa8266b7fb0f7b11b369907e1ad43`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tr := mustTransform(t, minSPI, tt.suite, unhex(t, tt.material), false)
			nonce := append(tr.salt[:], unhex(t, tt.iv)...)
			if got, want := tr.aead.Seal(nil, nonce, unhex(t, tt.plain), unhex(t, tt.aad)), unhex(t, tt.out); !bytes.Equal(got, want) {
				t.Errorf("got\n%x, want\n%x", got, want)
			}
		})
	}
}

// RFC 3602 section 4 cases 5 to 8: whole ESP packets without ICV, under 128-bit keys.
func TestRFC3602Packets(t *testing.T) {
	tests := []struct {
		name, key, payload, packet string
		next                       uint8
	}{
		{"case 5", "90d382b410eeba7ad938c46cec1a82bf",
			`08000ebda70a00008e9c083db95b070008090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f3031323334353637`,
			`00004321 00000001 e96e8c08ab465763fd098d45dd3ff893
			f663c25d325c18c6a9453e194e120849a4870b66cc6b9965330013b4898dc856a4699e523a55db080b59ec3a8e4b7e52775b07d1db34ed9c538ab50c551b874a
			a269add047ad2d5913ac19b7cfbad4a6`, 1},
		{"case 6", "90d382b410eeba7ad938c46cec1a82bf",
			`0800b5e8a80a0500a69c083d0b660e00777777777777777777777777`,
			`00004321 00000008 69d08df7d203329db093fc4924e5bd80
			f51995881ec4e0c4488987ce742e8109689bb379d2d750c0d915dca346a89f75`, 1},
		{"case 7, tunnel mode", "0123456789abcdef0123456789abcdef",
			`45000054090400004001f988c0a87b03c0a87bc808009f76a90a0100b49c083d02a2040008090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
			202122232425262728292a2b2c2d2e2f3031323334353637`,
			`00008765 00000002 f4e765244f6407adf13dc1380f673f37
			773b5241a4c449225e4f3ce5ed611b0c237ca96cf74a93013c1b0ea1a0cf70f8e4ecaec78ac53aad7a0f022b859243c647752e94a859352b8a4d4d2decd136e5
			c177f132ad3fbfb2201ac9904c74ee0a109e0ca1e4dfe9d5a100b842f1c22f0d`, 4},
		{"case 8, tunnel mode", "0123456789abcdef0123456789abcdef",
			`45000044090c00004001f990c0a87b03c0a87bc80800d63caa0a0200c69c083da3de0300ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff`,
			`00008765 00000005 85d47224b5f3dd5d2101d4ea8dffab22
			15b92683819596a8047232cc00f7048fe45318e11f8a0f62ede3c3fc61203bb50f980a08c9843fd3a1b06d5c07ff9639b7eb7dfb3512e5de435e7207ed971ef3
			d2726d9b5ef6affc6d17a0decbb13892`, 4},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want, payload := unhex(t, tt.packet), unhex(t, tt.payload)
			suite := *AES256CBCSHA256.spec() // but with the 128-bit keys of the vectors
			suite.cipherKey = 16
			material := append(unhex(t, tt.key), make([]byte, 32)...)
			sealer := &transform{spec: &suite, spi: binary.BigEndian.Uint32(want)}
			opener := &transform{spec: &suite, spi: sealer.spi, decrypt: true}
			if err := sealer.expand(material); err != nil {
				t.Fatal(err)
			}
			if err := opener.expand(material); err != nil {
				t.Fatal(err)
			}
			seq := uint64(binary.BigEndian.Uint32(want[4:]))

			// Padding as Seal writes it, IV and numbers as the vector has them.
			n := suite.pad(len(payload))
			got := append(bytes.Clone(want[:24]), payload...)
			for i := range n {
				got = append(got, byte(i+1))
			}
			got = append(got, byte(n), tt.next)
			got = append(got, make([]byte, suite.icv)...)
			l, err := sealer.newLane()
			if err != nil {
				t.Fatal(err)
			}
			sealer.sealIV(l, seq, got, inner(sealer, got))
			if !bytes.Equal(got[:len(got)-suite.icv], want) {
				t.Fatalf("sealed\n%x, want\n%x", got[:len(got)-suite.icv], want)
			}
			plain, ok, err := openInPlace(opener, seq, got)
			if !ok || err != nil {
				t.Fatalf("open: %v, %v", ok, err)
			}
			opened, next, err := new(Inbound).accept(plain)
			if err != nil || next != tt.next || !bytes.Equal(opened, payload) {
				t.Errorf("payload %x, next header %d, %v", opened, next, err)
			}
		})
	}
}

// RFC 2451 has no vectors; these are NIST's for the same ciphers: SP 800-38A F.2.5 and the example of SP 800-67.
func TestBlockCipherVectors(t *testing.T) {
	tests := []struct {
		name, key, iv, plain, out string
		suite                     Suite
	}{
		{"CBC-AES256", "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4", "000102030405060708090a0b0c0d0e0f",
			"6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e5130c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710",
			"f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d39f23369a9d9bacfa530e26304231461b2eb05e2c39be9fcda6c19078c6a9d1b",
			AES256CBCSHA256},
		{"TDEA, first block", "0123456789abcdef 23456789abcdef01 456789abcdef0123", "0000000000000000", "5468652071756663", "a826fd8ce53b855f", TripleDESSHA1},
		{"TDEA, second block", "0123456789abcdef 23456789abcdef01 456789abcdef0123", "0000000000000000", "6b2062726f776e20", "cce21c8112256fe6", TripleDESSHA1},
		{"TDEA, third block", "0123456789abcdef 23456789abcdef01 456789abcdef0123", "0000000000000000", "666f78206a756d70", "68d5c05dd9b6b900", TripleDESSHA1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, decrypt := range []bool{false, true} {
				material := append(unhex(t, tt.key), make([]byte, tt.suite.spec().authKey)...)
				tr := mustTransform(t, minSPI, tt.suite, material, decrypt)
				l, err := tr.take()
				if err != nil {
					t.Fatal(err)
				}
				in, want := unhex(t, tt.plain), unhex(t, tt.out)
				if decrypt {
					in, want = want, in
				}
				switch iv := unhex(t, tt.iv); {
				case tr.triple == nil:
					l.cbc.SetIV(iv)
					l.cbc.CryptBlocks(in, in)
				case decrypt:
					tr.triple.Decrypt(in, in, binary.BigEndian.Uint64(iv))
				default:
					tr.triple.Encrypt(in, binary.BigEndian.Uint64(iv))
				}
				if !bytes.Equal(in, want) {
					t.Errorf("decrypt %v: got %x, want %x", decrypt, in, want)
				}
			}
		})
	}
}

// RFC 2202 section 3, to which RFC 2404 points, those with 20-octet keys; RFC 4868 section 2.7.2.1. Cut as the suites cut them.
func TestHMACVectors(t *testing.T) {
	rep := strings.Repeat
	const counting = "0102030405060708090a0b0c0d0e0f10 1112131415161718191a1b1c1d1e1f20"
	tests := []struct {
		name  string
		suite Suite
		key   string
		data  string
		icv   string
	}{
		{"RFC 2202 case 1", TripleDESSHA1, rep("0b", 20), hex.EncodeToString([]byte("Hi There")), "b617318655057264e28bc0b6"},
		{"RFC 2202 case 3", TripleDESSHA1, rep("aa", 20), rep("dd", 50), "125d7342b9ac11cd91a39af4"},
		{"RFC 2202 case 5, digest-96", TripleDESSHA1, rep("0c", 20), hex.EncodeToString([]byte("Test With Truncation")), "4c1a03424b55e07fe7f27be1"},
		{"RFC 4868 AUTH256-1", NullSHA256, rep("0b", 32), hex.EncodeToString([]byte("Hi There")), "198a607eb44bfbc69903a0f1cf2bbdc5"},
		{"RFC 4868 AUTH256-2", NullSHA256, rep("4a656665", 8), hex.EncodeToString([]byte("what do ya want for nothing?")), "167f928588c5cc2eef8e3093caa0e87c"},
		{"RFC 4868 AUTH256-3", NullSHA256, rep("aa", 32), rep("dd", 50), "cdcb1220d1ecccea91e53aba3092f962"},
		{"RFC 4868 AUTH256-4", NullSHA256, counting, rep("cd", 50), "372efcf9b40b35c2115b1346903d2ef4"},
		{"RFC 4868 AUTH256-4 beside AES-CBC", AES256CBCSHA256, counting, rep("cd", 50), "372efcf9b40b35c2115b1346903d2ef4"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			material := append(bytes.Repeat([]byte("any key\x00ANY KEY\x00"), 2)[:tt.suite.spec().cipherKey], unhex(t, tt.key)...)
			tr := mustTransform(t, minSPI, tt.suite, material, false)
			l, err := tr.take()
			if err != nil {
				t.Fatal(err)
			}
			l.mac.Write(unhex(t, tt.data))
			if got := l.mac.Sum(nil)[:tr.icv]; !bytes.Equal(got, unhex(t, tt.icv)) {
				t.Errorf("got %x, want %s", got, tt.icv)
			}
		})
	}
}

// RFC 2410 section 2: the plaintext is the ciphertext, and there is no IV.
func TestNullLeavesThePayload(t *testing.T) {
	out, err := NewOutbound(minSPI, NullSHA256, secret.New(make([]byte, 32)), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	n := copy(buf[8:], "in clear")
	pkt, err := out.Seal(buf, 8, n, NextUDP)
	if err != nil {
		t.Fatal(err)
	}
	if want := "\x00\x00\x01\x00\x00\x00\x00\x01in clear\x01\x02\x02\x11"; string(pkt[:len(pkt)-16]) != want {
		t.Errorf("got %q, want %q", pkt[:len(pkt)-16], want)
	}
}

// openssl computes ICV and plaintext of the HMAC suites from the packet and the keys: the high half of the
// sequence number stands behind the packet (RFC 4303 section 2.2.1).
func TestOpensslAgreesOnESN(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		const why = "needs openssl (apt install openssl)"
		if os.Getenv("TWINKEY_NO_SKIP") == "1" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	const seq = 5<<32 | 7
	for s, cipherName := range map[Suite]string{AES256CBCSHA256: "-aes-256-cbc", TripleDESSHA1: "-des-ede3-cbc", NullSHA256: ""} {
		t.Run(s.String(), func(t *testing.T) {
			material := make([]byte, s.KeyLen())
			for i := range material {
				material[i] = byte(17*i + 1)
			}
			p := s.spec()
			tr := mustTransform(t, 0xC0FFEE, s, bytes.Clone(material), false)
			plain := []byte("thirty-two octets, 2 or 4 blocks")
			pkt := append(make([]byte, headerSize+p.iv), plain...)
			pkt = append(pkt, make([]byte, p.icv)...)
			if err := tr.seal(seq, pkt, inner(tr, pkt)); err != nil {
				t.Fatal(err)
			}
			end := len(pkt) - p.icv
			digest := "-sha256"
			if s == TripleDESSHA1 {
				digest = "-sha1"
			}
			covered := binary.BigEndian.AppendUint32(bytes.Clone(pkt[:end]), seq>>32)
			icv := openssl(t, covered, "dgst", digest, "-mac", "HMAC", "-macopt", "hexkey:"+hex.EncodeToString(material[p.cipherKey:]), "-binary")
			if !bytes.Equal(icv[:p.icv], pkt[end:]) {
				t.Errorf("ICV %x, openssl says %x", pkt[end:], icv)
			}
			if cipherName == "" {
				return
			}
			got := openssl(t, pkt[headerSize+p.iv:end], "enc", "-d", "-nopad", cipherName,
				"-K", hex.EncodeToString(material[:p.cipherKey]), "-iv", hex.EncodeToString(pkt[headerSize:headerSize+p.iv]))
			if !bytes.Equal(got, plain) {
				t.Errorf("openssl decrypts to %q", got)
			}
		})
	}
}

func openssl(t *testing.T, stdin []byte, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("openssl", args...)
	cmd.Stdin = bytes.NewReader(stdin)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("openssl %s: %v", strings.Join(args, " "), err)
	}
	return out
}

// A CBC IV repeats never, and shows nothing of the number that it is made from.
func TestCBCIVs(t *testing.T) {
	for _, s := range []Suite{AES256CBCSHA256, TripleDESSHA1} {
		material := make([]byte, s.KeyLen())
		for i := range material {
			material[i] = byte(i * 7)
		}
		tr := mustTransform(t, minSPI, s, bytes.Clone(material), false)
		size := headerSize + tr.iv + 16 + tr.icv
		seen := map[string]bool{}
		for seq := range uint64(1000) {
			pkt := make([]byte, size)
			if err := tr.seal(seq, pkt, inner(tr, pkt)); err != nil {
				t.Fatal(err)
			}
			iv := pkt[headerSize : headerSize+tr.iv]
			if seen[string(iv)] {
				t.Fatalf("%v: IV of packet %d was used before", s, seq)
			}
			seen[string(iv)] = true
		}
		// The key of the IVs is none of the keys of the packets: encrypting the number with those gives another IV.
		var block [16]byte
		binary.BigEndian.PutUint64(block[:], 1)
		naked := bytes.Clone(block[:tr.iv])
		if tr.triple != nil {
			tr.triple.Encrypt(naked, 0)
		} else {
			tr.block.Encrypt(naked, naked)
		}
		if seen[string(naked)] {
			t.Errorf("%v: IVs are made under the packets' key", s)
		}
	}
}

// An authentic packet may still end in nonsense: a typed error, and the number is used up.
func TestPaddingIsCheckedBehindAGoodICV(t *testing.T) {
	tests := []struct {
		name, plain string // payload, padding, pad length, next header; 16 octets, whole blocks in every suite
		want        error
		payload     int
	}{
		{"none", "6162636465666768696a6b6c6d6e 00 11", nil, 14},
		{"all", "0102030405060708090a0b0c0d0e 0e 11", nil, 0},
		{"one too long for the packet", "0102030405060708090a0b0c0d0e 0f 11", ErrPadding, 0},
		{"255", "0102030405060708090a0b0c0d0e ff 11", ErrPadding, 0},
		{"zeros", "61626364656667686900000000 00 04 11", ErrPadding, 0},
		{"counted from 0", "6162636465666768696a 00010203 04 11", ErrPadding, 0},
		{"last octet wrong", "6162636465666768696a 01020305 04 11", ErrPadding, 0},
		{"dummy", "6162636465666768696a 01020304 04 3b", nil, 10},
	}
	for _, s := range Suites() {
		material := make([]byte, s.KeyLen())
		for i := range material {
			material[i] = byte(i)
		}
		tr := mustTransform(t, minSPI, s, bytes.Clone(material), false)
		in, err := NewInbound(minSPI, s, secret.New(bytes.Clone(material)), Limits{})
		if err != nil {
			t.Fatal(err)
		}
		for i, tt := range tests {
			seq := uint64(i + 1)
			pkt := append(make([]byte, headerSize+tr.iv), unhex(t, tt.plain)...)
			pkt = append(pkt, make([]byte, tr.icv)...)
			if err := tr.seal(seq, pkt, inner(tr, pkt)); err != nil {
				t.Fatal(err)
			}
			again := bytes.Clone(pkt)
			payload, _, err := in.Open(pkt)
			if err != tt.want || len(payload) != tt.payload {
				t.Errorf("%v, %s: %d octets, %v; want %d, %v", s, tt.name, len(payload), err, tt.payload, tt.want)
			}
			if _, _, err := in.Open(again); err != ErrReplay {
				t.Errorf("%v, %s again: %v", s, tt.name, err)
			}
		}
		if st := in.Stats(); st.Malformed != 5 || st.Packets != 3 || st.Dummies != 1 {
			t.Errorf("%v: counted %+v", s, st)
		}
	}
}

// The number goes on past 2^32, with only its low half on the wire; behind the wrap an old packet stays old.
func TestSequenceCrosses32Bits(t *testing.T) {
	for _, s := range []Suite{AES256GCM, ChaCha20Poly1305, AES256CBCSHA256, NullSHA256} {
		material := make([]byte, s.KeyLen())
		out, err := NewOutbound(minSPI, s, secret.New(bytes.Clone(material)), Limits{})
		if err != nil {
			t.Fatal(err)
		}
		in, err := NewInbound(minSPI, s, secret.New(bytes.Clone(material)), Limits{})
		if err != nil {
			t.Fatal(err)
		}
		const start = 1<<32 - 3
		out.seq.Store(start - 1)
		var old [][]byte
		for i := range uint64(6) {
			buf := make([]byte, 128)
			pkt, err := out.Seal(buf, 32, 8, NextUDP)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := binary.BigEndian.Uint32(pkt[4:]), uint32((start+i)&0xFFFFFFFF); got != want {
				t.Errorf("%v: number %#x on the wire, want %#x", s, got, want)
			}
			old = append(old, bytes.Clone(pkt))
			if _, _, err := in.Open(pkt); err != nil {
				t.Fatalf("%v: packet %#x: %v", s, start+i, err)
			}
			if in.window.Top() != start+i {
				t.Errorf("%v: top %#x, want %#x", s, in.window.Top(), start+i)
			}
		}
		for i, pkt := range old {
			if _, _, err := in.Open(pkt); err != ErrReplay {
				t.Errorf("%v: replayed packet %d: %v", s, i, err)
			}
		}
	}
}

// The sender stops before the last number instead of starting over, and so does its byte count.
func TestCountersNeverWrap(t *testing.T) {
	out, err := NewOutbound(minSPI, AES256GCM, secret.New(make([]byte, 36)), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 128)
	bound := AES256GCM.Bound()
	out.seq.Store(bound.HardPackets - 1)
	if _, err := out.Seal(buf, 32, 8, NextUDP); err != nil {
		t.Errorf("the last number: %v", err)
	}
	for range 1000 {
		if _, err := out.Seal(buf, 32, 8, NextUDP); err != ErrExhausted {
			t.Fatal(err)
		}
	}
	if got := out.seq.Load(); got > bound.HardPackets {
		t.Errorf("the number went on to %d", got)
	}
	out.seq.Store(0)
	out.bytes.Store(bound.HardBytes)
	for range 1000 {
		if _, err := out.Seal(buf, 32, 8, NextUDP); err != ErrExhausted {
			t.Fatal(err)
		}
	}
	if got := out.bytes.Load(); got > bound.HardBytes+128 || out.seq.Load() != 0 {
		t.Errorf("counted on to %d octets and %d packets", got, out.seq.Load())
	}
}

// inner is what stands between IV and ICV of a packet.
func inner(t *transform, pkt []byte) []byte { return pkt[headerSize+t.iv : len(pkt)-t.icv] }

func openInPlace(t *transform, seq uint64, pkt []byte) (plain []byte, ok bool, err error) {
	plain = inner(t, pkt)
	ok, err = t.open(seq, plain, pkt)
	return plain, ok, err
}
