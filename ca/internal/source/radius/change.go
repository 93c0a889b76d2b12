package radius

import (
	"time"

	"layeh.com/radius"

	"twinkey/ca/internal/source"
)

// alters says whether an attribute of a CoA-Request is one of those that change something: the group as in an Access-Accept, and the session's
// time.
func (s *Source) alters(a *radius.AVP) bool {
	return a.Type == typeSessionTimeout || s.group.is(a)
}

// change is what a CoA-Request asks for. It replaces what the Access-Accept said, and is read like that, but that what is said of groups must
// name one: the group of whom the server puts into none is for logins.
func (s *Source) change(p packet) (c source.Change, cause uint32) {
	asks := false
	for _, a := range p.Attributes {
		if !s.alters(a) {
			continue
		}
		asks = true
		if a.Type != typeSessionTimeout {
			continue
		}
		// No time at all is neither an end, which a Disconnect-Request is for, nor no end: a server may have meant either.
		seconds, err := radius.Integer(a.Attribute)
		if err != nil || seconds == 0 || c.Session != 0 {
			return c, causeInvalidValue
		}
		c.Session = time.Duration(seconds) * time.Second
	}
	if !asks {
		return c, causeMissingAttribute
	}
	if values := s.group.values(p.Attributes); len(values) > 0 {
		if c.Group = source.PickGroup(s.cfg.Groups, values, sameValue, ""); c.Group == "" {
			return c, causeInvalidValue
		}
	}
	return c, 0
}
