package login

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"time"

	"twinkey/pkg/sealedlogin"
	"twinkey/proto/secret"
)

const (
	// keyLife is how long a login key is handed out, and how long after that it opens what was sealed to it: people type meanwhile.
	keyLife = 10 * time.Minute
	keyEnd  = 2 * keyLife
	// keyTick is how often it is looked for keys that are over.
	keyTick = 15 * time.Second
	// maxShown is how many sealed passwords a login key remembers. One router alone cannot have as many shown in its time (routerRate).
	maxShown = 1 << 16
)

// ErrLoginKey says that a password is sealed to a login key that there is not, or not any more: to be sealed to another one.
var ErrLoginKey = errors.New("the login key is unknown or too old: ask for another one")

var errShown = errors.New("the sealed password was shown before")

// loginKey is one, and what was opened with it.
type loginKey struct {
	public    sealedlogin.Key
	private   secret.Key
	made      time.Time
	statement []byte
	signer    []byte // the certificate that it is signed by, DER
	shown     map[[32]byte]struct{}
}

// ring has the login key that is handed out, and the one before. They are nowhere but in memory, and not there for long: who records a
// sealed password and takes over the CA later cannot open it. Safe for concurrent use.
type ring struct {
	by func() tls.Certificate // whose key signs; nil: there are no login keys

	mu            sync.Mutex
	present, last *loginKey // nil: none
}

// statement is the CA's word for the login key of the moment.
func (r *ring) statement(now time.Time) ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turn(now)
	by := r.by()
	if k := r.present; k != nil && len(by.Certificate) > 0 && bytes.Equal(k.signer, by.Certificate[0]) {
		return k.statement, nil
	}
	k := r.present
	if k == nil { // otherwise the CA has got another certificate
		private, err := ecdh.X25519().GenerateKey(rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("making a login key: %w", err)
		}
		k = &loginKey{public: sealedlogin.Key(private.PublicKey().Bytes()), private: secret.New(private.Bytes()), made: now, shown: make(map[[32]byte]struct{})}
	}
	s, err := sealedlogin.Sign(k.public, k.made.Add(keyEnd), by)
	if err != nil {
		return nil, err
	}
	text, err := s.Bytes()
	if err != nil {
		return nil, err
	}
	k.statement, k.signer = text, by.Certificate[0]
	r.present = k
	return text, nil
}

// turn lets go of keys whose time is over; also when the clock was set back. The caller holds mu.
func (r *ring) turn(now time.Time) {
	over := func(k *loginKey, life time.Duration) bool {
		age := now.Sub(k.made)
		return age < 0 || age >= life
	}
	if k := r.present; k != nil && over(k, keyLife) {
		r.drop(r.last)
		r.last, r.present = k, nil
	}
	if r.last != nil && over(r.last, keyEnd) {
		r.drop(r.last)
	}
}

// drop wipes a key. The caller holds mu.
func (r *ring) drop(k *loginKey) {
	if k == nil {
		return
	}
	k.private.Wipe()
	if r.present == k {
		r.present = nil
	}
	if r.last == k {
		r.last = nil
	}
}

// open opens a sealed password of uid that router has brought, once. It fails with ErrLoginKey if there is no such key, else it is
// refused as a wrong password is. Password and answer key are the caller's to wipe.
func (r *ring) open(now time.Time, router, uid string, sealed []byte) (password []byte, answer secret.Key, err error) {
	e, ok := sealedlogin.ParseEnvelope(sealed)
	if !ok {
		return nil, answer, &refusal{sealedlogin.ErrOpen}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turn(now)
	var k *loginKey
	for _, one := range []*loginKey{r.present, r.last} {
		if one != nil && one.public == e.To {
			k = one
		}
	}
	if k == nil {
		return nil, answer, ErrLoginKey
	}
	if _, again := k.shown[e.Enc]; again {
		return nil, answer, &refusal{errShown}
	}
	if password, answer, err = sealedlogin.Open(k.private, router, uid, sealed); err != nil {
		return nil, answer, &refusal{err}
	}
	if len(k.shown) >= maxShown { // what it cannot remember it does not open
		clear(password)
		answer.Wipe()
		r.drop(k)
		return nil, secret.Key{}, ErrLoginKey
	}
	k.shown[e.Enc] = struct{}{}
	return password, answer, nil
}

// run lets go of keys that nobody asks about, until ctx ends; then of all.
func (r *ring) run(ctx context.Context, now func() time.Time) {
	tick := time.NewTicker(keyTick)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			r.mu.Lock()
			r.turn(now())
			r.mu.Unlock()
		case <-ctx.Done():
			r.mu.Lock()
			r.drop(r.present)
			r.drop(r.last)
			r.mu.Unlock()
			return
		}
	}
}
