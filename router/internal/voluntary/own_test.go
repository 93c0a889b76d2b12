package voluntary

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/time/rate"

	ca "twinkey/ca/client"
	"twinkey/directory/client"
	"twinkey/pkg/limit"
	"twinkey/pkg/strictjson"
	"twinkey/pkg/twincert"
	"twinkey/router/internal/engine"
	"twinkey/router/internal/policy"
)

// Keys of a user's own are as good as a password, and the directory hears whose.
func TestLoginOwn(t *testing.T) {
	w := newWorld(t)
	erin := w.ca.own("erin", "staff")
	c := w.client(1)
	adm, err := c.LoginOwn(t.Context(), erin.cert, erin.control, erin.data)
	if err != nil {
		t.Fatal(err)
	}
	if adm.Router != "ra" || !bytes.Equal(adm.Certificate, erin.cert.Raw) || len(adm.Sealed) != 0 || adm.Address != netip.MustParseAddr("127.0.0.1") || !adm.Until.Equal(erin.cert.NotAfter) {
		t.Errorf("admission %+v", adm)
	}
	if len(w.owned) != 1 || w.owned[0] != (client.OwnLogin{UID: "erin", ID: erin.cert.ID()}) || w.released != 0 {
		t.Errorf("the directory was asked about %+v, %d times for keys", w.owned, w.released)
	}
	if g := w.guests[adm.Address]; g == nil || g.Certificate.Name != "erin" {
		t.Errorf("guests %v", w.guests)
	}
	if _, _, err := c.Sign(t.Context(), adm.Token, [32]byte{1}); err != nil {
		t.Error(err)
	}
	// A client that was killed comes again at once; one that is there is not displaced.
	again, err := w.client(1).LoginOwn(t.Context(), erin.cert, erin.control, erin.data)
	if err != nil {
		t.Fatal(err)
	}
	words, _ := watching(t, c, again.Token)
	heard(t, words, "anything", func(Word) bool { return true })
	if _, err := w.client(1).LoginOwn(t.Context(), erin.cert, erin.control, erin.data); codeOf(err) != CodeTaken {
		t.Errorf("beside herself: %v", err)
	}
}

// try is one login in the making, before it is sent.
type try struct {
	w     *world
	c     *Client // that it is sent by
	erin  own
	ch    Challenge
	over  *tls.ConnectionState
	req   ProveRequest
	again bool // it is sent twice, the second time counts
}

// asked has a challenge given to a user.
func (y *try) asked(c *Client, uid string) {
	y.w.t.Helper()
	var err error
	if y.over, err = c.exchange(y.w.t.Context(), http.MethodPost, pathChallenge, nil, ChallengeRequest{uid}, &y.ch); err != nil {
		y.w.t.Fatal(err)
	}
}

// by makes a bearer's answer to the challenge.
func (y *try) by(o own) { y.req = must(answerTo(y.ch, y.over, o.cert, o.control, o.data)) }

// Whoever proves something else, for somebody else, or twice.
func TestLoginOwnRefused(t *testing.T) {
	stranger := must(ecdh.X25519().GenerateKey(rand.Reader))
	// proofs of another transcript than the honest one
	over := func(y *try, router, uid string, cert, public, nonce, channel []byte, labels ...string) {
		peer := must(ecdh.X25519().NewPublicKey(y.ch.Public))
		transcript := ca.LoginTranscript(router, uid, cert, public, nonce, channel)
		y.req.Control = must(ca.Proof(y.erin.control, peer, labels[0], transcript))
		y.req.Data = must(ca.Proof(y.erin.data, peer, labels[1], transcript))
	}
	right := []string{ca.LabelLoginControl, ca.LabelLoginData}
	for name, tt := range map[string]struct {
		change func(y *try)
		want   Code
		asked  int // how often the directory is
	}{
		"erin": {func(*try) {}, "", 1},
		"the honest transcript": {func(y *try) {
			over(y, "ra", "erin", y.erin.cert.Raw, y.ch.Public, y.ch.Nonce, must(channelOf(y.over)), right...)
		}, "", 1},
		"another control key":          {func(y *try) { y.by(own{y.erin.cert, stranger, y.erin.data}) }, CodeDenied, 0},
		"another data key":             {func(y *try) { y.by(own{y.erin.cert, y.erin.control, stranger}) }, CodeDenied, 0},
		"proofs exchanged":             {func(y *try) { y.req.Control, y.req.Data = y.req.Data, y.req.Control }, CodeDenied, 0},
		"one bit of the control proof": {func(y *try) { y.req.Control[31] ^= 1 }, CodeDenied, 0},
		"one bit of the data proof":    {func(y *try) { y.req.Data[0] ^= 0x80 }, CodeDenied, 0},
		"no proof":                     {func(y *try) { y.req.Data = nil }, CodeInvalid, 0},
		"a short nonce":                {func(y *try) { y.req.Nonce = y.req.Nonce[:31] }, CodeInvalid, 0},
		"for another router": {func(y *try) {
			over(y, "rb", "erin", y.erin.cert.Raw, y.ch.Public, y.ch.Nonce, must(channelOf(y.over)), right...)
		}, CodeDenied, 0},
		"for another user": {func(y *try) {
			over(y, "ra", "bob", y.erin.cert.Raw, y.ch.Public, y.ch.Nonce, must(channelOf(y.over)), right...)
		}, CodeDenied, 0},
		"for another certificate": {func(y *try) {
			over(y, "ra", "erin", y.w.users["bob"].Raw, y.ch.Public, y.ch.Nonce, must(channelOf(y.over)), right...)
		}, CodeDenied, 0},
		"over another connection": {func(y *try) {
			over(y, "ra", "erin", y.erin.cert.Raw, y.ch.Public, y.ch.Nonce, make([]byte, channelLen), right...)
		}, CodeDenied, 0},
		"proofs of an enrolment": {func(y *try) {
			over(y, "ra", "erin", y.erin.cert.Raw, y.ch.Public, y.ch.Nonce, must(channelOf(y.over)), ca.LabelControl, ca.LabelData)
		}, CodeDenied, 0},
		"another nonce in the proof": {func(y *try) {
			over(y, "ra", "erin", y.erin.cert.Raw, y.ch.Public, make([]byte, nonceLen), must(channelOf(y.over)), right...)
		}, CodeDenied, 0},
		"bob's certificate": {func(y *try) { y.req.Certificate = y.w.users["bob"].Raw }, CodeDenied, 0},
		"as bob, with her certificate": {func(y *try) {
			y.asked(y.c, "bob")
			y.by(y.erin)
			over(y, "ra", "bob", y.erin.cert.Raw, y.ch.Public, y.ch.Nonce, must(channelOf(y.over)), right...)
			y.req.User = "bob"
		}, CodeDenied, 0},
		"as erin, with another's keys":  {func(y *try) { y.by(y.w.ca.own("frank", "staff")); y.req.User = "erin" }, CodeDenied, 0},
		"a certificate that is none":    {func(y *try) { y.req.Certificate = []byte("certificate") }, CodeDenied, 0},
		"replayed":                      {func(y *try) { y.again = true }, CodeChallenge, 1},
		"replayed after a wrong one":    {func(y *try) { y.again = true; y.req.Data[0] ^= 1 }, CodeChallenge, 0},
		"a challenge that nobody gave":  {func(y *try) { y.req.Nonce = make([]byte, nonceLen) }, CodeChallenge, 0},
		"another address's challenge":   {func(y *try) { y.asked(y.w.client(2), "erin"); y.by(y.erin) }, CodeChallenge, 0},
		"a challenge for another":       {func(y *try) { y.asked(y.c, "bob"); y.by(y.erin) }, CodeChallenge, 0},
		"too late":                      {func(y *try) { y.w.age(challengeLife + time.Second) }, CodeChallenge, 0},
		"not yet":                       {func(y *try) { y.w.age(challengeLife - 5*time.Second) }, "", 1},
		"revoked":                       {func(y *try) { y.w.trust.Revoke(y.erin.cert.ID()) }, CodeDenied, 0},
		"out of scope":                  {func(y *try) { y.erin = y.w.ca.own("erin", "sales"); y.by(y.erin) }, CodeDenied, 0},
		"of another company":            {func(y *try) { y.by(newAuthority("other", nil).own("erin", "staff")) }, CodeDenied, 0},
		"no word of revocations":        {func(y *try) { y.w.trust.Heard(time.Now().Add(-2 * time.Hour)) }, CodeUnavailable, 0},
		"of another role":               {func(y *try) { y.by(y.w.ca.router("erin")) }, CodeDenied, 0},
		"the directory says no":         {func(y *try) { y.w.notOwn = &client.Error{Code: client.CodeDenied} }, CodeDenied, 1},
		"locked":                        {func(y *try) { y.w.notOwn = &client.Error{Code: client.CodeLocked, RetryAfter: time.Minute} }, CodeLocked, 1},
		"directory away":                {func(y *try) { y.w.notOwn = &client.Error{Code: client.CodeUnavailable} }, CodeUnavailable, 1},
		"a directory that is older":     {func(y *try) { y.w.notOwn = &client.Error{Code: client.CodeNotFound} }, CodeUnavailable, 1},
		"from a foreign address":        {func(y *try) { y.w.vacant = engine.ErrNotOurs }, CodeAddress, 0},
		"the policy":                    {func(y *try) { y.w.welcome = policy.ErrDenied }, CodePolicy, 1},
		"a key that makes all the same": {func(y *try) { y.weak() }, CodeDenied, 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			y := &try{w: w, c: w.client(1), erin: w.ca.own("erin", "staff")}
			y.asked(y.c, "erin")
			y.by(y.erin)
			tt.change(y)
			var adm Admission
			if y.again {
				_ = y.c.call(t.Context(), http.MethodPost, pathProve, nil, y.req, &adm)
			}
			err := y.c.call(t.Context(), http.MethodPost, pathProve, nil, y.req, &adm)
			if codeOf(err) != tt.want || (err == nil) != (tt.want == "") || len(w.owned) != tt.asked {
				t.Errorf("%v, asked the directory %d times", err, len(w.owned))
			}
			if tt.want == CodeDenied && err.Error() != errKeys.Message {
				t.Errorf("says %q, and not what all who are refused hear", err)
			}
			if tt.want != "" && !y.again && (len(w.guests) != 0 || len(w.desk.all()) != 0) {
				t.Error("there is a session")
			}
		})
	}
}

// age makes all challenges older.
func (w *world) age(by time.Duration) {
	w.challenges.mu.Lock()
	defer w.challenges.mu.Unlock()
	for _, c := range w.challenges.open {
		c.until = c.until.Add(-by)
	}
}

// router is a router's certificate, with the keys.
func (a *authority) router(name string) own {
	o := own{control: must(ecdh.X25519().GenerateKey(rand.Reader)), data: must(ecdh.X25519().GenerateKey(rand.Reader))}
	o.cert = a.twin(twincert.Template{Role: twincert.Router, Name: name, Scope: []string{"*"}, Prefixes: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/24")}}, o.control.PublicKey().Bytes(), o.data.PublicKey().Bytes())
	return o
}

// weak shows a certificate whose control key is a point of low order, with which everybody agrees on zero.
func (y *try) weak() {
	raw := bytes.Clone(y.erin.cert.Raw)
	at := bytes.Index(raw, y.erin.cert.Keys.Control[:])
	if at < 0 {
		y.w.t.Fatal("the key is not in the certificate")
	}
	copy(raw[at:], make([]byte, keyLen))
	y.req.Certificate = raw
}

// Asking and proving are tries as those of passwords are.
func TestLoginOwnIsLimited(t *testing.T) {
	w := newWorld(t)
	c, erin := w.client(1), w.ca.own("erin", "staff")
	wrong := own{erin.cert, erin.data, erin.control}
	for range triesBurst / 2 {
		if _, err := c.LoginOwn(t.Context(), wrong.cert, wrong.control, wrong.data); codeOf(err) != CodeDenied {
			t.Fatal(err)
		}
	}
	if _, err := c.LoginOwn(t.Context(), erin.cert, erin.control, erin.data); codeOf(err) != CodeBusy {
		t.Errorf("err = %v", err)
	}
	if _, err := c.Params(t.Context(), "alice"); codeOf(err) != CodeBusy {
		t.Errorf("passwords are counted apart: %v", err)
	}
	if err := c.call(t.Context(), http.MethodPost, pathProve, nil, ProveRequest{"erin", make([]byte, nonceLen), erin.cert.Raw, make([]byte, proofLen), make([]byte, proofLen)}, nil); codeOf(err) != CodeBusy {
		t.Errorf("proofs are not counted: %v", err)
	}
	if _, err := w.client(2).LoginOwn(t.Context(), erin.cert, erin.control, erin.data); err != nil {
		t.Errorf("from elsewhere: %v", err)
	}
}

// What the directory denies counts for the router there, by possession as by password: both are of one count.
func TestDeniedKeysCount(t *testing.T) {
	w := newWorld(t)
	w.notOwn = &client.Error{Code: client.CodeDenied}
	w.wrongs.All = limit.Bucket{Rate: rate.Every(time.Hour), Burst: 1}
	w.c.Guesses = limit.NewFailures(w.wrongs)
	for n, code := range []Code{CodeDenied, CodeBusy} {
		erin := w.ca.own("erin", "staff")
		if _, err := w.client(byte(n+1)).LoginOwn(t.Context(), erin.cert, erin.control, erin.data); codeOf(err) != code {
			t.Errorf("from address %d: %v, want %s", n+1, err, code)
		}
	}
	if len(w.owned) != 1 {
		t.Errorf("the directory was asked %d times", len(w.owned))
	}
}

// Challenges take no more room than they may, and give it back.
func TestChallengesAreBounded(t *testing.T) {
	c, now, here := newChallenges(), time.Unix(1_000_000, 0), netip.MustParseAddr("10.1.1.3")
	first := must(c.give("erin", here, nil, now))
	for range maxChallenges - 1 {
		if _, err := c.give("erin", here, nil, now); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.give("erin", here, nil, now); codeOf(err) != CodeBusy {
		t.Errorf("one more: %v", err)
	}
	if _, ok := c.redeem(first.nonce, "erin", here, now.Add(challengeLife)); !ok {
		t.Error("the first is good no more")
	}
	if _, err := c.give("erin", here, nil, now.Add(challengeLife+time.Second)); err != nil || len(c.open) != 1 {
		t.Errorf("when all are too old: %v, there are %d", err, len(c.open))
	}
}

// What a router that is none, or one that has gone mad, may ask to be proved.
func TestBadChallenges(t *testing.T) {
	w := newWorld(t)
	erin := w.ca.own("erin", "staff")
	y := &try{w: w, c: w.client(1), erin: erin}
	y.asked(y.c, "erin")
	user := must(x509.ParseCertificate(w.ca.box("twinkey://directory").Certificate[0]))
	for name, tt := range map[string]struct {
		ch   Challenge
		over *tls.ConnectionState
	}{
		"a key of low order": {Challenge{make([]byte, keyLen), y.ch.Nonce}, y.over},
		"a short key":        {Challenge{y.ch.Public[:31], y.ch.Nonce}, y.over},
		"a long nonce":       {Challenge{y.ch.Public, make([]byte, nonceLen+1)}, y.over},
		"no nonce":           {Challenge{y.ch.Public, nil}, y.over},
		"no TLS":             {y.ch, nil},
		"nobody's":           {y.ch, &tls.ConnectionState{}},
		"not a router's":     {y.ch, &tls.ConnectionState{PeerCertificates: []*x509.Certificate{user}}},
	} {
		if _, err := answerTo(tt.ch, tt.over, erin.cert, erin.control, erin.data); codeOf(err) != CodeRouter {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// No request but the honest one lets anybody in, whatever it says.
func FuzzProve(f *testing.F) {
	erin := newAuthority("root", nil).own("erin", "staff")
	f.Add([]byte(`{"user":"erin","nonce":"AAAA","certificate":"AAAA","control":"AAAA","data":"AAAA"}`))
	f.Add(must(json.Marshal(ProveRequest{"erin", make([]byte, nonceLen), erin.cert.Raw, make([]byte, proofLen), make([]byte, proofLen)})))
	f.Add([]byte(`{"user":"erin"} {}`))
	s := &Server{c: Config{Name: "ra", Scope: func() []string { return []string{"*"} }}}
	key := must(ecdh.X25519().GenerateKey(rand.Reader))
	f.Fuzz(func(t *testing.T, in []byte) {
		var r ProveRequest
		if err := strictjson.Decode(in, &r); err != nil {
			return
		}
		var again ProveRequest
		if err := strictjson.Decode(must(json.Marshal(r)), &again); err != nil || again.User != r.User || !bytes.Equal(again.Certificate, r.Certificate) || !bytes.Equal(again.Nonce, r.Nonce) {
			t.Fatalf("%+v came back as %+v, %v", r, again, err)
		}
		// Trust is not even asked: possession fails before.
		if cert, err := s.proved(&challenge{user: r.User, key: key}, &r, time.Now()); err == nil {
			t.Fatalf("%s is let in", cert.Name)
		}
	})
}

// FuzzAnswerTo: a client answers, or refuses; nothing that it is sent breaks it.
func FuzzAnswerTo(f *testing.F) {
	ca1 := newAuthority("root", nil)
	erin := ca1.own("erin", "staff")
	f.Add([]byte(`{"public":"AAAA","nonce":"AAAA"}`))
	f.Add(must(json.Marshal(Challenge{erin.control.PublicKey().Bytes(), make([]byte, nonceLen)})))
	f.Add([]byte(`{"public":"` + strings.Repeat("A", 43) + `=","nonce":"` + strings.Repeat("A", 43) + `="}`))
	over := connected(f, ca1.box("twinkey://router/ra"))
	f.Fuzz(func(t *testing.T, in []byte) {
		var ch Challenge
		if err := json.Unmarshal(in, &ch); err != nil {
			return
		}
		req, err := answerTo(ch, over, erin.cert, erin.control, erin.data)
		if err == nil && (len(ch.Public) != keyLen || len(req.Nonce) != nonceLen || len(req.Control) != proofLen || len(req.Data) != proofLen) {
			t.Fatalf("%+v is answered by %+v", ch, req)
		}
	})
}

// connected is the state of a connection to a router.
func connected(t testing.TB, box tls.Certificate) *tls.ConnectionState {
	t.Helper()
	near, far := net.Pipe()
	t.Cleanup(func() { _, _ = near.Close(), far.Close() })
	done := make(chan error, 1)
	go func() {
		done <- tls.Server(far, &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{box}, SessionTicketsDisabled: true}).Handshake()
	}()
	c := tls.Client(near, &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true}) //nolint:gosec // it is the one above
	if err := errors.Join(c.Handshake(), <-done); err != nil {
		t.Fatal(err)
	}
	st := c.ConnectionState()
	return &st
}
