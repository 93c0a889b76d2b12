package lockout

import (
	"strings"
	"time"
)

// Subject is whose failures a Throttle counts, and what its lock stops.
//
//	key            UID  Router  Asking
//	u/UID          yes                  logins of a user, at every router
//	p/ROUTER/UID   yes  yes             logins at one router of a name that is none of its users
//	o/ROUTER/UID   yes  yes     yes     a source is asked about such a user; logins are refused as before
//	r/ROUTER            yes             all logins at a router
type Subject struct {
	UID    string `json:"uid,omitempty"`
	Router string `json:"router,omitempty"`
	Asking bool   `json:"asking,omitempty"`
}

// Key is where the throttle is stored. Neither a UID nor the name of a router has a slash in it.
func (s Subject) Key() string {
	switch {
	case s.UID == "":
		return "r/" + s.Router
	case s.Router == "":
		return "u/" + s.UID
	case s.Asking:
		return "o/" + s.Router + "/" + s.UID
	}
	return "p/" + s.Router + "/" + s.UID
}

// ParseSubject reads a key; false: it is of no kind that we know.
func ParseSubject(key string) (Subject, bool) {
	kind, rest, _ := strings.Cut(key, "/")
	router, uid, two := strings.Cut(rest, "/")
	s := Subject{UID: uid, Router: router, Asking: kind == "o"}
	if kind == "u" {
		s = Subject{UID: rest}
	}
	return s, s.Key() == key && rest != "" && two == (kind == "o" || kind == "p") && !strings.Contains(uid, "/")
}

// Concerns says whether s is released with what an operator names: a user, and with them every lock that has their name; a
// router, and with it the lock on all its logins; or both.
func (s Subject) Concerns(uid, router string) bool {
	if s.UID != "" {
		return s.UID == uid
	}
	return s.Router == router
}

// String says it in the operator's words.
func (s Subject) String() string {
	switch {
	case s.UID == "":
		return "all logins at router " + s.Router
	case s.Router == "":
		return "user " + s.UID
	case s.Asking:
		return "asking the source about user " + s.UID + " for router " + s.Router
	}
	return "user " + s.UID + " at router " + s.Router
}

// Lock is a lock that holds.
type Lock struct {
	Subject
	Until time.Time `json:"until"`
}

// LockAt returns the lock of the throttle at key, if it holds at now.
func (t Throttle) LockAt(key string, now time.Time) (Lock, bool) {
	s, ok := ParseSubject(key)
	left, _, _ := t.Locked(now)
	return Lock{s, now.Add(left)}, ok && left > 0
}
