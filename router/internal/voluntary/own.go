package voluntary

import (
	"crypto/ecdh"
	"crypto/hmac"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	ca "twinkey/ca/client"
	"twinkey/directory/client"
	"twinkey/pkg/twincert"
)

const (
	// challengeLife is how long a challenge may be answered. Nobody types anything meanwhile.
	challengeLife = 30 * time.Second
	// maxChallenges is more than the limits on tries let in within that time.
	maxChallenges = triesInAllBurst + 2*triesInAll*int(challengeLife/time.Second)

	channelLabel = "EXPORTER-twinkey-login"
	channelLen   = 32
)

// channelOf is what both ends of a TLS connection, and nobody else, know of it.
func channelOf(over *tls.ConnectionState) ([]byte, error) {
	b, err := over.ExportKeyingMaterial(channelLabel, nil, channelLen)
	if err != nil {
		return nil, fmt.Errorf("binding a login to its connection: %w", err)
	}
	return b, nil
}

// challenge is one that was given and not answered yet.
type challenge struct {
	user    string
	from    netip.Addr
	key     *ecdh.PrivateKey
	nonce   [nonceLen]byte
	channel []byte // of the connection that it was given over
	until   time.Time
}

// challenges are those that may still be answered. A router that was restarted has forgotten them.
type challenges struct {
	mu   sync.Mutex
	open map[[nonceLen]byte]*challenge
}

func newChallenges() *challenges { return &challenges{open: make(map[[nonceLen]byte]*challenge)} }

// give makes a challenge.
func (c *challenges) give(user string, from netip.Addr, channel []byte, now time.Time) (*challenge, error) {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a challenge: %w", err)
	}
	ch := &challenge{user: user, from: from, key: key, channel: channel, until: now.Add(challengeLife)}
	if _, err := rand.Read(ch.nonce[:]); err != nil {
		return nil, fmt.Errorf("making a challenge: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for n, o := range c.open {
		if now.After(o.until) {
			delete(c.open, n)
		}
	}
	if len(c.open) >= maxChallenges {
		return nil, &Error{Code: CodeBusy, Message: "too many logins", RetryAfter: challengeLife}
	}
	c.open[ch.nonce] = ch
	return ch, nil
}

// redeem uses a challenge up, whatever comes of it; false: there is none that is for this user, from here, now.
func (c *challenges) redeem(nonce [nonceLen]byte, user string, from netip.Addr, now time.Time) (*challenge, bool) {
	c.mu.Lock()
	ch, ok := c.open[nonce]
	delete(c.open, nonce)
	c.mu.Unlock()
	return ch, ok && ch.user == user && ch.from == from && !now.After(ch.until)
}

// errChallenge says nothing of the user, and nothing has been looked at when it is said.
var errChallenge = &Error{Code: CodeChallenge, Message: "the challenge is unknown, too old, or was used before"}

// errKeys is the one refusal for whatever concerns the user and the certificate; the operator sees in the router's log which it was, or in the
// directory's audit.
var errKeys = &Error{Code: CodeDenied, Message: "no such user, or no certificate that lets them in here", Err: client.ErrDenied}

var (
	errPossession = errors.New("possession of the keys is not proved")
	errScope      = errors.New("the user is out of this router's scope")
)

func (s *Server) challenge(r *request) (any, error) {
	var in ChallengeRequest
	if err := r.decode(&in); err != nil {
		return nil, err
	}
	if err := twincert.CheckName(in.User); err != nil {
		return nil, &Error{Code: CodeInvalid, Message: fmt.Sprintf("%.100q is no UserID", in.User)}
	}
	if err := s.approach(r, in.User); err != nil {
		return nil, err
	}
	if r.http.TLS == nil {
		return nil, errors.New("a login over a connection that is not TLS")
	}
	channel, err := channelOf(r.http.TLS)
	if err != nil {
		return nil, err
	}
	ch, err := s.challenges.give(in.User, r.from, channel, time.Now())
	if err != nil {
		return nil, err
	}
	return Challenge{Public: ch.key.PublicKey().Bytes(), Nonce: ch.nonce[:]}, nil
}

func (s *Server) prove(r *request) (any, error) {
	var in ProveRequest
	if err := r.decode(&in); err != nil {
		return nil, err
	}
	if len(in.Nonce) != nonceLen || len(in.Control) != proofLen || len(in.Data) != proofLen {
		return nil, &Error{Code: CodeInvalid, Message: "a nonce or a proof has another length"}
	}
	if err := s.approach(r, in.User); err != nil {
		return nil, err
	}
	if !s.desk.room() {
		return nil, errFull
	}
	now := time.Now()
	ch, ok := s.challenges.redeem([nonceLen]byte(in.Nonce), in.User, r.from, now)
	if !ok {
		return nil, errChallenge
	}
	if err := s.c.Trust.Fresh(now); err != nil { // before anything that concerns the user
		return nil, &Error{Code: CodeUnavailable, Message: err.Error()}
	}
	cert, err := s.proved(ch, &in, now)
	if err != nil {
		s.refused(in.User, r.from, err)
		return nil, errKeys
	}
	own := client.OwnLogin{UID: in.User, ID: cert.ID()}
	if err := s.guess(r, in.User, func() error { return s.c.Directory.Own(r.ctx(), own) }); err != nil {
		if errors.Is(err, errUser) {
			err = errKeys
		}
		return nil, err
	}
	return s.admit(r, cert, client.Release{Certificate: cert.Raw}, time.Time{}, now)
}

// proved returns the certificate that a user has shown, if it is good and its keys are proved. The keys come first: what becomes of a certificate
// only its owner can find out.
func (s *Server) proved(ch *challenge, in *ProveRequest, now time.Time) (*twincert.Certificate, error) {
	shown, err := twincert.Parse(in.Certificate)
	if err != nil {
		return nil, err
	}
	transcript := ca.LoginTranscript(s.c.Name, in.User, shown.Raw, ch.key.PublicKey().Bytes(), ch.nonce[:], ch.channel)
	right := true
	for _, k := range []struct {
		public [keyLen]byte
		proof  []byte
		label  string
	}{{shown.Keys.Control, in.Control, ca.LabelLoginControl}, {shown.Keys.Data, in.Data, ca.LabelLoginData}} {
		public, err := ecdh.X25519().NewPublicKey(k.public[:])
		if err != nil {
			return nil, err
		}
		want, err := ca.Proof(ch.key, public, k.label, transcript)
		if err != nil { // a point of low order
			return nil, err
		}
		right = hmac.Equal(want, k.proof) && right
	}
	if !right {
		return nil, errPossession
	}
	cert, err := s.c.Trust.Twin(now, in.Certificate, twincert.User)
	switch {
	case err != nil:
		return nil, err
	case cert.Name != in.User:
		return nil, fmt.Errorf("the certificate is that of %s", cert.Name)
	case !twincert.InScope(s.c.Scope(), cert.Name, cert.Group):
		return nil, errScope
	}
	return cert, nil
}
