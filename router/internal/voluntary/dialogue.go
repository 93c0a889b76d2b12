package voluntary

import (
	"fmt"
	"net/netip"
	"time"

	"twinkey/directory/client"
	"twinkey/pkg/keybundle"
	"twinkey/pkg/twincert"
	"twinkey/router/internal/policy"
)

// The paths.
const (
	pathRoots     = "/v1/roots"
	pathParams    = "/v1/params"
	pathLogin     = "/v1/login"
	pathAsk       = "/v1/ask"
	pathChallenge = "/v1/challenge"
	pathProve     = "/v1/prove"
	pathWatch     = "/v1/watch"
	pathClose     = "/v1/close"
	pathSign      = "/v1/sign"
	pathLogout    = "/v1/logout"
)

const (
	tokenLen = 32
	hashLen  = 32

	keyLen   = 32 // X25519
	nonceLen = 32
	proofLen = 32

	// maxRequest bounds what a client can make the router hold, bytes; the longest request shows a certificate, of some 800.
	maxRequest = 4 << 10
	// maxAnswer and maxWord bound what a router can make a client hold. A site is some 1.2 KiB.
	maxAnswer = 1 << 20
	maxWord   = 32 << 20

	// beat is how often a watch says something, silence how long a client believes that it will.
	beat    = 5 * time.Second
	silence = 3 * beat
	// maxGood is what a client believes of a voucher's time, milliseconds.
	maxGood = 24 * 60 * 60 * 1000
	// orphaned is how long a session goes on without a watch: a path may be away for a while.
	orphaned = time.Minute
	// proveTime is how long a client may take to prove the end of its session beforehand. Nobody types anything meanwhile.
	proveTime = 10 * time.Second
)

// Roots are the company's root certificates, DER.
type Roots struct {
	Roots [][]byte `json:"roots"`
}

// ParamsRequest asks how a user's password is stretched.
type ParamsRequest struct {
	User string `json:"user"`
}

// ParamsAnswer says how it is, and what else a login takes.
type ParamsAnswer struct {
	keybundle.Params
	// Ask says that the company has sources that may know the user, or that the router cannot find out: AskRequest.
	Ask bool `json:"ask,omitempty"`
	// LoginKey is the CA's word for the key that the password is sealed to (package sealedlogin); none: the CA is away.
	LoginKey []byte `json:"login_key,omitempty"`
}

// AskRequest proves a user's password, and has it with it, sealed for the CA, in case a source has to be asked.
type AskRequest struct {
	User   string `json:"user"`
	Auth   []byte `json:"auth,omitempty"`   // none: only Asked.Params are wanted, since those that were told are not believed
	Sealed []byte `json:"sealed,omitempty"` // by sealedlogin.Seal, for this router; none: the CA was away
}

// Asked is a session, or how the password is stretched now: the CA has had the user's keys sealed anew, and LoginRequest is to follow.
type Asked struct {
	Params    *keybundle.Params `json:"params,omitempty"`
	Confirm   []byte            `json:"confirm,omitempty"` // the CA's word for them: sealedlogin.Confirmed
	Admission *Admission        `json:"admission,omitempty"`
}

// LoginRequest proves a user's password.
type LoginRequest struct {
	User string `json:"user"`
	Auth []byte `json:"auth"`
}

// ChallengeRequest asks what a user with keys of their own is to prove these over.
type ChallengeRequest struct {
	User string `json:"user"`
}

// Challenge is good for one Proof, soon, of the user who asked, from the address that it was given to.
type Challenge struct {
	Public []byte `json:"public"` // X25519 key, of this challenge alone
	Nonce  []byte `json:"nonce"`
}

// ProveRequest proves a user's keys: by a MAC under what each of them and the challenge's key agree on (client.Proof of the CA's).
type ProveRequest struct {
	User        string `json:"user"`
	Nonce       []byte `json:"nonce"`       // of the challenge
	Certificate []byte `json:"certificate"` // the user's twin certificate, DER
	Control     []byte `json:"control"`     // proof of the control key
	Data        []byte `json:"data"`        // of the data key
}

// Admission is a session.
type Admission struct {
	Token       []byte `json:"token"`
	Router      string `json:"router"`      // its name
	Certificate []byte `json:"certificate"` // the user's twin certificate, DER
	Sealed      []byte `json:"sealed"`      // keys; none for who has proved keys of their own
	// Successor is the user's present certificate, if Certificate is an older one.
	Successor     *client.Successor `json:"successor,omitempty"`
	Address       netip.Addr        `json:"address"`
	Until         time.Time         `json:"until"`         // by the router's clock
	Intermediates [][]byte          `json:"intermediates"` // of the company, DER
	// Source says that a source has been asked: the proof of the password alone lets nobody in again.
	Source bool `json:"source,omitempty"`
	// Close is the CA's X25519 key against which the client is to prove the end of the session, now, of its present certificate: the policy has that
	// revoked then. None: it need not.
	Close []byte `json:"close,omitempty"`
}

// CloseRequest proves beforehand that the session on a certificate has ended, to the CA (client.CloseProof of the CA's).
type CloseRequest struct {
	Serial string `json:"serial"` // of the certificate, in decimal
	Proof  []byte `json:"proof"`
}

// SignRequest asks for a router's word for a tunnel.
type SignRequest struct {
	Hash []byte `json:"hash"` // of the handshake after message 2
}

// Voucher is a router's word for a tunnel; see handshake.Voucher.
type Voucher struct {
	Router    []byte `json:"router"`
	Bound     []byte `json:"bound"`
	Signature []byte `json:"signature"`
	// Good is for how long, in milliseconds, whatever the client's clock says; 0: until the end of the session.
	Good int64 `json:"good_ms"`
}

// Word is one line of a watch. Fields that are not there have not changed; one without any is a beat.
type Word struct {
	// Heard is how long ago the router heard the directory, in milliseconds; negative: it has not yet.
	Heard   int64          `json:"heard_ms"`
	Sites   *[]client.Site `json:"sites,omitempty"`   // all others
	Rules   *[]policy.Rule `json:"rules,omitempty"`   // all that are for the user's group
	CRL     []byte         `json:"crl,omitempty"`     // DER
	Revoked []twincert.ID  `json:"revoked,omitempty"` // that were not told before
	// Successor is a newer certificate over the data key that the user has: the session goes on with it.
	Successor *client.Successor `json:"successor,omitempty"`
	// Close is as in Admission, for the certificate that the session has from now on.
	Close []byte `json:"close,omitempty"`
	Ended string `json:"ended,omitempty"` // the session is over, and why; nothing follows
}

// Code says why something is refused.
type Code string

// The codes.
const (
	CodeInvalid     Code = "invalid"     // the same request can never succeed
	CodeDenied      Code = "denied"      // no such user, wrong password or certificate, not through this router: the same words for all
	CodeChallenge   Code = "challenge"   // unknown, used, too old, or of somebody else: ask for another one
	CodeLocked      Code = "locked"      // too many failures; see RetryAfter
	CodeBusy        Code = "busy"        // too many ask; see RetryAfter
	CodeLoginKey    Code = "login-key"   // the password is to be sealed to another login key: ask for it
	CodeSource      Code = "source"      // the CA cannot ask the source that knows the user
	CodeCA          Code = "ca"          // the router cannot ask the CA
	CodeUnavailable Code = "unavailable" // the router has no directory, or cannot be reached
	CodeToken       Code = "token"       // nobody is logged in with this token, from here
	CodeAddress     Code = "address"     // no address that a user may come from
	CodeTaken       Code = "taken"       // somebody is logged in from this address
	CodePolicy      Code = "policy"      // the router's policy does not allow it
	CodeUnproved    Code = "unproved"    // the end of the session is to be proved first: see CloseRequest
	CodeRouter      Code = "router"      // whoever answers is no router of the company
)

// Error is a refusal. Ask for it with errors.AsType.
type Error struct {
	Code       Code
	Message    string
	RetryAfter time.Duration // with CodeLocked and CodeBusy: not sooner
	Err        error         // cause on our side, if any
}

func (e *Error) Error() string {
	s := e.Message
	if s == "" {
		s = string(e.Code)
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	if e.RetryAfter > 0 {
		s += fmt.Sprintf(" (again in %s)", e.RetryAfter.Round(time.Second))
	}
	return s
}

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Err }

// refusal is an Error on its way.
type refusal struct {
	Code         Code   `json:"code"`
	Message      string `json:"message,omitempty"`
	RetryAfterMS int64  `json:"retry_after_ms,omitempty"`
}
