package policy

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"twinkey/pkg/twincert"
)

// Everybody stands for every group.
const Everybody = "*"

// Rule is one rule as it is written in the configuration; see the package's documentation.
type Rule struct {
	Groups  []string       `yaml:"groups" json:"groups" doc:"Groups whose users it is for; * is everybody." example:"[staff]"`
	To      []netip.Prefix `yaml:"to" json:"to,omitempty" doc:"What they may reach; empty: all that the far site bridges." example:"[10.2.0.0/24]"`
	Allow   []Service      `yaml:"allow" json:"allow,omitempty" doc:"Protocols and ports: any, tcp, udp/53, tcp/80-443, icmp, a protocol's number; empty: any." example:"[tcp/22, tcp/80-443, icmp]"`
	From    []netip.Prefix `yaml:"from" json:"from,omitempty" doc:"Addresses that they may log in from; empty: all that the router in front of them is certified for." example:"[10.1.1.0/24]"`
	Calls   int            `yaml:"calls" json:"calls,omitempty" doc:"Calls at a time for each user, each to or from another router; 0: any number." default:"0"`
	Idle    time.Duration  `yaml:"idle" json:"idle,omitempty" doc:"A call ends after this long without a packet; 0: never." default:"0s"`
	Session time.Duration  `yaml:"session" json:"session,omitempty" doc:"A call ends this long after it came up; 0: never." default:"0s"`

	// A user's own machine, which the CA does not know, is asked for a proof instead.
	RevokeOnClose bool `yaml:"revoke-on-close" json:"-" doc:"Have the CA revoke the certificate of a user who was logged in here when the last call on it ends, or the session of their own machine." default:"false"`
}

// ErrDenied says that no rule lets a user do what they ask for.
var ErrDenied = errors.New("the policy does not allow it")

// Policy is a checked list of rules. Nil allows nothing.
type Policy struct{ rules []Rule }

// Limits of a policy.
const (
	maxRules    = 1000
	maxPrefixes = 1000 // of a rule, likewise services
	minIdle     = time.Second
)

// FieldError says which field of which rule is wrong.
type FieldError struct {
	Rule  int // from 0
	Field string
	Err   error
}

func (e *FieldError) Error() string { return fmt.Sprintf("policy[%d].%s: %v", e.Rule, e.Field, e.Err) }

// Unwrap is what is wrong.
func (e *FieldError) Unwrap() error { return e.Err }

// New checks rules. Its error is a *FieldError.
func New(rules []Rule) (*Policy, error) {
	if len(rules) > maxRules {
		return nil, &FieldError{maxRules, "groups", fmt.Errorf("more than %d rules", maxRules)}
	}
	for i, r := range rules {
		wrong := func(field, format string, a ...any) error { return &FieldError{i, field, fmt.Errorf(format, a...)} }
		if len(r.Groups) == 0 {
			return nil, wrong("groups", "it is for nobody: name groups, or * for everybody")
		}
		for _, g := range r.Groups {
			if err := twincert.CheckName(g); err != nil && g != Everybody {
				return nil, wrong("groups", "%q: %w", g, err)
			}
		}
		for field, ps := range map[string][]netip.Prefix{"to": r.To, "from": r.From} {
			if len(ps) > maxPrefixes {
				return nil, wrong(field, "more than %d", maxPrefixes)
			}
			for _, p := range ps {
				if p != p.Masked() {
					return nil, wrong(field, "%s has host bits set: did you mean %s?", p, p.Masked())
				}
			}
		}
		switch {
		case len(r.Allow) > maxPrefixes:
			return nil, wrong("allow", "more than %d", maxPrefixes)
		case r.Calls < 0:
			return nil, wrong("calls", "%d is less than 0", r.Calls)
		case r.Idle != 0 && r.Idle < minIdle:
			return nil, wrong("idle", "%s is less than %s", r.Idle, minIdle)
		case r.Session != 0 && r.Session < minIdle:
			return nil, wrong("session", "%s is less than %s", r.Session, minIdle)
		}
	}
	return &Policy{slices.Clone(rules)}, nil
}

// Terms are what holds for the users of a group.
type Terms struct {
	From          []netip.Prefix // empty: any
	Calls         int            // 0: any number
	Idle, Session time.Duration  // 0: none
	RevokeOnClose bool           // of the certificate, by the end that placed the calls
	rules         []rule
	open          bool // everything passes
}

// RevokesOnClose says whether any rule wants certificates revoked at the end.
func (p *Policy) RevokesOnClose() bool {
	return p != nil && slices.ContainsFunc(p.rules, func(r Rule) bool { return r.RevokeOnClose })
}

// Terms returns what holds for the users of group; ErrDenied if no rule names it.
func (p *Policy) Terms(group string) (Terms, error) {
	var t Terms
	named, anywhere := false, false
	if p != nil {
		for _, r := range p.rules {
			if !r.names(group) {
				continue
			}
			named = true
			t.rules = append(t.rules, rule{r.To, r.Allow})
			t.open = t.open || len(r.To) == 0 && everything(r.Allow)
			anywhere = anywhere || len(r.From) == 0
			t.From = append(t.From, r.From...)
			t.Calls = first(t.Calls, r.Calls)
			t.Idle = first(t.Idle, r.Idle)
			t.Session = first(t.Session, r.Session)
			t.RevokeOnClose = t.RevokeOnClose || r.RevokeOnClose
		}
	}
	if !named {
		return Terms{}, fmt.Errorf("%w: no rule is for users of group %q", ErrDenied, group)
	}
	if anywhere {
		t.From = nil
	}
	return t, nil
}

// For returns the rules that hold for the users of group, as rules for it alone: what other groups there are is
// not theirs to know.
func (p *Policy) For(group string) []Rule {
	var rules []Rule
	if p != nil {
		for _, r := range p.rules {
			if r.names(group) {
				r.Groups = []string{cmp.Or(group, Everybody)}
				rules = append(rules, r)
			}
		}
	}
	return rules
}

// names says whether the rule is for the users of group.
func (r *Rule) names(group string) bool {
	return slices.Contains(r.Groups, Everybody) || group != "" && slices.Contains(r.Groups, group)
}

func first[T int | time.Duration](a, b T) T {
	if a != 0 {
		return a
	}
	return b
}

// Within are the same terms for a session that may last no longer than most, whoever said so; 0: nobody did.
func (t Terms) Within(most time.Duration) Terms {
	if most > 0 && (t.Session == 0 || most < t.Session) {
		t.Session = most
	}
	return t
}

// Admits says whether a user may have a call from an address, n others being up. The error is ErrDenied.
func (t Terms) Admits(a netip.Addr, n int) error {
	switch {
	case len(t.From) > 0 && !within(t.From, a):
		return fmt.Errorf("%w: from %s there are no logins, only from %v", ErrDenied, a, t.From)
	case t.Calls > 0 && n >= t.Calls:
		return fmt.Errorf("%w: %d calls of this user are up, and no more may be", ErrDenied, n)
	}
	return nil
}

func within(ps []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(ps, func(p netip.Prefix) bool { return p.Contains(a) })
}
