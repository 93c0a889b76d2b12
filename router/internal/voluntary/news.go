package voluntary

import (
	"slices"
	"sync"

	"twinkey/directory/client"
	"twinkey/pkg/twincert"
	"twinkey/router/internal/policy"
)

// news is what watchers are told, as it is now. Whoever is slow misses steps, not the outcome: nothing is queued.
type news struct {
	mu      sync.Mutex
	sites   []client.Site
	crl     []byte
	policy  *policy.Policy
	revoked []twincert.ID // only grows
	known   map[twincert.ID]bool
	version struct{ sites, crl, policy int }
	changed chan struct{} // closed at the next change
}

func newNews() *news {
	return &news{known: make(map[twincert.ID]bool), changed: make(chan struct{})}
}

// change runs f and wakes all watchers.
func (n *news) change(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
	close(n.changed)
	n.changed = make(chan struct{})
}

func (n *news) setSites(s []client.Site) {
	n.change(func() { n.sites = s; n.version.sites++ })
}

func (n *news) setCRL(der []byte) { n.change(func() { n.crl = der; n.version.crl++ }) }

func (n *news) setPolicy(p *policy.Policy) {
	n.change(func() { n.policy = p; n.version.policy++ })
}

func (n *news) revoke(ids ...twincert.ID) {
	n.change(func() {
		for _, id := range ids {
			if !n.known[id] {
				n.known[id] = true
				n.revoked = append(n.revoked, id)
			}
		}
	})
}

// closes says whether the policy has certificates of a group revoked at the end of sessions.
func (n *news) closes(group string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	t, err := n.policy.Terms(group)
	return err == nil && t.RevokeOnClose
}

// told is what one watcher knows.
type told struct {
	group   string
	version struct{ sites, crl, policy int }
	revoked int
}

// next is what a watcher has not been told, and what is closed when there is more.
func (n *news) next(t *told) (w Word, more <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if t.version.sites != n.version.sites {
		sites := n.sites // never changed in place
		w.Sites = &sites
	}
	if t.version.crl != n.version.crl {
		w.CRL = n.crl
	}
	if t.version.policy != n.version.policy {
		rules := n.policy.For(t.group)
		w.Rules = &rules
	}
	w.Revoked = n.revoked[t.revoked:len(n.revoked):len(n.revoked)]
	t.version, t.revoked = n.version, len(n.revoked)
	return w, n.changed
}

// regrouped is all that there is for a watcher whose user is of another group by now: also the rules of the one before, which counts until the
// client has gone over to the newer certificate.
func (n *news) regrouped(t *told, group string) (w Word, more <-chan struct{}) {
	n.mu.Lock()
	before := n.policy.For(t.group)
	n.mu.Unlock()
	*t = told{group: group}
	w, more = n.next(t)
	rules := slices.Concat(*w.Rules, before)
	w.Rules = &rules
	return w, more
}
