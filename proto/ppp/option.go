package ppp

import (
	"encoding/binary"
	"fmt"
	"iter"
	"net/netip"

	"twinkey/proto/wire"
)

// Option is one configuration option. What Type means depends on the control protocol.
type Option struct {
	Type uint8
	Data []byte // at most 253 bytes
}

// Option types of LCP (RFC 1661 section 6; 2 is from RFC 1662 section 7.1).
const (
	OptMRU     uint8 = 1
	OptACCM    uint8 = 2
	OptAuth    uint8 = 3
	OptQuality uint8 = 4
	OptMagic   uint8 = 5
	OptPFC     uint8 = 7
	OptACFC    uint8 = 8
)

// Option types of IPCP (RFC 1332 section 3; from 129 RFC 1877).
const (
	OptIPAddresses   uint8 = 1 // deprecated
	OptIPCompression uint8 = 2
	OptIPAddress     uint8 = 3
	OptDNS1          uint8 = 129
	OptNBNS1         uint8 = 130
	OptDNS2          uint8 = 131
	OptNBNS2         uint8 = 132
)

// Option types of IPV6CP (RFC 5072 section 4).
const (
	OptInterfaceID     uint8 = 1
	OptIPv6Compression uint8 = 2
)

// OptOUI is the option type of CCP that names a vendor's own method (RFC 1962 section 5.1): OUI, 3 octets,
// subtype, 1 octet, and whatever the vendor likes.
const OptOUI uint8 = 0

// optionHeader is the length in bytes of an option's Type and Length.
const optionHeader = 2

// optionSpec is a row of the registry: the lengths in bytes that Data may have.
type optionSpec struct {
	name     string
	min, max int
	section  string
}

// The registries of option types: a row per type that some code here can read, the type
// is the index, a row without a name is a type that nobody reads.
var (
	lcpOptions = [...]optionSpec{
		OptMRU:     {"Maximum-Receive-Unit", 2, 2, "RFC 1661 6.1"},
		OptACCM:    {"Async-Control-Character-Map", 4, 4, "RFC 1662 7.1"},
		OptAuth:    {"Authentication-Protocol", 2, 253, "RFC 1661 6.2"},
		OptQuality: {"Quality-Protocol", 2, 253, "RFC 1661 6.3"},
		OptMagic:   {"Magic-Number", 4, 4, "RFC 1661 6.4"},
		OptPFC:     {"Protocol-Field-Compression", 0, 0, "RFC 1661 6.5"},
		OptACFC:    {"Address-and-Control-Field-Compression", 0, 0, "RFC 1661 6.6"},
	}
	ipcpOptions = [...]optionSpec{
		OptIPAddresses:   {"IP-Addresses", 8, 8, "RFC 1332 3.1"},
		OptIPCompression: {"IP-Compression-Protocol", 2, 253, "RFC 1332 3.2"},
		OptIPAddress:     {"IP-Address", 4, 4, "RFC 1332 3.3"},
		OptDNS1:          {"Primary-DNS-Address", 4, 4, "RFC 1877 1.1"},
		OptNBNS1:         {"Primary-NBNS-Address", 4, 4, "RFC 1877 1.2"},
		OptDNS2:          {"Secondary-DNS-Address", 4, 4, "RFC 1877 1.3"},
		OptNBNS2:         {"Secondary-NBNS-Address", 4, 4, "RFC 1877 1.4"},
	}
	ccpOptions = [...]optionSpec{
		OptOUI: {"Proprietary Compression OUI", 4, 253, "RFC 1962 5.1"},
	}
	ipv6cpOptions = [...]optionSpec{
		OptInterfaceID:     {"Interface-Identifier", 8, 8, "RFC 5072 4.1"},
		OptIPv6Compression: {"IPv6-Compression-Protocol", 2, 253, "RFC 5172 2"},
	}
)

func registry(p Protocol) []optionSpec {
	switch p {
	case ProtoLCP:
		return lcpOptions[:]
	case ProtoIPCP:
		return ipcpOptions[:]
	case ProtoIPv6CP:
		return ipv6cpOptions[:]
	case ProtoCCP:
		return ccpOptions[:]
	default:
		return nil
	}
}

func lookup(p Protocol, typ uint8) (optionSpec, bool) {
	rows := registry(p)
	if int(typ) >= len(rows) || rows[typ].name == "" {
		return optionSpec{}, false
	}
	return rows[typ], true
}

// OptionName is the RFC's name of an option of control protocol p.
func OptionName(p Protocol, typ uint8) string {
	if s, ok := lookup(p, typ); ok {
		return s.name
	}
	return fmt.Sprintf("%v option %d", p, typ)
}

// Check tells whether the option's length is one that its type may have in control
// protocol p. A type that is in no registry passes: whether to reject it is not a
// question of form. The error is a *wire.ParseError.
func (o Option) Check(p Protocol) error {
	if s, ok := lookup(p, o.Type); ok && (len(o.Data) < s.min || len(o.Data) > s.max) {
		return &wire.ParseError{Layer: p.String(), Field: s.name, Err: wire.ErrLength}
	}
	return nil
}

// Append appends the option. Data beyond 253 bytes is cut off.
func (o Option) Append(b []byte) []byte {
	data := o.Data[:min(len(o.Data), 0xff-optionHeader)]
	b = append(b, o.Type, byte(optionHeader+len(data)))
	return append(b, data...)
}

// Uint16 is the value of an MRU option; 0 if Data has another length.
func (o Option) Uint16() uint16 {
	if len(o.Data) != 2 {
		return 0
	}
	return binary.BigEndian.Uint16(o.Data)
}

// Uint32 is the value of a Magic-Number or ACCM option; 0 if Data has another length.
func (o Option) Uint32() uint32 {
	if len(o.Data) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(o.Data)
}

// IPv4 is the value of an option that holds one address; the zero Addr if Data has
// another length.
func (o Option) IPv4() netip.Addr {
	if len(o.Data) != 4 {
		return netip.Addr{}
	}
	return netip.AddrFrom4([4]byte(o.Data))
}

// InterfaceID is the value of an Interface-Identifier; zero if Data has another length.
func (o Option) InterfaceID() (id [8]byte) {
	if len(o.Data) == len(id) {
		copy(id[:], o.Data)
	}
	return id
}

// AppendUint16 appends an option with a two-byte value (MRU).
func AppendUint16(b []byte, typ uint8, v uint16) []byte {
	return binary.BigEndian.AppendUint16(append(b, typ, optionHeader+2), v)
}

// AppendUint32 appends an option with a four-byte value (Magic-Number, ACCM).
func AppendUint32(b []byte, typ uint8, v uint32) []byte {
	return binary.BigEndian.AppendUint32(append(b, typ, optionHeader+4), v)
}

// AppendIPv4 appends an option that holds an IPv4 address.
func AppendIPv4(b []byte, typ uint8, a netip.Addr) []byte {
	v := a.As4()
	return append(append(b, typ, optionHeader+4), v[:]...)
}

// Options is a list of options whose bounds ParseOptions has checked.
type Options struct{ b []byte }

// ParseOptions checks that b is a list of whole options, of lengths that control
// protocol p allows. The list aliases b. The error is a *wire.ParseError whose Offset
// counts from the start of b.
func ParseOptions(p Protocol, b []byte) (Options, error) {
	r := wire.NewReader(p.String(), b)
	for r.Len() > 0 {
		at := r.Offset()
		o := Option{Type: r.Uint8("Option Type")}
		// Length counts Type and Length themselves; 0 and 1 would never end.
		o.Data = r.Bytes("Option Data", int(r.Uint8("Option Length"))-optionHeader)
		if r.Err() != nil {
			break
		}
		if err := o.Check(p); err != nil {
			return Options{}, &wire.ParseError{Layer: p.String(), Field: OptionName(p, o.Type), Offset: at, Err: wire.ErrLength}
		}
	}
	if err := r.Err(); err != nil {
		return Options{}, err
	}
	return Options{b}, nil
}

// All yields the options in order. Their Data aliases what was parsed.
func (l Options) All() iter.Seq[Option] {
	return func(yield func(Option) bool) {
		for b := l.b; len(b) > 0; b = b[b[1]:] {
			if !yield(Option{Type: b[0], Data: b[optionHeader:b[1]:b[1]]}) {
				return
			}
		}
	}
}

// Bytes is the list as it was parsed, to be sent back unchanged in a Configure-Ack.
func (l Options) Bytes() []byte { return l.b }
