package esp

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"sync/atomic"

	"twinkey/proto/esp/tripledes"
	"twinkey/proto/secret"
)

const (
	nonceSize = 12 // salt and IV (RFC 4106 section 4, RFC 7634 section 2)
	aadSize   = 12 // SPI and 64-bit sequence number (RFC 4106 section 5)

	// ivLabel keeps the key that makes CBC IVs apart from those that the packets use.
	ivLabel = "twinkey esp cbc iv"
)

// errClone can only come from a build whose hashes cannot be copied.
var errClone = errors.New("hash state cannot be copied")

// transform is the cryptography of one SA in one direction. It is immutable but for its
// free list of lanes.
type transform struct {
	*spec
	spi     uint32
	salt    [4]byte
	aead    cipher.AEAD  // or
	block   cipher.Block // or, of AES-CBC
	triple  *tripledes.Cipher
	ivBlock cipher.Block // makes CBC IVs
	mac     hash.Cloner  // keyed, never written to: lanes are cloned from it
	decrypt bool
	free    [lanes]atomic.Pointer[lane]
}

// lanes is how many goroutines may be inside one SA before a state is allocated for a packet.
const lanes = 8

// lane is what one packet in flight needs besides its own bytes. It lives on the heap,
// because what is passed to an interface method escapes.
type lane struct {
	nonce [nonceSize]byte
	aad   [aadSize]byte
	iv    [aes.BlockSize]byte
	sum   [sha256.Size]byte
	mac   hash.Hash
	cbc   blockMode
	side  [tripledes.Lanes][]byte // of 3DES
	ivs   [tripledes.Lanes]uint64
}

// blockMode is the CBC mode of the standard library: it takes a new IV without being made anew.
type blockMode interface {
	cipher.BlockMode
	SetIV(iv []byte)
}

// newTransform reads key, of Suite.KeyLen octets, and keeps no reference to it.
func newTransform(spi uint32, s Suite, key secret.Key, decrypt bool) (*transform, error) {
	if !s.Valid() {
		return nil, fmt.Errorf("making ESP SA %08x: %w: %v", spi, ErrSuite, s)
	}
	if spi < minSPI {
		return nil, fmt.Errorf("making ESP SA %08x: %w: 0 to 255 are reserved", spi, ErrSPI)
	}
	if key.Len() != s.KeyLen() {
		return nil, fmt.Errorf("making ESP SA %08x: %w: %d octets, %v takes %d", spi, ErrKey, key.Len(), s, s.KeyLen())
	}
	t := &transform{spec: s.spec(), spi: spi, decrypt: decrypt}
	if err := t.expand(key.Bytes()); err != nil {
		return nil, fmt.Errorf("making ESP SA %08x of %v: %w", spi, s, err)
	}
	first, err := t.newLane()
	if err != nil {
		return nil, fmt.Errorf("making ESP SA %08x of %v: %w", spi, s, err)
	}
	t.put(first)
	return t, nil
}

// expand makes the ciphers from the key material.
func (t *transform) expand(material []byte) (err error) {
	key, rest := material[:t.cipherKey], material[t.cipherKey:]
	if t.spec.aead != nil {
		copy(t.salt[:], rest)
		t.aead, err = t.spec.aead(key)
		return err
	}
	if t.cipherKey > 0 {
		if err := t.newBlock(key); err != nil {
			return err
		}
		h := hmac.New(sha256.New, material)
		h.Write([]byte(ivLabel))
		if t.ivBlock, err = aes.NewCipher(h.Sum(nil)); err != nil {
			return err
		}
	}
	mac, ok := hmac.New(t.spec.mac, rest).(hash.Cloner)
	if !ok {
		return errClone
	}
	t.mac = mac
	return nil
}

// newBlock makes the cipher that is used in CBC mode.
func (t *transform) newBlock(key []byte) (err error) {
	if t.spec.block == nil {
		t.triple, err = newTripleDES(key)
		return err
	}
	t.block, err = t.spec.block(key)
	return err
}

func (t *transform) newLane() (*lane, error) {
	l := new(lane)
	if t.mac == nil {
		copy(l.nonce[:], t.salt[:])
		return l, nil
	}
	mac, err := t.mac.Clone()
	if err != nil {
		return nil, err
	}
	l.mac = mac
	if t.block == nil {
		return l, nil
	}
	mode := cipher.NewCBCEncrypter
	if t.decrypt {
		mode = cipher.NewCBCDecrypter
	}
	cbc, ok := mode(t.block, l.iv[:]).(blockMode)
	if !ok {
		return nil, errors.New("CBC mode takes no new IV")
	}
	l.cbc = cbc
	return l, nil
}

// take returns a lane that nobody else uses until put.
func (t *transform) take() (*lane, error) {
	for i := range t.free {
		p := &t.free[i]
		if l := p.Load(); l != nil && p.CompareAndSwap(l, nil) {
			return l, nil
		}
	}
	return t.newLane()
}

// put gives a lane back, or to the garbage collector if the list is full.
func (t *transform) put(l *lane) {
	for i := range t.free {
		p := &t.free[i]
		if p.Load() == nil && p.CompareAndSwap(nil, l) {
			return
		}
	}
}

// seal makes pkt the ESP packet number seq that holds plain, which is either what stands between
// IV and ICV in pkt, or, with an AEAD, somewhere else.
func (t *transform) seal(seq uint64, pkt, plain []byte) error {
	l, err := t.take()
	if err != nil {
		return err
	}
	t.head(l, seq, pkt)
	t.sealIV(l, seq, pkt, plain)
	t.put(l)
	return nil
}

// head writes SPI, sequence number and IV.
func (t *transform) head(l *lane, seq uint64, pkt []byte) {
	binary.BigEndian.PutUint32(pkt, t.spi)
	binary.BigEndian.PutUint32(pkt[spiSize:], uint32(seq))
	iv := pkt[headerSize : headerSize+t.iv]
	if t.aead != nil {
		if !t.implicit {
			binary.BigEndian.PutUint64(iv, seq)
		}
	} else if t.ivBlock != nil && !t.implicit {
		copy(iv, t.cbcIV(l, seq))
	}
}

// cbcIV is unpredictable to who does not know the key, and never comes again in this SA. It is valid until the lane is
// used again.
func (t *transform) cbcIV(l *lane, seq uint64) []byte {
	binary.BigEndian.PutUint64(l.iv[:], seq)
	clear(l.iv[8:])
	t.ivBlock.Encrypt(l.iv[:], l.iv[:])
	return l.iv[:]
}

// setIV has CBC begin with the packet's IV: the one that was sent, or the one that was not.
func (t *transform) setIV(l *lane, seq uint64, sent []byte) {
	if t.implicit {
		sent = t.cbcIV(l, seq)
	}
	l.cbc.SetIV(sent)
}

// finish seals packets whose heads and plaintexts stand in place, as many side by side as the cipher works on.
func (t *transform) finish(ps []Pending) error {
	l, err := t.take()
	if err != nil {
		return err
	}
	start := headerSize + t.iv
	for rest := ps; len(rest) > 0; {
		n := min(len(rest), tripledes.Lanes)
		if n < tripledes.Lanes {
			for _, p := range rest {
				t.triple.Encrypt(p.Pkt[start:len(p.Pkt)-t.icv], binary.BigEndian.Uint64(p.Pkt[headerSize:]))
			}
		} else {
			for i, p := range rest[:n] {
				l.side[i], l.ivs[i] = p.Pkt[start:len(p.Pkt)-t.icv], binary.BigEndian.Uint64(p.Pkt[headerSize:])
			}
			t.triple.EncryptLanes(&l.side, &l.ivs)
			clear(l.side[:])
		}
		rest = rest[n:]
	}
	for _, p := range ps {
		end := len(p.Pkt) - t.icv
		copy(p.Pkt[end:], l.authenticate(p.Pkt[:end], p.seq))
	}
	t.put(l)
	return nil
}

// sealIV is seal once SPI, sequence number and IV stand in pkt.
func (t *transform) sealIV(l *lane, seq uint64, pkt, plain []byte) {
	start, end := headerSize+t.iv, len(pkt)-t.icv
	if t.aead != nil {
		l.prepare(pkt, seq, t.implicit)
		t.aead.Seal(pkt[start:start], l.nonce[:], plain, l.aad[:])
		return
	}
	if l.cbc != nil {
		t.setIV(l, seq, pkt[headerSize:start])
		l.cbc.CryptBlocks(pkt[start:end], pkt[start:end])
	} else if t.triple != nil {
		t.triple.Encrypt(pkt[start:end], binary.BigEndian.Uint64(pkt[headerSize:]))
	}
	copy(pkt[end:], l.authenticate(pkt[:end], seq))
}

// open checks packet number seq and decrypts it into plain, which is as long as what was encrypted,
// trailer included, and is either the same memory or apart. It returns false if the ICV is wrong.
func (t *transform) open(seq uint64, plain, pkt []byte) (ok bool, err error) {
	l, err := t.take()
	if err != nil {
		return false, err
	}
	start, end := headerSize+t.iv, len(pkt)-t.icv
	if t.aead != nil {
		l.prepare(pkt, seq, t.implicit)
		_, bad := t.aead.Open(plain[:0], l.nonce[:], pkt[start:], l.aad[:])
		ok = bad == nil
	} else if ok = subtle.ConstantTimeCompare(l.authenticate(pkt[:end], seq)[:t.icv], pkt[end:]) == 1; ok {
		switch {
		case l.cbc != nil:
			t.setIV(l, seq, pkt[headerSize:start])
			l.cbc.CryptBlocks(plain, pkt[start:end])
		case t.triple != nil:
			t.triple.Decrypt(plain, pkt[start:end], binary.BigEndian.Uint64(pkt[headerSize:]))
		default:
			copy(plain, pkt[start:end])
		}
	}
	t.put(l)
	return ok, nil
}

// prepare sets nonce and associated data from the packet's SPI and IV and the full sequence number, which
// is the IV where none is sent.
func (l *lane) prepare(pkt []byte, seq uint64, implicit bool) {
	if implicit {
		binary.BigEndian.PutUint64(l.nonce[nonceSize-8:], seq)
	} else {
		copy(l.nonce[nonceSize-8:], pkt[headerSize:headerSize+8])
	}
	copy(l.aad[:spiSize], pkt)
	binary.BigEndian.PutUint64(l.aad[spiSize:], seq)
}

// authenticate returns the whole HMAC of what stands in the packet before the ICV, and of
// the high half of the sequence number (RFC 4303 section 2.2.1). It is valid until the lane is used again.
func (l *lane) authenticate(p []byte, seq uint64) []byte {
	l.mac.Reset()
	l.mac.Write(p)
	binary.BigEndian.PutUint32(l.iv[:], uint32(seq>>32))
	l.mac.Write(l.iv[:4])
	return l.mac.Sum(l.sum[:0])
}

// newTripleDES refuses keys that make 3DES a single DES (RFC 2451 section 2.3).
func newTripleDES(key []byte) (*tripledes.Cipher, error) {
	if sameDESKey(key[:8], key[8:16]) || sameDESKey(key[8:16], key[16:]) {
		return nil, fmt.Errorf("%w: two equal parts make 3DES a single DES", ErrKey)
	}
	return tripledes.New(key)
}

// sameDESKey compares without the parity bits, which DES ignores.
func sameDESKey(a, b []byte) bool {
	var differ byte
	for i := range a {
		differ |= (a[i] ^ b[i]) &^ 1
	}
	return differ == 0
}
