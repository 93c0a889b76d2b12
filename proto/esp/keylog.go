package esp

import (
	"encoding/hex"
	"fmt"
	"strings"

	"twinkey/proto/secret"
)

// sharkNames are the algorithms as Wireshark's table esp_sa spells them. It knows no
// ChaCha20-Poly1305 (up to 4.0).
type sharkNames struct{ cipher, integrity string }

func (s Suite) sharkNames() (sharkNames, bool) {
	switch s {
	case AES256GCM, AES128GCM:
		return sharkNames{"AES-GCM with 16 octet ICV [RFC4106]", "NULL"}, true
	case AES256CBCSHA256:
		return sharkNames{"AES-CBC [RFC3602]", "HMAC-SHA-256-128 [RFC4868]"}, true
	case TripleDESSHA1:
		return sharkNames{"TripleDES-CBC [RFC2451]", "HMAC-SHA-1-96 [RFC2404]"}, true
	case NullSHA256:
		return sharkNames{"NULL", "HMAC-SHA-256-128 [RFC4868]"}, true
	case ChaCha20Poly1305, AES256GCMIIV, ChaCha20Poly1305IIV, AES128GCMIIV, AES256CBCSHA256IIV: // nor implicit IVs
	}
	return sharkNames{}, false
}

// AppendKeyLog appends one line of Wireshark's table esp_sa (a file of that name in its
// configuration directory), with which tshark decrypts the packets of one SA:
//
//	"IPv4","192.0.2.1","198.51.100.7","0x1a2b3c4d","AES-GCM with 16 octet ICV [RFC4106]","0x...","NULL","0x"
//
// src and dst are the outer addresses, or "*" for any. Run tshark with
// -o esp.enable_encryption_decode:TRUE; for port 1701 also with -X lua_script:testdata/twinkey.lua, since Decode
// As udpencap would take the L2TP inside, which has port 1701 too, for ESP again.
// The line holds the key in clear: whoever logs it gives the traffic away.
//
// The eight columns are those of Wireshark 4.0, which knows no extended sequence numbers: it decrypts,
// but calls every ICV wrong if asked to check them, because the high half is under the ICV also
// while it is 0. Later versions take the same line; for them to check ICVs append
// ,"64-bit","0" to it, the last being the high half in hex.
//
// For a suite that the table cannot name the line is a comment without the key. Nothing is
// appended for no suite or a key of the wrong length.
func AppendKeyLog(b []byte, src, dst string, spi uint32, s Suite, key secret.Key) []byte {
	if !s.Valid() || key.Len() != s.KeyLen() {
		return b
	}
	family := "IPv4"
	if strings.Contains(src, ":") || strings.Contains(dst, ":") {
		family = "IPv6"
	}
	names, ok := s.sharkNames()
	if !ok {
		return fmt.Appendf(b, "# %s %s %s 0x%08x %s: not in this table\n", family, src, dst, spi, s)
	}
	p := s.spec()
	cipherKey := key.Bytes()[:p.cipherKey+p.salt]
	authKey := key.Bytes()[p.cipherKey+p.salt:]
	b = fmt.Appendf(b, `"%s","%s","%s","0x%08x","%s","0x`, family, src, dst, spi, names.cipher)
	b = hex.AppendEncode(b, cipherKey)
	b = fmt.Appendf(b, `","%s","0x`, names.integrity)
	b = hex.AppendEncode(b, authKey)
	return append(b, '"', '\n')
}
