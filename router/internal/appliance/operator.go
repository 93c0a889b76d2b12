package appliance

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	caclient "twinkey/ca/client"
	"twinkey/directory/client"
	"twinkey/pkg/keybundle"
	"twinkey/pkg/twincert"
	"twinkey/proto/esp"
	"twinkey/router/internal/admin"
	"twinkey/router/internal/authn"
	"twinkey/router/internal/calls"
	"twinkey/router/internal/closing"
	"twinkey/router/internal/engine"
	"twinkey/router/internal/links"
	"twinkey/router/internal/native"
	"twinkey/router/internal/policy"
	"twinkey/router/internal/renewal"
	"twinkey/router/internal/trust"
)

// loginTime is how long a login may take: Argon2id, two requests, two round trips.
const loginTime = 30 * time.Second

// Status implements admin.Router.
func (a *Appliance) Status(ctx context.Context) (admin.Status, error) {
	es, err := a.eng.Status(ctx)
	if err != nil {
		return admin.Status{}, err
	}
	s := a.set.Load()
	now := time.Now()
	st := admin.Status{
		Name: a.id.Name(), Version: a.o.Version, Since: a.since, Listen: a.ports[0].Conn.LocalAddr().String(),
		Device:    admin.Device{Name: a.dev.Name(), Kind: a.dev.Kind(), MTU: MTU(s)},
		Directory: admin.DirectoryOf(a.ends.Directory, a.trust.Standing(now)),
		KeyLog:    a.o.KeyLog, Closing: closingStatus(a.ended.Status()),
	}
	if s.Public.IsValid() {
		st.Public = s.Public.String()
	}
	if err := a.sites.Problem(); err != nil {
		st.Directory.Problem = err.Error()
	}
	for _, l := range renewal.Lives(a.id.Bundle(), s.Renewal.At) {
		st.Certificates = append(st.Certificates, certificate(l, now, s.Renewal.Warn))
	}
	st.Connections = a.connectionsRefused()
	Fill(&st, es)
	warnings := a.users.Warnings()
	for i, c := range es.Calls {
		if c.Initiator {
			st.Calls[i].Ending = warnings[c.Key].Reason
		}
	}
	for i, g := range st.Clients {
		st.Clients[i].Ending = warnings[links.Key{User: g.User}].Reason
	}
	return st, nil
}

// connectionsRefused counts by listener; nil: there is none.
func (a *Appliance) connectionsRefused() map[string]uint64 {
	refused := map[string]uint64{}
	if a.desk != nil {
		refused["clients"] = a.desk.Refused.Load()
	}
	if a.web != nil {
		refused["portal"] = a.web.Refused()
	}
	return refused
}

// Fill adds what the engine says to a status.
func Fill(st *admin.Status, es engine.Status) {
	st.Withheld = es.Withheld
	st.Drops, st.Links, st.Tunnels, st.Calls = es.Drops, []admin.Link{}, []admin.Tunnel{}, []admin.Call{}
	for _, l := range es.Links {
		st.Links = append(st.Links, admin.Link{Peer: l.Peer, User: l.User, State: l.State.String(), Since: l.Since, Next: next(l), Attempts: l.Attempts, Reason: l.Reason})
	}
	for _, t := range es.Tunnels {
		st.Tunnels = append(st.Tunnels, tunnelStatus(t))
	}
	for _, c := range es.Calls {
		st.Calls = append(st.Calls, callStatus(c))
	}
	for _, r := range es.Refused {
		st.Refused = append(st.Refused, admin.Refusal(r))
	}
	for _, g := range es.Guests {
		st.Clients = append(st.Clients, admin.Guest{User: g.Certificate.Name, Group: g.Certificate.Group, Address: g.Address, Since: g.Since, NotAfter: g.Certificate.NotAfter, Closing: g.Closing()})
	}
}

// closingStatus is nil where there is nothing to say.
func closingStatus(s closing.Status) *admin.Closing {
	if s == (closing.Status{}) {
		return nil
	}
	return &admin.Closing{Waiting: s.Waiting, Since: s.Since, Problem: s.Problem, Refused: s.Refused, Lost: s.Lost}
}

func certificate(l renewal.Life, now time.Time, warn time.Duration) admin.Certificate {
	c := admin.Certificate{Kind: l.Kind, Subject: l.Subject, Serial: l.Serial, NotAfter: l.NotAfter, RenewAt: l.RenewAt}
	switch {
	case now.After(l.NotAfter):
		c.Problem = "expired"
	case now.Before(l.NotBefore):
		c.Problem = "not valid yet: is the clock right?"
	case l.NotAfter.Sub(now) < warn:
		c.Problem = "expires soon"
	}
	return c
}

func next(l links.Link) time.Time {
	if l.State == links.Waiting && (!l.Demand || l.Asked) {
		return l.Next
	}
	return time.Time{}
}

func spi(n uint32) string { return fmt.Sprintf("0x%08x", n) }

func suite(s esp.Suite) string {
	if s == 0 {
		return ""
	}
	return s.String()
}

func tunnelStatus(t native.TunnelStatus) admin.Tunnel {
	state := "setting up"
	if t.Up {
		state = "up"
	}
	return admin.Tunnel{
		ID: t.ID, PeerID: t.PeerID, Peer: t.Peer, Name: t.Certificate, Group: t.Group, Initiator: t.Initiator,
		Endpoint: t.To.String(), State: state, Suite: suite(t.Suite), Hybrid: t.PostQuantum, Since: t.Since,
		Calls: t.Calls, Rekeys: t.Rekeys, SPIIn: spi(t.SPIIn), SPIOut: spi(t.SPIOut),
		PathMTU: t.PathMTU, Path: t.Path.String(),
	}
}

func callStatus(c engine.CallStatus) admin.Call {
	k, b, out := c.Active.Call, c.Active.Call.Bounds(), c.Active.Call.Out()
	return admin.Call{
		ID: k.ID, Kind: k.Kind.String(), Peer: k.Peer, User: k.User, Tunnel: k.LocalTunnel, Session: k.LocalSession,
		Initiator: c.Initiator, State: "up", Suite: suite(c.Suite), Hybrid: c.PostQuantum, Local: b.Local, Remote: b.Remote,
		Since: c.Since, Cert: k.Cert.String(), NotAfter: c.NotAfter, SPIIn: spi(c.SPIIn), SPIOut: spi(c.SPIOut), Rekeys: c.Rekeys,
		RxPackets: k.RxPackets.Load(), RxBytes: k.RxBytes.Load(), TxPackets: k.TxPackets.Load(), TxBytes: k.TxBytes.Load(),
		Packing: out != nil && out.Compress, RxPacked: k.RxPacked.Load(), RxSaved: k.RxSaved.Load(), TxPacked: k.TxPacked.Load(), TxSaved: k.TxSaved.Load(),
		Denied: k.Denied.Load(), Foreign: k.ForeignSource.Load(), Replayed: c.In.Replayed, Forged: c.In.Forged,
	}
}

// Login implements admin.Router.
func (a *Appliance) Login(ctx context.Context, l admin.Login) (admin.Call, error) {
	ctx, cancel := context.WithTimeout(ctx, loginTime)
	defer cancel()
	began := time.Now()
	call, err := a.login(ctx, links.Key{Peer: l.Peer, User: l.User}, l.Password, l.Address.Unmap(), func(f func() error) error { return f() })
	if err != nil {
		clear(l.Password) // it is not wanted any more
		authn.Hold(ctx, began, err)
		a.log.Warn("login failed", "user", l.User, "error", err) // more than whoever logs in is told
		return admin.Call{}, loginError(l.User, err)
	}
	st, err := a.Status(ctx)
	for _, c := range st.Calls {
		if c.ID == call.ID {
			return c, nil
		}
	}
	return admin.Call{}, errors.Join(err, &admin.Error{What: "the call of " + l.User + " came up and went down at once", Hint: "see this router's log"})
}

// login is the one way to a user's call, whoever asks for it: an operator, the portal. What takes the router's cores it does in turn, what waits for the
// far site after it. Its errors are those of authn and engine; engine's come only when the password was right.
func (a *Appliance) login(ctx context.Context, k links.Key, password []byte, address netip.Addr, turn func(func() error) error) (call *calls.Call, err error) {
	defer a.users.Expect(k.User)() // what is heard of their certificate meanwhile is not missed
	params, session, err := authn.Ask(ctx, a.dir, a.askCA, k.User, password)
	if err != nil {
		return nil, err
	}
	return place(turn, func() (native.Credentials, error) {
		return authn.Fetch(ctx, a.dir, a.gate, a.trust, k.User, password, params)
	}, func(cred native.Credentials) (*calls.Call, error) {
		return a.eng.Login(ctx, native.Wish{Key: k, Cred: cred, Address: address, Session: session})
	})
}

// place fetches credentials in turn, and then places the call that they are for: a site that does not answer holds up nobody who goes elsewhere.
func place(turn func(func() error) error, fetch func() (native.Credentials, error), call func(native.Credentials) (*calls.Call, error)) (*calls.Call, error) {
	var cred native.Credentials
	err := turn(func() (err error) {
		cred, err = fetch()
		return err
	})
	if err != nil {
		return nil, err
	}
	c, err := call(cred)
	if err != nil {
		cred.Control.Private.Wipe()
		cred.Data.Private.Wipe()
	}
	return c, err
}

// maxAsks is how many logins may ask the CA at a time: as many as it lets one router have. Each is a TLS handshake, and
// somebody who tries passwords at a thousand connections must not take the router's cores for packets.
const maxAsks = 64

// askCA asks about a user whom a source of the company authenticates. Besides caclient's errors there is keybundle.ErrBusy.
func (a *Appliance) askCA(ctx context.Context, uid string, password []byte) (caclient.Admission, error) {
	return a.asking(func() (caclient.Admission, error) { return caclient.AskLogin(ctx, a.ends.CA, a.id, uid, password) })
}

// askSealed is askCA with a password that the user's own machine has sealed for the CA.
func (a *Appliance) askSealed(ctx context.Context, uid string, sealed []byte) (caclient.Admission, error) {
	return a.asking(func() (caclient.Admission, error) { return caclient.AskSealed(ctx, a.ends.CA, a.id, uid, sealed) })
}

func (a *Appliance) asking(ask func() (caclient.Admission, error)) (caclient.Admission, error) {
	if !a.asks.TryAcquire(1) {
		return caclient.Admission{}, keybundle.ErrBusy
	}
	defer a.asks.Release(1)
	return ask()
}

// loginError says what a person can do about it, whatever it is. What concerns the password is said in
// the same words whatever was wrong.
func loginError(uid string, err error) error {
	e := &admin.Error{What: err.Error()}
	switch {
	case errors.Is(err, keybundle.ErrBusy), errors.Is(err, caclient.ErrTooMany):
		e.Kind, e.Hint = admin.KindUnavailable, "try again in a few seconds"
	case errors.Is(err, caclient.ErrSource):
		e.Kind, e.What = admin.KindUnavailable, "what the company's CA asks about users does not answer"
		if s := saidBy(err); s != "" {
			e.What += ": " + s
		}
		e.Hint = "users of it cannot log in until it does, local users can; the CA's log and `twinkey-ca status` say what is wrong"
	case errors.Is(err, caclient.ErrUnavailable):
		e.Kind, e.Hint = admin.KindUnavailable, "users whom the CA has to ask about cannot log in without it, local users can: is the CA running, and may this router reach its port?"
	case errors.Is(err, client.ErrLocked), errors.Is(err, caclient.ErrLocked):
		e.Kind, e.Hint = admin.KindDenied, "wait, or ask the operator to end it: twinkey-ca user unlock "+uid+" (`twinkey-ca locks` says what is locked)"
	case errors.Is(err, client.ErrUnavailable):
		e.Kind, e.Hint = admin.KindUnavailable, "is the directory running, and may this router reach its port? `twinkey-router status` says when it was heard last"
	case errors.Is(err, client.ErrInvalid), errors.Is(err, caclient.ErrInvalid):
		e.Kind, e.What, e.Hint = admin.KindNotFound, fmt.Sprintf("%q is no UserID", uid), "check UserID and password"
	case errors.Is(err, client.ErrDenied), errors.Is(err, caclient.ErrDenied):
		e.Kind, e.What = admin.KindDenied, "login of "+uid+" refused"
		e.Hint = "check UserID and password; the operator sees the reason in `twinkey-directory audit`"
	case errors.Is(err, engine.ErrNotOurs):
		e.Kind, e.Hint = admin.KindDenied, "name the address that the user's machine has on this router's LAN"
	case errors.Is(err, policy.ErrDenied):
		e.Kind, e.Hint = admin.KindDenied, "the rules are under policy: in the router's configuration; after a change there: twinkey-router reload"
	case errors.Is(err, engine.ErrBridged):
		e.Kind, e.Hint = admin.KindDenied, "users need addresses of a prefix that this router is certified for and that is in no site.prefixes"
	case errors.Is(err, native.ErrUnknownPeer):
		e.Kind, e.Hint = admin.KindNotFound, "`twinkey-router status` lists the routers under \"Wanted calls\""
	case errors.Is(err, native.ErrNoEndpoint):
		e.Kind, e.Hint = admin.KindConflict, "it is behind a NAT, say, and places calls itself: name a router with a public address, or give that one such an address (public: in its configuration)"
	case errors.Is(err, engine.ErrBusy):
		e.Kind, e.Hint = admin.KindConflict, "end that call first: twinkey-router logout "+uid
	case errors.Is(err, client.ErrTooMany):
		e.Kind, e.Hint = admin.KindUnavailable, "the directory has too much to do: try again in a few seconds"
	case errors.Is(err, client.ErrStorage):
		e.Kind, e.Hint = admin.KindUnavailable, "the directory's operator sees in its log what is wrong with the disk"
	case errors.Is(err, trust.ErrStale):
		e.Kind, e.Hint = admin.KindUnavailable, "nobody gets a call until the directory is heard again: is it running, and may this router reach its port? `twinkey-router status` says when it was heard last"
	default:
		callError(e, uid, err)
	}
	return e
}

// callError is what is said of the keys, and of the call, when the password was right.
func callError(e *admin.Error, uid string, err error) {
	failed, tried := errors.AsType[*engine.Failed](err)
	switch {
	case errors.Is(err, twincert.ErrExpired):
		e.Kind, e.Hint = admin.KindDenied, "twinkey-ca user renew "+uid+" gives the user another one; if it has not expired, set this router's clock"
	case errors.Is(err, twincert.ErrNotYetValid):
		e.Kind, e.Hint = admin.KindDenied, "set this router's clock, or the CA's"
	case errors.Is(err, twincert.ErrRevoked):
		e.Kind, e.Hint = admin.KindDenied, "`twinkey-ca user show "+uid+"` says when and why; twinkey-ca user add lets a local user in again, twinkey-ca user allow one of a source"
	case errors.Is(err, keybundle.ErrOpen), errors.Is(err, keybundle.ErrSuccessor):
		e.Hint = "what the directory keeps of this user does not fit together: twinkey-ca user renew " + uid + " makes it anew"
	case errors.Is(err, native.ErrTooMany):
		e.Kind, e.Hint = admin.KindUnavailable, "this router has as many tunnels or calls as it can: wait until some have ended, `twinkey-router calls` lists them"
	case errors.Is(err, engine.ErrStopped):
		e.Kind, e.Hint = admin.KindUnavailable, "try again when the router has been started anew"
	case tried && failed.Refused:
		e.Kind, e.Hint = admin.KindDenied, "the policies of both routers, the user's certificate and those of the routers have to allow it; the log of the other router says more"
	case tried:
		e.Kind, e.Hint = admin.KindUnavailable, "is the other router running, and does its UDP port let this one through? `twinkey-router status` shows where it is called; its log says what it refused"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		e.Kind, e.Hint = admin.KindUnavailable, "it took longer than "+loginTime.String()+", or was given up: try again; if it stays so, `twinkey-router status` says whether directory and other router answer"
	default:
		e.Hint = "see this router's log; if it stays so when the directory and the CA answer (`twinkey-router status`), twinkey-ca user renew " + uid + " gives the user keys anew"
	}
}

// Passwd implements admin.Router. Calls that are up stay up: their keys are the same.
func (a *Appliance) Passwd(ctx context.Context, p admin.Passwd) error {
	ctx, cancel := context.WithTimeout(ctx, loginTime)
	defer cancel()
	began := time.Now()
	err := authn.ChangePassword(ctx, a.dir, a.gate, a.trust, p.User, p.Password, p.New)
	if err == nil {
		a.log.Info("password changed", "user", p.User)
		return nil
	}
	clear(p.Password)
	clear(p.New)
	authn.Hold(ctx, began, err)
	return passwdError(p.User, err)
}

// passwdError is loginError, and what a change of password can fail with besides.
func passwdError(uid string, err error) error {
	e := &admin.Error{What: err.Error()}
	switch {
	case errors.Is(err, keybundle.ErrWeak), errors.Is(err, keybundle.ErrLong), errors.Is(err, authn.ErrSame):
		e.Kind, e.Hint = admin.KindConflict, "choose another one; nothing was changed"
	case errors.Is(err, client.ErrConflict):
		e.Kind, e.Hint = admin.KindConflict, "the CA's operator has just given this user other keys: try again"
	case errors.Is(err, client.ErrNotFound):
		e.Hint = "the directory is of an older version, which changes no passwords: upgrade it, or have the operator do it by twinkey-ca user renew"
	case errors.Is(err, client.ErrInvalid) && twincert.CheckName(uid) == nil:
		e.Hint = "the operator sees under password: in directory.yaml what this directory asks for; nothing was changed"
	case errors.Is(err, authn.ErrUncertain):
		e.Kind, e.Hint = admin.KindUnavailable, "it may have been changed all the same: log in with the new password, and if that is refused with the old one"
	default:
		return loginError(uid, err)
	}
	return e
}

// saidBy is the CA's words for a refusal.
func saidBy(err error) string {
	if e, ok := errors.AsType[*caclient.Error](err); ok {
		return e.Message
	}
	return ""
}

// Hangup implements admin.Router.
func (a *Appliance) Hangup(ctx context.Context, h admin.Hangup) (admin.Ended, error) {
	ended, err := a.eng.Hangup(ctx, h.ID, h.User)
	clients := 0
	if err == nil && h.User != "" {
		clients, err = a.eng.Dismiss(ctx, h.User)
	}
	if err == nil && len(ended) == 0 && clients == 0 {
		err = &admin.Error{Kind: admin.KindNotFound, What: "no such call", Hint: "`twinkey-router calls` lists them, `twinkey-router status` clients too"}
	}
	return admin.Ended{Calls: ended, Clients: clients}, err
}
