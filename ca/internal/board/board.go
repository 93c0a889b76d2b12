package board

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// Bounds of a board.
const (
	life      = 10 * time.Minute // an order takes seconds
	ofRouter  = 16               // answers: two names, and some tries
	inAll     = 4096
	maxToken  = 128
	maxAnswer = 256 // a token, a dot and a thumbprint
	maxName   = 253
)

// Errors.
var (
	ErrFull    = errors.New("too many answers are waiting to be fetched")
	ErrInvalid = errors.New("no answer to an ACME challenge")
)

// Board is what routers have put. Use New.
type Board struct {
	now func() time.Time

	mu      sync.Mutex
	answers map[place]answer
}

type place struct{ identifier, token string }

type answer struct {
	router, text string
	until        time.Time
}

// New returns an empty board.
func New(now func() time.Time) *Board { return &Board{now: now, answers: make(map[place]answer)} }

// Put keeps the answer of a router, which the caller knows may give it for identifier.
func (b *Board) Put(router, identifier, token, text string) error {
	if identifier == "" || len(identifier) > maxName || token == "" || len(token) > maxToken || len(text) > maxAnswer || strings.Trim(token, base64url) != "" {
		return ErrInvalid
	}
	if thumbprint, ok := strings.CutPrefix(text, token+"."); !ok || thumbprint == "" || strings.Trim(thumbprint, base64url) != "" {
		return fmt.Errorf("%w: it is not the token, a dot and a thumbprint", ErrInvalid)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now, mine := b.now(), 0
	for p, a := range b.answers {
		if !now.Before(a.until) || a.until.Sub(now) > life { // the clock was set back
			delete(b.answers, p)
		} else if a.router == router {
			mine++
		}
	}
	p := place{strings.ToLower(identifier), token}
	if old, ok := b.answers[p]; ok && old.router != router || !ok && (mine >= ofRouter || len(b.answers) >= inAll) {
		return ErrFull
	}
	b.answers[p] = answer{router, text, now.Add(life)}
	return nil
}

const base64url = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

// Answer returns what was put for a challenge.
func (b *Board) Answer(identifier, token string) (string, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a, ok := b.answers[place{strings.ToLower(identifier), token}]
	if !ok || !b.now().Before(a.until) {
		return "", false
	}
	return a.text, true
}
