//go:build linux

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"

	"twinkey/pkg/netlab"
	"twinkey/scripts/lab"
)

// captures are what the demo proves its claims on: the WAN, where nothing private may be seen, and hosta's cable, where the same
// search must find everything, or it would prove nothing.
type captures struct {
	wan, lan         *netlab.Capture
	wanFile, lanFile string
}

func (d *demo) startCaptures(context.Context) (err error) {
	c := &d.captures
	c.wanFile, c.lanFile = filepath.Join(d.Dir, "wan.pcap"), filepath.Join(d.Dir, "lan.pcap")
	if c.wan, err = d.WAN.Capture(c.wanFile); err != nil {
		return err
	}
	c.lan, err = d.HostA.Capture("eth0", c.lanFile)
	return err
}

// inspect ends the captures and searches them.
func (d *demo) inspect(context.Context) error {
	if err := errors.Join(d.captures.wan.Close(), d.captures.lan.Close()); err != nil {
		return err
	}
	s := newSearch([]netip.Prefix{lab.SiteA.LAN, lab.SiteB.LAN, lab.SiteA.Users}, d.aToB, d.bToA)
	lan, err := s.file(d.captures.lanFile)
	if err != nil {
		return err
	}
	d.show("LAN of hosta, to compare: %v", lan)
	if lan.fileBlocks == 0 || lan.addresses == 0 {
		return errors.New("the search does not find on the LAN what must be there: it would prove nothing about the WAN")
	}
	wan, err := s.file(d.captures.wanFile)
	if err != nil {
		return err
	}
	d.show("WAN: %v", wan)
	if wan.fileBlocks != 0 || wan.addresses != 0 {
		return errors.New("something private crossed the WAN in clear")
	}
	if wan.frames == 0 || wan.bytes < 2*fileSize {
		return fmt.Errorf("the capture of the WAN is too short to have held the files: %v", wan)
	}
	return nil
}

// findings of a search through one capture.
type findings struct {
	frames     int
	bytes      int
	fileBlocks int // places that hold a block of one of the files
	addresses  int // places that hold two private addresses, as an IP header does, or one in writing
}

func (f findings) String() string {
	return fmt.Sprintf("%d frames, %d bytes: the files' bytes in %d places, private addresses in %d", f.frames, f.bytes, f.fileBlocks, f.addresses)
}

// blockSize of the files is searched for at every offset of every frame: any 31 consecutive bytes of a file hold a
// whole block. The files are random, so a block is there by accident with odds of 2^-128 each.
const blockSize = 16

// search knows what must not be seen.
type search struct {
	blocks  map[[blockSize]byte]struct{}
	private []netip.Prefix // IPv4
	written [][]byte       // the beginnings of the private prefixes' addresses, in text
}

func newSearch(private []netip.Prefix, files ...[]byte) *search {
	s := &search{blocks: map[[blockSize]byte]struct{}{}, private: private}
	for _, f := range files {
		for ; len(f) >= blockSize; f = f[blockSize:] {
			s.blocks[[blockSize]byte(f)] = struct{}{}
		}
	}
	for _, p := range private { // the LANs are /24: three numbers and a dot
		a := p.Addr().As4()
		s.written = append(s.written, fmt.Appendf(nil, "%d.%d.%d.", a[0], a[1], a[2]))
	}
	return s
}

func (s *search) file(name string) (f findings, err error) {
	for frame, err := range netlab.Frames(name) {
		if err != nil {
			return f, err
		}
		s.frame(frame, &f)
	}
	return f, nil
}

func (s *search) frame(b []byte, f *findings) {
	f.frames++
	f.bytes += len(b)
	for ; len(b) >= 8; b = b[1:] {
		// Source and destination lie side by side in an IP header. One address alone is four bytes, which
		// random bytes of this many megabytes may well hold by accident.
		if s.isPrivate(b) && s.isPrivate(b[4:]) || s.isWritten(b) {
			f.addresses++
		}
		if len(b) >= blockSize {
			if _, ok := s.blocks[[blockSize]byte(b)]; ok {
				f.fileBlocks++
			}
		}
	}
}

func (s *search) isPrivate(b []byte) bool {
	v := binary.BigEndian.Uint32(b)
	for _, p := range s.private {
		a := p.Addr().As4()
		if (v^binary.BigEndian.Uint32(a[:]))>>(32-p.Bits()) == 0 {
			return true
		}
	}
	return false
}

func (s *search) isWritten(b []byte) bool {
	for _, w := range s.written {
		if len(b) >= len(w) && string(b[:len(w)]) == string(w) {
			return true
		}
	}
	return false
}
