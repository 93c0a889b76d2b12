package main

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"time"

	"golang.org/x/crypto/chacha20poly1305"
)

const (
	packetSize = 1400     // bytes of a packet, and of a datagram on the WAN
	trainSize  = 64 << 10 // the largest train that a kernel makes

	// farApart is the working set of the copy that no cache holds.
	farApart = 256 << 20
)

// copies are the rows of the copies.
func copies() *table {
	t := &table{
		Name:    "copies",
		Title:   "Copies",
		Note:    "From one buffer into another. In the last row both lie in " + fmt.Sprint(farApart>>20) + " MiB that are walked through, so that no cache helps.",
		Columns: []column{{"ns", 0}, {"GB/s", 1}},
	}
	add := func(name string, size, span int) {
		src, dst := make([]byte, span), make([]byte, span)
		for i := range src { // pages that were never written are all the same page of zeroes
			src[i], dst[i] = byte(i), byte(i)
		}
		at := 0
		t.Rows = append(t.Rows, &row{Name: name, run: func(_ context.Context, d time.Duration) ([]float64, error) {
			ns := perOp(d, func() {
				copy(dst[at:at+size], src[at:at+size])
				if at += size; at+size > span {
					at = 0
				}
			})
			return []float64{ns, float64(size) / ns}, nil
		}})
	}
	add("1,400-byte packets of a train", packetSize, trainSize)
	add("trains of 64 KiB", trainSize, trainSize)
	add("trains of 64 KiB, out of cache", trainSize, farApart)
	return t
}

// ciphers are the rows of the bare AEADs. They walk through the packets of a train, as a router does.
func ciphers() (*table, error) {
	t := &table{
		Name:    "ciphers",
		Title:   "Ciphers",
		Note:    "A packet of 1,400 bytes with 8 bytes of associated data, 16 bytes of tag. Beside: from one buffer into another, which saves a copy where one is due.",
		Columns: []column{{"ns", 0}, {"GB/s", 2}},
	}
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		return nil, fmt.Errorf("preparing AES-256: %w", err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("preparing AES-256-GCM: %w", err)
	}
	chacha, err := chacha20poly1305.New(make([]byte, chacha20poly1305.KeySize))
	if err != nil {
		return nil, fmt.Errorf("preparing ChaCha20-Poly1305: %w", err)
	}
	for _, c := range []struct {
		name string
		aead cipher.AEAD
	}{{"AES-256-GCM", gcm}, {"ChaCha20-Poly1305", chacha}} {
		for _, beside := range []bool{false, true} {
			t.Rows = append(t.Rows, sealing(c.name, c.aead, beside), opening(c.name, c.aead, beside))
		}
	}
	return t, nil
}

const (
	tagSize = 16
	stride  = packetSize + 64 // from packet to packet: room for a tag and for headers
	packets = trainSize / stride
)

// bench is what one cipher works on.
type bench struct {
	src, dst []byte // the same if it works in place
	nonce    []byte
	ad       []byte
	at       int
}

func newBench(aead cipher.AEAD, beside bool) *bench {
	b := &bench{src: make([]byte, trainSize), nonce: make([]byte, aead.NonceSize()), ad: make([]byte, 8)}
	b.dst = b.src
	if beside {
		b.dst = make([]byte, trainSize)
	}
	return b
}

func (b *bench) next() {
	if b.at += stride; b.at+stride > packets*stride {
		b.at = 0
	}
}

func named(name, doing string, beside bool) string {
	if beside {
		return name + ", " + doing + " beside"
	}
	return name + ", " + doing + " in place"
}

func sealing(name string, aead cipher.AEAD, beside bool) *row {
	b := newBench(aead, beside)
	return &row{Name: named(name, "seal", beside), run: func(_ context.Context, d time.Duration) ([]float64, error) {
		ns := perOp(d, func() {
			aead.Seal(b.dst[b.at:b.at], b.nonce, b.src[b.at:b.at+packetSize], b.ad)
			b.next()
		})
		return []float64{ns, packetSize / ns}, nil
	}}
}

// opening opens the packets of a train. In place that leaves plaintext where ciphertext was, so the train is brought anew
// each time, which is not counted.
func opening(name string, aead cipher.AEAD, beside bool) *row {
	b := newBench(aead, beside)
	sealed := aead.Seal(nil, b.nonce, make([]byte, packetSize), b.ad)
	return &row{Name: named(name, "open", beside), run: func(_ context.Context, d time.Duration) ([]float64, error) {
		var (
			spent  time.Duration
			opened int
		)
		for spent < d {
			for at := 0; at < packets*stride; at += stride {
				copy(b.src[at:], sealed)
			}
			start := time.Now()
			for at := 0; at < packets*stride; at += stride {
				if _, err := aead.Open(b.dst[at:at], b.nonce, b.src[at:at+packetSize+tagSize], b.ad); err != nil {
					return nil, fmt.Errorf("opening: %w", err)
				}
			}
			spent += time.Since(start)
			opened += packets
		}
		ns := float64(spent.Nanoseconds()) / float64(opened)
		return []float64{ns, packetSize / ns}, nil
	}}
}
