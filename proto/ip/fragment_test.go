package ip_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"twinkey/proto/ip"
)

// reassemble puts fragments together as a host does, and checks what each says of itself.
func reassemble(t *testing.T, frags [][]byte, mtu int) (payload []byte) {
	t.Helper()
	for i, f := range frags {
		p, err := ip.Parse(f)
		if err != nil || !p.HeaderOK() || p.Len() != len(f) || len(f) > mtu {
			t.Fatalf("fragment %d: %v, %d bytes", i, err, len(f))
		}
		w := binary.BigEndian.Uint16(f[6:])
		if int(w&0x1fff)*8 != len(payload) || (w&0x2000 != 0) != (i < len(frags)-1) {
			t.Fatalf("fragment %d: offset and flags %04x, %d bytes before it", i, w, len(payload))
		}
		payload = append(payload, p.Payload()...)
	}
	return payload
}

func TestFragment(t *testing.T) {
	for _, n := range []int{1, 8, 556, 557, 1400, 3000, 65000} {
		for _, mtu := range []int{68, 576, 1280, 1446} {
			want := bytes.Repeat([]byte{1, 2, 3, 5, 7}, n/5+1)[:n]
			b := v4(ip.UDP, want)
			b[6] = 0
			binary.BigEndian.PutUint16(b[4:], 77)
			p, err := ip.Parse(b)
			if err != nil {
				t.Fatal(err)
			}
			var frags [][]byte
			for f := range ip.Fragment(p, mtu, make([]byte, mtu)) {
				frags = append(frags, bytes.Clone(f))
			}
			if len(frags) == 1 { // as it is, checksum and all
				if len(b) > mtu || !bytes.Equal(frags[0], b) {
					t.Errorf("%d bytes, MTU %d: one fragment", n, mtu)
				}
				continue
			}
			if got := reassemble(t, frags, mtu); !bytes.Equal(got, want) {
				t.Errorf("%d bytes, MTU %d: reassembled to %d", n, mtu, len(got))
			}
			if id := binary.BigEndian.Uint16(frags[len(frags)-1][4:]); id != 77 {
				t.Errorf("identification %d", id)
			}
		}
	}
}

// A fragment may be cut again, and stays in its place.
func TestFragmentOfAFragment(t *testing.T) {
	b := v4(ip.UDP, make([]byte, 1000))
	binary.BigEndian.PutUint16(b[6:], 0x2000|100)
	p, err := ip.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	want := []uint16{0x2000 | 100, 0x2000 | 100 + 69}
	i := 0
	for f := range ip.Fragment(p, 576, make([]byte, 576)) {
		if w := binary.BigEndian.Uint16(f[6:]); w != want[i] {
			t.Errorf("fragment %d: %04x, want %04x", i, w, want[i])
		}
		i++
	}
	if i != 2 {
		t.Errorf("%d fragments", i)
	}
}

func TestFragmentCopiesOptions(t *testing.T) {
	opts := []byte{7, 3, 4, 1, 0x83, 3, 4, 0} // record route stays behind, loose source route goes along
	b := v4(ip.UDP, append(bytes.Clone(opts), make([]byte, 200)...))
	b[0], b[6] = 0x47, 0
	p, err := ip.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	var heads []string
	for f := range ip.Fragment(p, 128, make([]byte, 128)) {
		q, err := ip.Parse(f)
		if err != nil || !q.HeaderOK() {
			t.Fatalf("% x: %v", f, err)
		}
		heads = append(heads, fmt.Sprintf("%x", f[20:q.Len()-len(q.Payload())]))
	}
	if fmt.Sprint(heads) != "[0703040183030400 83030400 83030400]" {
		t.Error(heads)
	}
}

func TestFragmentRefuses(t *testing.T) {
	withDF := v4(ip.UDP, make([]byte, 1000))
	six := v6(ip.UDP, make([]byte, 1000))
	small := v4(ip.UDP, make([]byte, 1000))
	small[6] = 0
	for name, b := range map[string][]byte{"DF": withDF, "IPv6": six, "no room": small} {
		p, err := ip.Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		mtu := 576
		if name == "no room" {
			mtu = 27
		}
		for f := range ip.Fragment(p, mtu, make([]byte, mtu)) {
			t.Errorf("%s: % x", name, f)
		}
	}
}
