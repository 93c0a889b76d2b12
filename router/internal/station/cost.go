package station

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"twinkey/pkg/keybundle"
	"twinkey/pkg/sealedlogin"
	"twinkey/proto/secret"
	"twinkey/router/internal/voluntary"
)

// Errors about how a password is stretched. The router in front says it, and learns what comes of it: one that somebody has taken over
// would have it cheap, or under a salt for which it has a table.
var (
	ErrCheap   = errors.New("the router asks for the password to be stretched too little")
	ErrAnother = errors.New("the router asks for the password to be stretched in another way than at the last login from here")
)

// least is the cheapest that keys were ever sealed at by a CA, a router or a directory. Should the default rise, this one stays where it is
// as long as there are keys from before.
var least = keybundle.Params{Time: keybundle.DefaultTime, MemoryKiB: keybundle.DefaultMemoryKiB}

// terms are what the router says of a login by password.
type terms struct {
	params keybundle.Params
	ask    bool             // a source of the company may know the user: the password goes with the proof, sealed
	blind  bool             // and without one: the CA is to say how it is stretched now
	key    *sealedlogin.Key // to this; nil: the CA is away
}

// told asks the router how the user's password is stretched and what it is sealed to. It believes what neither costs too little nor has changed unless
// the user has said that it may, and the CA's word for the key, which may have to be asked for once more: it is not good for long.
func (s *Station) told(ctx context.Context) (t terms, err error) {
	for range 2 {
		var a voluntary.ParamsAnswer
		if a, err = s.front.Params(ctx, s.o.User); err != nil {
			return t, err
		}
		// Whom the directory has let in at the last login from here it knows by the proof: their password goes nowhere, sealed or not.
		local, known := s.home.Local[s.o.User]
		t = terms{params: a.Params, ask: a.Ask && (!local || s.o.Changed)}
		// Whom a source has let in may have had their keys sealed anew since. Only the router has said so: nothing is proved under what it says.
		t.blind = t.ask && known && !local && !s.o.Changed && errors.Is(s.priced(a.Params), ErrAnother)
		if !t.blind {
			if err = s.accept(a.Params); err != nil {
				return t, err
			}
		}
		if !t.ask || a.LoginKey == nil {
			return t, nil
		}
		if t.key, err = s.believed(a.LoginKey); err == nil {
			return t, nil
		}
	}
	return t, err
}

// believed is the login key that a statement of the CA is about.
func (s *Station) believed(statement []byte) (*sealedlogin.Key, error) {
	roots := x509.NewCertPool()
	roots.AddCert(s.home.Root)
	st, err := sealedlogin.ParseStatement(statement)
	if err == nil {
		err = st.Verify(roots, time.Now())
	}
	return &st.Key, err
}

// priced is ErrCheap or ErrAnother for what a password is not to be stretched like on a router's word.
func (s *Station) priced(p keybundle.Params) error {
	if p.Weaker(least) {
		return fmt.Errorf("%w: time %d and %d KiB, not %d and %d KiB", ErrCheap, p.Time, p.MemoryKiB, least.Time, least.MemoryKiB)
	}
	if before, ok := s.home.Passwords[s.o.User]; ok && !before.Equal(p) {
		return fmt.Errorf("%w: %s", ErrAnother, difference(before, p))
	}
	return nil
}

// accept takes over how the password is stretched.
func (s *Station) accept(p keybundle.Params) error {
	err := s.priced(p)
	if err != nil && (!s.o.Changed || !errors.Is(err, ErrAnother)) {
		return err
	}
	if err != nil && (s.cost == nil || !s.cost.Equal(p)) { // once
		s.say("the password of %s is stretched in another way than at the last login from here (%s)", s.o.User, difference(s.home.Passwords[s.o.User], p))
	}
	s.cost = &p
	return nil
}

// confirmed takes over how the password is stretched on the CA's word, which a router cannot give.
func (s *Station) confirmed(answer secret.Key, a voluntary.Asked) error {
	if err := sealedlogin.Confirmed(answer, *a.Params, a.Confirm); err != nil {
		return err
	}
	if err := s.priced(*a.Params); errors.Is(err, ErrCheap) {
		return err
	}
	s.cost = a.Params
	return nil
}

// difference says what is another.
func difference(a, b keybundle.Params) string {
	if a.Time == b.Time && a.MemoryKiB == b.MemoryKiB && a.Threads == b.Threads {
		return "another salt"
	}
	return fmt.Sprintf("time %d, %d KiB, %d threads; before %d, %d KiB, %d threads", b.Time, b.MemoryKiB, b.Threads, a.Time, a.MemoryKiB, a.Threads)
}

// remember keeps what was told, now that it has opened the user's keys: nobody can make that up who has not got them. And it keeps whether
// the directory alone has let the user in.
func (s *Station) remember() {
	if s.cost == nil {
		return
	}
	local := !s.admission().Source
	was, has := s.home.Local[s.o.User]
	if before, ok := s.home.Passwords[s.o.User]; ok && before.Equal(*s.cost) && has && was == local {
		return
	}
	if err := s.home.Remember(s.o.User, *s.cost, local); err != nil {
		s.log.Warn("how the password is stretched was not remembered", "error", err)
	}
}
