package handshake

import "errors"

// What Read, Write and the constructors may fail with, to be asked with errors.Is. A
// payload that cannot be read fails with a *wire.ParseError.
var (
	// ErrState says that the call is not due now. The machine lives.
	ErrState = errors.New("handshake message out of turn")
	// ErrStray says that a message does not authenticate. The machine lives and waits
	// for the right one.
	ErrStray = errors.New("handshake message does not authenticate")
	// ErrDead says that the machine failed before; the first failure is wrapped beside it.
	ErrDead = errors.New("handshake has failed")
	// ErrEnded says that Wipe was called.
	ErrEnded = errors.New("handshake was wiped")
	// ErrSuite says that no suite is acceptable to both, or that a choice was not offered.
	ErrSuite = errors.New("no common suite")
	// ErrVerify says that Verify refused the peer; its reason is wrapped beside it.
	ErrVerify = errors.New("peer refused")
	// ErrSelf says that the peer holds our own key: we were connected to ourselves.
	ErrSelf = errors.New("peer has our own key")
	// ErrSession says that the answer is for another session.
	ErrSession = errors.New("answer is for another session")
	// ErrKEM says that an ML-KEM key or ciphertext is none, or came unasked.
	ErrKEM = errors.New("unusable ML-KEM key or ciphertext")
	// ErrConfig says that a configuration lacks something or exceeds a limit.
	ErrConfig = errors.New("impossible handshake configuration")
	// ErrTooLong says that a message exceeds MaxMessage.
	ErrTooLong = errors.New("handshake message too long")
	// ErrPart says that a part is not the one that was due, or breaks a limit.
	ErrPart = errors.New("part of a flight out of order or out of bounds")
)
