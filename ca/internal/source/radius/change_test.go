package radius

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"layeh.com/radius"

	"twinkey/ca/internal/source"
)

const typeIdleTimeout radius.Type = 28

// number is an attribute that is an integer.
func number(t radius.Type, n uint32) *radius.AVP {
	return &radius.AVP{Type: t, Attribute: radius.NewInteger(n)}
}

// vendors is a Vendor-Specific attribute with several of a vendor's in it: type, value, type, value.
func vendors(vendor uint32, of ...string) *radius.AVP {
	b := binary.BigEndian.AppendUint32(nil, vendor)
	for i := 0; i < len(of); i += 2 {
		b = append(b, of[i][0], byte(2+len(of[i+1])))
		b = append(b, of[i+1]...)
	}
	return &radius.AVP{Type: typeVendorSpecific, Attribute: b}
}

// causeOf is what an answer says: 0 is an ACK.
func causeOf(t *testing.T, asked radius.Code, b []byte) uint32 {
	t.Helper()
	p, err := parse(b)
	if err != nil {
		t.Fatal(err)
	}
	cause, there := p.number(typeErrorCause)
	if p.code != asked+1 && p.code != asked+2 || there != (p.code == asked+2) {
		t.Fatalf("%s, %+v to a %s", p.code, p.Attributes, asked)
	}
	return cause
}

// What a CoA-Request asks for, and what is answered to what cannot be done.
func TestChange(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	alice := avp(typeUserName, "alice")
	staff, hour := avp(typeFilterID, "staff"), number(typeSessionTimeout, 3600)
	mapped := func(c *Config) {
		c.Groups, c.Group = []source.Mapping{{Value: "Admins", Group: "admins"}, {Value: "All", Group: "staff"}}, "guests"
	}
	cisco := func(c *Config) { c.GroupAttribute = "26.9.1" }
	for name, tt := range map[string]struct {
		config func(*Config)
		attrs  []*radius.AVP
		fail   error
		cause  uint32
		want   source.Change
		none   bool // nobody is to be asked to do anything
	}{
		"a group":                         {attrs: []*radius.AVP{alice, staff}, want: source.Change{Group: "staff"}},
		"a time":                          {attrs: []*radius.AVP{alice, hour}, want: source.Change{Session: time.Hour}},
		"both, and what does not matter":  {attrs: []*radius.AVP{avp(typeNASIdentifier, "twinkey-ca"), avp(typeNASIPAddress, "\xc0\x00\x02\x01"), hour, staff, alice, avp(typeReplyMessage, "hello")}, want: source.Change{Group: "staff", Session: time.Hour}},
		"by session":                      {attrs: []*radius.AVP{avp(typeAcctSessionID, "berlin-17"), staff}, want: source.Change{Group: "staff"}},
		"the first that can be a group's": {attrs: []*radius.AVP{alice, avp(typeFilterID, "All Staff"), staff, avp(typeFilterID, "admins")}, want: source.Change{Group: "staff"}},
		"what it means":                   {config: mapped, attrs: []*radius.AVP{alice, avp(typeFilterID, "All"), avp(typeFilterID, "Admins")}, want: source.Change{Group: "admins"}},
		"a vendor's attribute":            {config: cisco, attrs: []*radius.AVP{alice, vendors(9, "\x01", "staff")}, want: source.Change{Group: "staff"}},
		"Class, where that is the group":  {config: func(c *Config) { c.GroupAttribute = "Class" }, attrs: []*radius.AVP{alice, avp(typeClass, "staff")}, want: source.Change{Group: "staff"}},
		"a tagged one":                    {config: func(c *Config) { c.GroupAttribute = "Tunnel-Private-Group-Id" }, attrs: []*radius.AVP{alice, avp(typeTunnelPrivateGroupID, "\x01staff")}, want: source.Change{Group: "staff"}},
		"the longest":                     {attrs: []*radius.AVP{alice, number(typeSessionTimeout, 1<<32-1)}, want: source.Change{Session: (1<<32 - 1) * time.Second}},

		"nothing":                            {attrs: []*radius.AVP{alice}, cause: 402, none: true},
		"nobody":                             {attrs: []*radius.AVP{staff, hour}, cause: 402, none: true},
		"another NAS":                        {attrs: []*radius.AVP{alice, staff, avp(typeNASIdentifier, "other")}, cause: 403, none: true},
		"authorize only":                     {attrs: []*radius.AVP{alice, staff, number(typeServiceType, 17)}, cause: 405, none: true},
		"one address of the user's":          {attrs: []*radius.AVP{alice, staff, avp(typeFramedIPAddress, "\x0a\x01\x00\x07")}, cause: 401, none: true},
		"another time":                       {attrs: []*radius.AVP{alice, hour, number(typeIdleTimeout, 60)}, cause: 401, none: true},
		"another class":                      {attrs: []*radius.AVP{alice, staff, avp(typeClass, "x")}, cause: 401, none: true},
		"why it ended":                       {attrs: []*radius.AVP{alice, staff, number(typeAcctTerminateCause, 6)}, cause: 401, none: true},
		"not where groups stand":             {config: cisco, attrs: []*radius.AVP{alice, staff}, cause: 401, none: true},
		"another vendor's":                   {config: cisco, attrs: []*radius.AVP{alice, vendors(10, "\x01", "staff")}, cause: 401, none: true},
		"something of the vendor's besides":  {config: cisco, attrs: []*radius.AVP{alice, vendors(9, "\x01", "staff", "\x02", "shell")}, cause: 401, none: true},
		"a group that means nothing":         {config: mapped, attrs: []*radius.AVP{alice, avp(typeFilterID, "staff")}, cause: 407, none: true},
		"no name of a group":                 {attrs: []*radius.AVP{alice, avp(typeFilterID, "All Staff")}, cause: 407, none: true},
		"no name at all":                     {attrs: []*radius.AVP{alice, avp(typeFilterID, "")}, cause: 407, none: true},
		"no time":                            {attrs: []*radius.AVP{alice, number(typeSessionTimeout, 0)}, cause: 407, none: true},
		"two times":                          {attrs: []*radius.AVP{alice, hour, hour}, cause: 407, none: true},
		"a time of three octets":             {attrs: []*radius.AVP{alice, avp(typeSessionTimeout, "\x00\x0e\x10")}, cause: 407, none: true},
		"a good group and a bad time":        {attrs: []*radius.AVP{alice, staff, avp(typeSessionTimeout, "")}, cause: 407, none: true},
		"a good time and a bad group":        {attrs: []*radius.AVP{alice, hour, avp(typeFilterID, "All Staff")}, cause: 407, none: true},
		"no such session":                    {attrs: []*radius.AVP{avp(typeAcctSessionID, "berlin-18"), staff}, cause: 503, none: true},
		"somebody else's session":            {attrs: []*radius.AVP{avp(typeUserName, "bob"), avp(typeAcctSessionID, "berlin-17"), staff}, cause: 503, none: true},
		"nobody of that name can be":         {attrs: []*radius.AVP{avp(typeUserName, "Not a name"), staff}, cause: 503, none: true},
		"nobody of that name is here":        {attrs: []*radius.AVP{alice, staff}, fail: fmt.Errorf("alice: %w", source.ErrNotThere), cause: 503, want: source.Change{Group: "staff"}},
		"a group that there is not":          {attrs: []*radius.AVP{alice, staff}, fail: fmt.Errorf("staff: %w", source.ErrImpossible), cause: 407, want: source.Change{Group: "staff"}},
		"the directory is away":              {attrs: []*radius.AVP{alice, staff}, fail: errLater, cause: 506, want: source.Change{Group: "staff"}},
		"a Disconnect-Request with a time":   {attrs: []*radius.AVP{alice, hour}, cause: 401, none: true},
		"a Disconnect-Request with a group":  {attrs: []*radius.AVP{alice, staff}, cause: 401, none: true},
		"a Disconnect-Request with the name": {config: cisco, attrs: []*radius.AVP{alice, vendors(9, "\x01", "staff")}, cause: 401, none: true},
	} {
		t.Run(name, func(t *testing.T) {
			s, obey, o := obeying(t, tt.config)
			s.sessions.note(event(source.Start), now) // berlin-17 is alice's
			o.fail = tt.fail
			code := radius.CodeCoARequest
			if strings.HasPrefix(name, "a Disconnect-Request") {
				code = radius.CodeDisconnectRequest
			}
			b, err := obey(here, order(t, code, 7, now, secretText, tt.attrs...), now)
			if err != nil {
				t.Fatal(err)
			}
			if got := causeOf(t, code, b); got != tt.cause {
				t.Errorf("Error-Cause %d, want %d", got, tt.cause)
			}
			if o.ends != 0 || tt.none != (len(o.changes) == 0) || !tt.none && (o.changes[0] != tt.want || o.whom != "alice") {
				t.Errorf("%d ends, changes %+v of %q, want %+v", o.ends, o.changes, o.whom, tt.want)
			}
			if done, undone := counted(s, "users changed"), counted(s, "users not changed"); code == radius.CodeCoARequest && (done != 1) == (tt.cause == 0) || done+undone > 1 {
				t.Errorf("counted %d and %d", done, undone)
			}
		})
	}
}

// A repetition changes nobody again, whoever sends it, also if what it asks for was refused for good; what failed may be tried again.
func TestChangeRepeated(t *testing.T) {
	_, obey, o := obeying(t, nil)
	now := time.Now()
	req := func(group string) []byte {
		return order(t, radius.CodeCoARequest, 1, now, secretText, avp(typeUserName, "alice"), avp(typeFilterID, group))
	}
	var answers [][]byte
	for _, step := range []struct {
		group string
		fail  error
		cause uint32
		after int // so many changes
	}{
		{"staff", errLater, 506, 1}, {"staff", nil, 0, 2}, {"admins", nil, 0, 3}, {"staff", nil, 0, 3}, // a recording does not bring back what was
		{"none", fmt.Errorf("none: %w", source.ErrImpossible), 407, 4}, {"none", nil, 407, 4},
	} {
		o.fail = step.fail
		b, err := obey(here, req(step.group), now)
		if err != nil {
			t.Fatal(err)
		}
		if got := causeOf(t, radius.CodeCoARequest, b); got != step.cause || len(o.changes) != step.after {
			t.Errorf("%+v: Error-Cause %d, %d changes", step, got, len(o.changes))
		}
		answers = append(answers, b)
	}
	if !bytes.Equal(answers[1], answers[3]) || !bytes.Equal(answers[4], answers[5]) {
		t.Error("a repetition got another answer")
	}
	want := []string{"staff", "staff", "admins", "none"}
	if !slices.EqualFunc(o.changes, want, func(c source.Change, g string) bool { return c.Group == g }) {
		t.Errorf("%+v, want %v", o.changes, want)
	}
	if _, err := obey(here, req("staff"), now.Add(302*time.Second)); !errors.Is(err, errStale) {
		t.Errorf("%v", err)
	}
}
