package voluntary

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"net/http"
	"strings"
	"testing"
	"time"

	ca "twinkey/ca/client"
	"twinkey/directory/client"
	"twinkey/pkg/twincert"
	"twinkey/router/internal/policy"
)

// revoking is a policy that has certificates of staff revoked at the end, or not.
func revoking(yes bool) *policy.Policy {
	return must(policy.New([]policy.Rule{{Groups: []string{"staff"}, RevokeOnClose: yes}}))
}

// closing is a world whose policy wants it, with alice and what is secret.
func closing(t *testing.T) (w *world, alice own, key *ecdh.PrivateKey) {
	t.Helper()
	w, key = newWorld(t), must(ecdh.X25519().GenerateKey(rand.Reader))
	alice = w.ca.own("alice", "staff")
	w.users["alice"], w.closeKey = alice.cert, key.PublicKey().Bytes()
	w.Policy(revoking(true))
	return w, alice, key
}

// proved demands that the hall has what proves the end of n certificates to the CA, the last one of c.
func (w *world) proved(n int, key *ecdh.PrivateKey, c *twincert.Certificate) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.endings) != n {
		w.t.Fatalf("%d ends are proved, want %d", len(w.endings), n)
	}
	public := must(ecdh.X25519().NewPublicKey(c.Keys.Data[:]))
	if e := w.endings[n-1]; e.Certificate.ID() != c.ID() || !bytes.Equal(e.Proof, must(ca.CloseProof(key, public, "ra", c.Raw))) {
		w.t.Errorf("the proof is not the one that the CA computes, of certificate %s", e.Certificate.Serial)
	}
}

func (w *world) signs(c *Client, token []byte, want Code) {
	w.t.Helper()
	if _, _, err := c.Sign(w.t.Context(), token, [32]byte{}); codeOf(err) != want || (err == nil) != (want == "") {
		w.t.Errorf("signing: %v, want %q", err, want)
	}
}

// Where the policy says revoke-on-close, the end is proved before anything is signed, and again for each newer certificate.
func TestEndIsProvedBeforehand(t *testing.T) {
	w, alice, key := closing(t)
	c, adm := w.login("alice", 1)
	if !bytes.Equal(adm.Close, key.PublicKey().Bytes()) {
		t.Fatalf("asked for a proof against %x", adm.Close)
	}
	w.signs(c, adm.Token, CodeUnproved)
	if err := c.ProveEnd(t.Context(), adm.Token, alice.cert, alice.data, adm.Close); err != nil {
		t.Fatal(err)
	}
	w.proved(1, key, alice.cert)
	w.signs(c, adm.Token, "")
	words, _ := watching(t, c, adm.Token)
	if first := heard(t, words, "what there is", func(Word) bool { return true }); first.Close != nil {
		t.Error("asked for what it has")
	}
	next := w.ca.successor(alice.cert, 55*time.Minute)
	if err := w.Server.Succeed(t.Context(), w.loggedIn(adm.Address), client.Successor{Certificate: next.Raw}); err != nil {
		t.Fatal(err)
	}
	told := heard(t, words, "the newer certificate", func(w Word) bool { return w.Successor != nil })
	if !bytes.Equal(told.Close, adm.Close) {
		t.Errorf("with it a proof is asked for against %x", told.Close)
	}
	w.signs(c, adm.Token, CodeUnproved)
	if err := c.ProveEnd(t.Context(), adm.Token, alice.cert, alice.data, told.Close); codeOf(err) != CodeInvalid {
		t.Errorf("of the certificate before: %v", err)
	}
	if err := c.ProveEnd(t.Context(), adm.Token, next, alice.data, told.Close); err != nil {
		t.Fatal(err)
	}
	w.proved(2, key, next)
	w.signs(c, adm.Token, "")
	// Who comes again is asked again.
	again, _ := w.client(2).Login(t.Context(), "alice", proofOf("alice"))
	if !bytes.Equal(again.Close, adm.Close) {
		t.Errorf("asked again for %x", again.Close)
	}
}

// A policy that comes to want it asks those who are there, and one that does not asks nobody.
func TestEndIsAskedForWhenThePolicyChanges(t *testing.T) {
	w, alice, key := closing(t)
	w.Policy(revoking(false))
	c, adm := w.login("alice", 1)
	if adm.Close != nil {
		t.Errorf("asked for %x", adm.Close)
	}
	w.signs(c, adm.Token, "")
	words, _ := watching(t, c, adm.Token)
	heard(t, words, "what there is", func(Word) bool { return true })
	w.Policy(revoking(true))
	told := heard(t, words, "what is wanted now", func(w Word) bool { return w.Close != nil })
	w.signs(c, adm.Token, CodeUnproved)
	if err := c.ProveEnd(t.Context(), adm.Token, alice.cert, alice.data, told.Close); err != nil {
		t.Fatal(err)
	}
	w.proved(1, key, alice.cert)
	w.signs(c, adm.Token, "")
	e, _ := w.desk.at(adm.Address)
	w.desk.mu.Lock()
	due := e.due
	w.desk.mu.Unlock()
	if due != nil {
		t.Error("the session would end all the same")
	}
}

// A session whose client does not prove the end in time is over, one of which it is not wanted any more is not.
func TestEndThatIsNotProved(t *testing.T) {
	w, _, _ := closing(t)
	begin := func(n byte) *session {
		t.Helper()
		_, adm := w.login("alice", n)
		s, _ := w.desk.at(adm.Address)
		return s
	}
	lapse := func(s *session) { // the time is over
		w.desk.mu.Lock()
		defer w.desk.mu.Unlock()
		s.due.Reset(0)
	}
	late, spared := begin(1), begin(2)
	lapse(late)
	select {
	case <-late.gone:
	case <-time.After(5 * time.Second):
		t.Fatal("the session goes on")
	}
	if why := w.desk.why(late); !strings.Contains(why, "has not proved the end of its session") {
		t.Errorf("it is over because %s", why)
	}
	w.Policy(revoking(false))
	lapse(spared)
	time.Sleep(50 * time.Millisecond)
	if why := w.desk.why(spared); why != "" {
		t.Errorf("what is not wanted any more has ended a session: %s", why)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.guests) != 1 || len(w.left) != 1 {
		t.Errorf("guests %v, left %q", w.guests, w.left)
	}
}

// Without the CA's key nobody comes in whose certificate is to be revoked, and others do.
func TestEndThatCannotBeProved(t *testing.T) {
	w, _, _ := closing(t)
	w.mu.Lock()
	w.closeKey = nil
	w.mu.Unlock()
	if _, err := w.client(1).Login(t.Context(), "alice", proofOf("alice")); codeOf(err) != CodeUnavailable || !strings.Contains(err.Error(), "has not heard the company's CA") {
		t.Errorf("err = %v", err)
	}
	if len(w.guests) != 0 {
		t.Errorf("guests: %v", w.guests)
	}
	w.Policy(revoking(false))
	w.login("alice", 1)
}

func TestBadProofs(t *testing.T) {
	w, alice, _ := closing(t)
	c, adm := w.login("alice", 1)
	serial := alice.cert.Serial.String()
	for name, tt := range map[string]struct {
		token []byte
		in    CloseRequest
		want  Code
	}{
		"no token":             {nil, CloseRequest{serial, make([]byte, 32)}, CodeToken},
		"of no session":        {make([]byte, tokenLen), CloseRequest{serial, make([]byte, 32)}, CodeToken},
		"a short one":          {adm.Token, CloseRequest{serial, make([]byte, 31)}, CodeInvalid},
		"a long one":           {adm.Token, CloseRequest{serial, make([]byte, 33)}, CodeInvalid},
		"none":                 {adm.Token, CloseRequest{serial, nil}, CodeInvalid},
		"another certificate":  {adm.Token, CloseRequest{"7", make([]byte, 32)}, CodeInvalid},
		"of no certificate":    {adm.Token, CloseRequest{"", make([]byte, 32)}, CodeInvalid},
		"somebody else's word": {adm.Token, CloseRequest{serial + " ", make([]byte, 32)}, CodeInvalid},
	} {
		if err := c.call(t.Context(), http.MethodPost, pathClose, tt.token, tt.in, nil); codeOf(err) != tt.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.endings) != 0 {
		t.Errorf("taken: %+v", w.endings)
	}
}

// A key that is none is not answered: a point of low order would have everybody know what is agreed on.
func TestNoProofAgainstAnyKey(t *testing.T) {
	w, alice, key := closing(t)
	c, adm := w.login("alice", 1)
	for name, bad := range map[string][]byte{"short": make([]byte, 31), "of low order": make([]byte, 32)} {
		if err := c.ProveEnd(t.Context(), adm.Token, alice.cert, alice.data, bad); codeOf(err) != CodeRouter {
			t.Errorf("%s: %v", name, err)
		}
	}
	fresh := w.client(2) // has not spoken to a router yet, and so knows none
	if err := fresh.ProveEnd(t.Context(), adm.Token, alice.cert, alice.data, key.PublicKey().Bytes()); codeOf(err) != CodeRouter {
		t.Errorf("before the router is known: %v", err)
	}
}
