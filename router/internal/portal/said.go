package portal

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	caclient "twinkey/ca/client"
	"twinkey/directory/client"
	"twinkey/pkg/cli"
	"twinkey/pkg/keybundle"
	"twinkey/pkg/twincert"
	"twinkey/router/internal/authn"
	"twinkey/router/internal/engine"
	"twinkey/router/internal/native"
	"twinkey/router/internal/policy"
	"twinkey/router/internal/trust"
)

// said is what a person is told: what is the matter, and what to do about it.
type said struct {
	Title, Text string
	status      int
	after       time.Duration // not sooner; zero: whenever they like
}

// What is said whatever the password.
var (
	saidForged   = said{Title: "This form did not come from this page", Text: "Nothing was done. Open the page anew and try again; your browser must accept cookies.", status: http.StatusForbidden}
	saidUnread   = said{Title: "That could not be read", Text: "Nothing was done. Open the page anew and try again.", status: http.StatusBadRequest}
	saidTooLong  = said{Title: "That is too long", Text: fmt.Sprintf("Nothing was tried. A password has %d characters at the most, fewer if there are others than those of English among them, and a UserID %d. Is something else in the field than you meant? Try again.", keybundle.MaxPassword, twincert.MaxName), status: http.StatusRequestEntityTooLarge}
	saidEmpty    = said{Title: "Something is missing", Text: "Both UserID and password are needed.", status: http.StatusBadRequest}
	saidTooOften = said{Title: "Too many tries from your device", Text: "Wait a few seconds, then try once more.", status: http.StatusTooManyRequests, after: 3 * time.Second}
	saidWrongs   = said{Title: "Too many wrong passwords", Text: "No more can be tried from your device for the moment, so that nobody can guess. Wait a minute, then try once more.", status: http.StatusTooManyRequests, after: time.Minute}
	saidBusy     = said{Title: "Too many people are logging in right now", Text: "Your password was not looked at. Try again in a few seconds.", status: http.StatusServiceUnavailable, after: 5 * time.Second}
	saidNoPage   = said{Title: "You are connected, but there is no page for it", Text: "This router shows as many pages as it can. Log in once more in a minute, at the same site, to see your session here; the operator can end it too.", status: http.StatusServiceUnavailable, after: time.Minute}
	saidStillIn  = said{Title: "You are not logged out", Text: "The router could not end your session. Try again in a few seconds; if it stays so, ask the operator to end it (twinkey-router logout).", status: http.StatusServiceUnavailable, after: 5 * time.Second}
	saidNoState  = said{Title: "The state of your session cannot be shown", Text: "Nothing has changed by that. Try again in a few seconds; if it stays so, tell the operator.", status: http.StatusServiceUnavailable, after: 5 * time.Second}
	saidNoForm   = said{Title: "The page cannot be made", Text: "Try again in a few seconds; if it stays so, tell the operator.", status: http.StatusServiceUnavailable, after: 5 * time.Second}
	saidEnded    = said{Title: "You are logged out", Text: "What was open is closed: your session has ended.", status: http.StatusOK}
	saidOwn      = said{Title: "Your device encrypts by itself", Text: "Somebody is logged in on it already, not by this page. Nobody was logged in here, and no password was tried.", status: http.StatusConflict}
	saidOwnNow   = said{Title: "Your device encrypts by itself", Text: "Somebody has just logged in on it, not by this page. Nobody was logged in here. Open the page anew: it says what can be done.", status: http.StatusConflict}
	saidNotIn    = said{Title: "You are not logged in", Text: "Nothing was changed: at this page a password is changed by whoever is logged in. Log in first. If you were, your session has ended, or your browser does not accept cookies.", status: http.StatusForbidden}
	saidMissing  = said{Title: "Something is missing", Text: "Nothing was changed. The old password is needed, and the new one twice.", status: http.StatusBadRequest}
	saidLongOld  = said{Title: "That is too long", Text: fmt.Sprintf("Nothing was changed, and no password tried: none has more than %d bytes. Is something else in the field than you meant? Try again.", keybundle.MaxPassword), status: http.StatusRequestEntityTooLarge}
	saidUnlike   = said{Title: "The new password is not the same twice", Text: "Nothing was changed. Try again.", status: http.StatusBadRequest}
	saidNoPeer   = said{Title: "That site is not known", Text: "Choose one of the sites in the list.", status: http.StatusBadRequest}
)

// saidWrong is the one answer for everything that has to do with who somebody is: a wrong password, an unknown user, one whom
// this router may not serve.
var saidWrong = said{Title: "UserID or password is wrong", Text: "Check both: capital letters count. After too many wrong tries you would have to wait.", status: http.StatusForbidden}

// saidWrongOld is the one answer likewise where the password is to be changed: to a wrong one, and to whom the directory does not keep it for.
var saidWrongOld = said{Title: "The old password is wrong, or it cannot be changed here",
	Text:   "Nothing was changed. Check it: capital letters count. If you use the same one for the company's other services, change it there. After too many wrong tries you would have to wait.",
	status: http.StatusForbidden}

func say(status int, after time.Duration, title, format string, a ...any) said {
	return said{Title: title, Text: fmt.Sprintf(format, a...), status: status, after: after}
}

// explain says what a failed login means for the person in front of it. other: somebody else is logged in from the same address.
func explain(err error, peer string, other bool, now time.Time) said {
	if s, ok := explainProof(err, now); ok {
		return s
	}
	switch {
	case errors.Is(err, policy.ErrDenied):
		return say(http.StatusForbidden, 0, "Your password is right, but the policy lets you have nothing here",
			"No rule of this router or of %s allows you this call, from this address and now. Ask the operator.", peer)
	case errors.Is(err, engine.ErrBridged), errors.Is(err, engine.ErrNotOurs):
		return say(http.StatusForbidden, 0, "From your device's address nobody can log in", "Its address is not one of those that are meant for users. Ask the operator which network to use.")
	case errors.Is(err, engine.ErrBusy) && other:
		return say(http.StatusConflict, 0, "Somebody else is logged in from your device's address", "They have to log out first; the operator can do that too.")
	case errors.Is(err, engine.ErrBusy):
		return say(http.StatusConflict, 0, "You are logged in to this site already, from another device", "Log out there first, or ask the operator to do it.")
	case errors.Is(err, native.ErrUnknownPeer):
		return saidNoPeer
	case errors.Is(err, native.ErrNoEndpoint): // it had an address when the page was made
		return say(http.StatusConflict, 0, peer+" cannot be called from here", "It has no public address any more, so that only it can call others. Choose another site, or ask the operator.")
	case errors.Is(err, native.ErrTooMany):
		return say(http.StatusServiceUnavailable, time.Minute, "This router has as many calls as it can have", "Try again in a few minutes; if it stays so, tell the operator.")
	case errors.Is(err, engine.ErrStopped):
		return say(http.StatusServiceUnavailable, time.Minute, "This router is being stopped", "Try again in a minute; if it stays so, tell the operator.")
	case errors.Is(err, context.DeadlineExceeded):
		return say(http.StatusGatewayTimeout, 0, "It took too long", "Nothing is wrong with your password, but %s did not answer in time. Try again in a minute; if it stays so, tell the operator.", peer)
	}
	if f, ok := errors.AsType[*engine.Failed](err); ok && f.Refused { // by a router that has proved who it is
		return say(http.StatusForbidden, 0, "Your password is right, but the call to "+peer+" was refused", "The reason: %s. Ask the operator.", f.Reason)
	}
	return say(http.StatusBadGateway, 0, "The call to "+peer+" did not come up", "Try again in a minute; if it stays so, tell the operator, who finds the reason in this router's log.")
}

// explainChange says what a failed change of password means. Whether anything was changed it says in any case.
func explainChange(err error, now time.Time) said {
	switch {
	case errors.Is(err, authn.ErrUncertain): // before what the directory's silence means otherwise
		return say(http.StatusServiceUnavailable, 10*time.Second, "Whether your password was changed is not known",
			"The company's directory fell silent in the middle. Log out and log in with the new password; if that is refused, with the old one. If both are, tell the operator.")
	case errors.Is(err, keybundle.ErrWeak), errors.Is(err, keybundle.ErrLong):
		return say(http.StatusBadRequest, 0, "Choose another password", "Nothing was changed: %v. It needs %d bytes at least and has %d at the most; a letter of English is one, others are more.", err, keybundle.MinPassword, keybundle.MaxPassword)
	case errors.Is(err, authn.ErrSame):
		return say(http.StatusBadRequest, 0, "Choose another password", "Nothing was changed: %v.", err)
	case errors.Is(err, client.ErrDenied):
		return saidWrongOld
	case errors.Is(err, keybundle.ErrBusy), errors.Is(err, client.ErrTooMany), errors.Is(err, errTurns):
		return say(http.StatusServiceUnavailable, 5*time.Second, "Too many people are logging in right now", "Nothing was changed. Try again in a few seconds.")
	case errors.Is(err, client.ErrConflict):
		return say(http.StatusConflict, 0, "You have just been given other keys", "Nothing was changed. Try again; if the old password is refused, ask the operator for the one that goes with them.")
	case errors.Is(err, client.ErrInvalid):
		return say(http.StatusBadGateway, 0, "The company's directory does not take it", "Nothing was changed. It wants passwords kept in another way than this router does; tell the operator (password: in directory.yaml).")
	case errors.Is(err, client.ErrNotFound):
		return say(http.StatusBadGateway, 0, "No password can be changed here", "Nothing was changed. The company's directory is of an older version. Tell the operator, who can give you other keys and a password with them (twinkey-ca user renew).")
	}
	if s, ok := explainProof(err, now); ok {
		s.Text = "Nothing was changed. " + s.Text
		return s
	}
	return say(http.StatusBadGateway, 0, "Your password was not changed", "Try again in a minute; if it stays so, tell the operator, who finds the reason in this router's log.")
}

// explainProof says what it means that a password, or what it opens, was not accepted; false: it is about something else.
func explainProof(err error, now time.Time) (said, bool) {
	switch {
	case errors.Is(err, keybundle.ErrBusy), errors.Is(err, client.ErrTooMany), errors.Is(err, caclient.ErrTooMany), errors.Is(err, errTurns):
		return saidBusy, true
	case errors.Is(err, errWrongs):
		return saidWrongs, true
	case errors.Is(err, client.ErrLocked), errors.Is(err, caclient.ErrLocked):
		after := time.Duration(0)
		if e, ok := errors.AsType[*client.Error](err); ok {
			after = e.RetryAfter
		} else if e, ok := errors.AsType[*caclient.Error](err); ok {
			after = e.RetryAfter
		}
		if after <= 0 {
			return say(http.StatusTooManyRequests, 0, "Locked after too many wrong tries", "Wait a while, or ask the operator to end it (twinkey-ca user unlock)."), true
		}
		return say(http.StatusTooManyRequests, after, "Locked after too many wrong tries",
			"It ends %s, at %s. Trying before does not help; the operator can end it sooner (twinkey-ca user unlock).", cli.Until(now, now.Add(after)), now.Add(after).Format("15:04:05 MST")), true
	case errors.Is(err, caclient.ErrSource):
		return say(http.StatusServiceUnavailable, 10*time.Second, "Whom the company asks about passwords does not answer",
			"Nothing is wrong with your password, but nobody can check it now. Try again in a minute; if it stays so, tell the operator."), true
	case errors.Is(err, caclient.ErrUnavailable):
		return say(http.StatusServiceUnavailable, 10*time.Second, "The company's CA cannot be reached",
			"Nothing is wrong with your password, but nobody can check it now. Try again in a minute; if it stays so, tell the operator."), true
	case errors.Is(err, client.ErrStorage):
		return say(http.StatusServiceUnavailable, 10*time.Second, "The company's directory has trouble with its disk",
			"Nothing is wrong with your password, but nobody can check it now. Try again in a minute; if it stays so, tell the operator."), true
	case errors.Is(err, client.ErrUnavailable):
		return say(http.StatusServiceUnavailable, 10*time.Second, "The company's directory cannot be reached",
			"Nothing is wrong with your password, but nobody can check it now. Try again in a minute; if it stays so, tell the operator."), true
	case errors.Is(err, client.ErrDenied), errors.Is(err, client.ErrInvalid), errors.Is(err, client.ErrNotFound), errors.Is(err, caclient.ErrDenied), errors.Is(err, caclient.ErrInvalid):
		return saidWrong, true
	case errors.Is(err, trust.ErrStale):
		return say(http.StatusServiceUnavailable, time.Minute, "This router lets nobody in at the moment",
			"It has not heard for too long whose certificates are revoked. Try again in a minute; if it stays so, tell the operator."), true
	case errors.Is(err, twincert.ErrExpired):
		return say(http.StatusForbidden, 0, "Your certificate has expired", "Ask the operator to renew it (twinkey-ca user renew)."), true
	case errors.Is(err, twincert.ErrNotYetValid):
		return say(http.StatusForbidden, 0, "Your certificate is not valid yet", "A clock is wrong, this router's or the CA's. Tell the operator."), true
	case errors.Is(err, twincert.ErrRevoked):
		return say(http.StatusForbidden, 0, "Your certificate is revoked", "Ask the operator, who can see why and let you in again (twinkey-ca user show)."), true
	case errors.Is(err, keybundle.ErrOpen), errors.Is(err, keybundle.ErrSuccessor):
		return say(http.StatusBadGateway, 0, "Your keys do not open", "Your password is right, but what the company's directory keeps of you does not fit together. Ask the operator to renew your keys (twinkey-ca user renew)."), true
	}
	return said{}, false
}
