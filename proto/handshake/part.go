package handshake

import "fmt"

// partHeader is the length of a part's header: its index from 0, then how many there are.
const partHeader = 2

// maxParts bounds how many parts a message may come in.
const maxParts = 32

// Split cuts msg into parts of at most limit bytes, header included, to be sent in order:
//
//	| index (1) | total (1) | bytes ...
//
// It fails with ErrTooLong for a message above MaxMessage or a limit so small that more
// than maxParts would be needed. Parts are copies.
func Split(msg []byte, limit int) ([][]byte, error) {
	room := limit - partHeader
	if len(msg) == 0 || len(msg) > MaxMessage || room <= 0 || len(msg) > room*maxParts {
		return nil, fmt.Errorf("%w: %d bytes in parts of %d", ErrTooLong, len(msg), limit)
	}
	total := (len(msg) + room - 1) / room
	parts := make([][]byte, 0, total)
	for i := range total {
		n := min(room, len(msg))
		part := append(make([]byte, 0, partHeader+n), byte(i), byte(total)) //nolint:gosec // at most maxParts
		parts = append(parts, append(part, msg[:n]...))
		msg = msg[n:]
	}
	return parts, nil
}

// Assembler puts parts together again. The zero value is ready, and ready anew after
// each whole message. It holds at most MaxMessage bytes.
type Assembler struct {
	msg         []byte
	next, total int
}

// Add takes the next part and returns the message once it is whole. The message is the
// caller's. A part that is not due or breaks a limit is ErrPart and changes nothing.
func (a *Assembler) Add(part []byte) (msg []byte, whole bool, err error) {
	if len(part) <= partHeader {
		return nil, false, fmt.Errorf("%w: %d bytes", ErrPart, len(part))
	}
	index, total, body := int(part[0]), int(part[1]), part[partHeader:]
	switch {
	case total == 0 || total > maxParts || (a.next > 0 && total != a.total):
		return nil, false, fmt.Errorf("%w: of %d parts", ErrPart, total)
	case index != a.next || index >= total:
		return nil, false, fmt.Errorf("%w: part %d of %d, due is %d", ErrPart, index, total, a.next)
	case len(a.msg)+len(body) > MaxMessage:
		return nil, false, fmt.Errorf("%w: more than %d bytes", ErrPart, MaxMessage)
	}
	a.msg, a.next, a.total = append(a.msg, body...), index+1, total
	if a.next < total {
		return nil, false, nil
	}
	msg = a.msg
	*a = Assembler{}
	return msg, true, nil
}

// Pending says whether a message has begun and is not whole.
func (a *Assembler) Pending() bool { return a.next > 0 }
