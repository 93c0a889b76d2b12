package config

import (
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
)

// Size is a number of bytes, written with an optional unit: 1500, 64KiB, 100MiB, 2GiB,
// 1TiB, or decimal 10kB, 5MB, 1GB, 1TB.
type Size uint64

type sizeUnit struct {
	name  string
	bytes uint64
}

// sizeUnits is in the order in which String tries them.
func sizeUnits() []sizeUnit {
	return []sizeUnit{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}}
}

// UnmarshalText reads what the type's comment describes.
func (s *Size) UnmarshalText(b []byte) error {
	in := string(b)
	digits, unit := in, uint64(1)
	for _, u := range sizeUnits() {
		if rest, ok := strings.CutSuffix(in, u.name); ok {
			digits, unit = strings.TrimSpace(rest), u.bytes
			break
		}
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil {
		return fmt.Errorf("%q is no size: write bytes or a number with KiB, MiB, GiB, TiB, kB, MB, GB or TB", in)
	}
	high, low := bits.Mul64(n, unit)
	if high != 0 || low > math.MaxInt64 {
		return fmt.Errorf("%q is too large", in)
	}
	*s = Size(low)
	return nil
}

// String uses the largest binary unit that divides s.
func (s Size) String() string {
	for _, u := range sizeUnits()[:4] {
		if s != 0 && uint64(s)%u.bytes == 0 {
			return strconv.FormatUint(uint64(s)/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatUint(uint64(s), 10)
}

// MarshalText is String.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
