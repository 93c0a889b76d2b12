package handshake

import "github.com/flynn/noise"

// pattern is the high half of a message's first byte.
type pattern uint8

const (
	patternXX     pattern = 1
	patternXXpsk3 pattern = 2
	patternIK     pattern = 3
	patternIKpsk2 pattern = 4
)

// hybrid says whether the pattern mixes in a psk.
func (p pattern) hybrid() bool { return p == patternXXpsk3 || p == patternIKpsk2 }

func (p pattern) noise() noise.HandshakePattern {
	if p == patternIK || p == patternIKpsk2 {
		return noise.HandshakeIK
	}
	return noise.HandshakeXX
}

func (p pattern) pskPlacement() int {
	switch p {
	case patternXXpsk3:
		return 3
	case patternIKpsk2:
		return 2
	default:
		return 0
	}
}

// first is the first byte of the n-th message.
func (p pattern) first(n int) byte { return byte(p)<<4 | byte(n) } //nolint:gosec // 1 to 3
