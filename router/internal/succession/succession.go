package succession

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"twinkey/directory/client"
	"twinkey/pkg/twincert"
	"twinkey/router/internal/engine"
	"twinkey/router/internal/links"
)

const (
	lookEvery  = 5 * time.Second
	overtaking = 2 * time.Second // for which calls on revoked certificates wait for news of others
	retryAfter = 2 * time.Second // when the directory did not answer
	// Whoever is two thirds through their certificate is asked for every hundredth of its life, within these.
	leastAsk = 10 * time.Second
	mostAsk  = 10 * time.Minute
	// A warning begins in the last tenth of a life, at most this long before the end, unless another time is configured.
	mostWarn = 24 * time.Hour
)

// The stages of a warning, and what part of its time is left at each.
const (
	stageSoon = 1 // all
	stageLast = 2 // a tenth
)

// Config is what a Keeper works with.
type Config struct {
	// Users lists the logins.
	Users func(context.Context) ([]engine.User, error)
	// Ask is Successors of a directory/client.Client.
	Ask func(context.Context, []client.Holding) ([]client.Held, error)
	// Succeed opens a successor and puts it in the place of a login's certificate.
	Succeed func(context.Context, engine.User, client.Successor) error
	// Warn is how long before its end a certificate is warned of; 0: the default.
	Warn func() time.Duration
	Log  *slog.Logger
	Now  func() time.Time // nil: time.Now
}

// Keeper looks after the users of a router. Its methods may be called from any goroutine.
type Keeper struct {
	c       Config
	kick    chan struct{}
	looking chan struct{} // one look at a time

	mu       sync.Mutex
	heard    map[string]bool // users who have another certificate
	all      bool            // something may have been missed
	expected map[string]int  // logins that are under way, by user
	logins   map[login]*watched
}

// login tells one login from another of the same user.
type login struct {
	key   links.Key
	since time.Time
}

// watched is what is remembered of a login.
type watched struct {
	id       twincert.ID // of its certificate
	due      bool        // there is something newer, or may be
	asked    time.Time
	problem  string // why there is nothing newer
	stage    int    // of the last warning that was logged
	notAfter time.Time
}

// New makes a keeper.
func New(c Config) *Keeper {
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Keeper{c: c, kick: make(chan struct{}, 1), looking: make(chan struct{}, 1), heard: map[string]bool{}, expected: map[string]int{}, logins: map[login]*watched{}}
}

// Heard notes that a user has another certificate; empty: anybody may have.
func (k *Keeper) Heard(uid string) {
	k.mu.Lock()
	if uid == "" {
		k.all = true
	} else {
		k.heard[uid] = true
	}
	k.mu.Unlock()
	k.wake()
}

func (k *Keeper) wake() {
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

// Expect says that a user is about to log in: what is heard of them until the function that it returns is called, when they are
// logged in or not, is not forgotten. Otherwise a certificate that was issued between the release of the keys and the call would be missed.
func (k *Keeper) Expect(uid string) (over func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.expected[uid]++
	return func() {
		k.mu.Lock()
		if k.expected[uid]--; k.expected[uid] == 0 {
			delete(k.expected, uid)
		}
		missed := k.heard[uid]
		k.mu.Unlock()
		if missed {
			k.wake()
		}
	}
}

// Warning is of a certificate that ends soon.
type Warning struct {
	Reason string // why there is nothing newer
	Last   bool   // a tenth is left of the time for which it is warned of
}

// Warnings are of the logins whose certificates end soon.
func (k *Keeper) Warnings() map[links.Key]Warning {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := map[links.Key]Warning{}
	for l, w := range k.logins {
		if w.stage > 0 {
			out[l.key] = Warning{w.problem, w.stage == stageLast}
		}
	}
	return out
}

// Overtake asks at once, and for a moment waits for the answer, if a certificate of somebody who is logged in is among those revoked and
// there may be a newer one that was not asked for yet: one may just have taken the place of the other, or the group may have got another
// control key while the directory could not be heard, and the grace may be over. Who has a newer certificate then goes over to it instead of
// being logged out. Nobody else is waited for.
func (k *Keeper) Overtake(ctx context.Context, revoked []twincert.ID) {
	users, err := k.c.Users(ctx)
	if err != nil {
		return
	}
	is := map[twincert.ID]bool{}
	for _, id := range revoked {
		is[id] = true
	}
	hit := false
	k.mu.Lock()
	for _, u := range users {
		w := k.logins[loginOf(u)]
		if is[u.Certificate.ID()] && (k.all || k.heard[u.Key.User] || w != nil && w.due) {
			hit = true
		}
	}
	k.mu.Unlock()
	if !hit {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, overtaking)
	defer cancel()
	k.look(ctx)
}

// Run looks after the users until ctx ends.
func (k *Keeper) Run(ctx context.Context) {
	for {
		select {
		case <-time.After(k.look(ctx)):
		case <-k.kick:
		case <-ctx.Done():
			return
		}
	}
}

// look asks for whom there is something to ask, warns, and says when to look again at the latest.
func (k *Keeper) look(ctx context.Context) time.Duration {
	select {
	case k.looking <- struct{}{}:
		defer func() { <-k.looking }()
	case <-ctx.Done(): // another hangs
		return retryAfter
	}
	users, err := k.c.Users(ctx)
	if err != nil { // the engine has stopped, or is about to
		return lookEvery
	}
	wait := lookEvery
	succeeded := map[login]bool{}
	for batch := range slices.Chunk(k.choose(k.c.Now(), users), client.MaxHoldings) {
		if !k.ask(ctx, batch, succeeded) {
			wait = retryAfter
			break
		}
	}
	k.warn(k.c.Now(), users, succeeded)
	return wait
}

func loginOf(u engine.User) login { return login{u.Key, u.Since} }

// choose brings what is remembered up to date, and returns the logins to ask for.
func (k *Keeper) choose(now time.Time, users []engine.User) (ask []engine.User) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for uid := range k.expected {
		k.heard[uid] = k.heard[uid] || k.all
	}
	here := map[login]bool{}
	for _, u := range users {
		here[loginOf(u)] = true
		w := k.logins[loginOf(u)]
		if w == nil || w.id != u.Certificate.ID() {
			w = &watched{id: u.Certificate.ID(), notAfter: u.Certificate.NotAfter, due: w != nil && w.due, problem: problemNone}
			k.logins[loginOf(u)] = w
		}
		w.due = w.due || k.all || k.heard[u.Key.User]
		if w.due || now.Sub(w.asked) >= askEvery(u.Certificate) && old(now, u.Certificate) {
			ask = append(ask, u)
		}
	}
	for l := range k.logins {
		if !here[l] {
			delete(k.logins, l)
		}
	}
	k.all = false
	for uid, is := range k.heard {
		if !is || k.expected[uid] == 0 {
			delete(k.heard, uid)
		}
	}
	return ask
}

// old says whether a certificate is two thirds through its life.
func old(now time.Time, c *twincert.Certificate) bool {
	return !now.Before(c.NotBefore.Add(c.NotAfter.Sub(c.NotBefore) * 2 / 3))
}

func askEvery(c *twincert.Certificate) time.Duration {
	return min(max(c.NotAfter.Sub(c.NotBefore)/100, leastAsk), mostAsk)
}

// What is said of a login that cannot be renewed.
const (
	problemNone     = "the CA has not certified the user anew"
	problemReplaced = "the user has new keys: only a new login brings them"
	problemGone     = "the directory has no valid certificate of the user any more"
)

// ask asks for a batch of logins; false: the directory did not answer.
func (k *Keeper) ask(ctx context.Context, batch []engine.User, succeeded map[login]bool) bool {
	holdings := make([]client.Holding, len(batch))
	for i, u := range batch {
		holdings[i] = client.Holding{UID: u.Key.User, ID: u.Certificate.ID()}
	}
	held, err := k.c.Ask(ctx, holdings)
	if err != nil {
		for _, u := range batch {
			k.note(u, func(w *watched) { w.problem = err.Error() })
		}
		return false
	}
	for i, u := range batch {
		problem, again := "", false
		switch h := held[i]; {
		case h.State == client.HoldingCurrent:
			problem = problemNone
		case h.State == client.HoldingReplaced:
			problem = problemReplaced
		case h.State == client.HoldingSucceeded && h.Successor != nil:
			err := k.c.Succeed(ctx, u, *h.Successor)
			switch {
			case err == nil:
				succeeded[loginOf(u)] = true
				k.c.Log.Info("user goes over to a newer certificate", "user", u.Key.User, "peer", u.Key.Peer)
			case errors.Is(err, engine.ErrGone):
			default:
				problem, again = err.Error(), true
				if k.problem(u) != problem { // it is tried again and again
					k.c.Log.Error("user's newer certificate not taken", "user", u.Key.User, "peer", u.Key.Peer, "error", err)
				}
			}
		default:
			problem = problemGone
		}
		k.note(u, func(w *watched) { w.due, w.asked, w.problem = again, k.c.Now(), problem })
	}
	return true
}

func (k *Keeper) note(u engine.User, f func(*watched)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if w := k.logins[loginOf(u)]; w != nil {
		f(w)
	}
}

// problem is what was noted of a login last.
func (k *Keeper) problem(u engine.User) (p string) {
	k.note(u, func(w *watched) { p = w.problem })
	return p
}

// warnTime is how long before its end a certificate is warned of.
func (k *Keeper) warnTime(c *twincert.Certificate) time.Duration {
	if t := k.c.Warn(); t > 0 {
		return t
	}
	return min(c.NotAfter.Sub(c.NotBefore)/10, mostWarn)
}

// warn logs each login once at each stage.
func (k *Keeper) warn(now time.Time, users []engine.User, succeeded map[login]bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, u := range users {
		w := k.logins[loginOf(u)]
		if w == nil || succeeded[loginOf(u)] {
			continue
		}
		left, from := w.notAfter.Sub(now), k.warnTime(u.Certificate)
		stage := 0
		switch {
		case left <= from/10:
			stage = stageLast
		case left <= from:
			stage = stageSoon
		}
		if stage <= w.stage {
			continue
		}
		w.stage = stage
		k.c.Log.Warn("user's certificate ends soon, and the call with it", "user", u.Key.User, "peer", u.Key.Peer, "serial", u.Certificate.Serial.String(),
			"in", left.Round(time.Second).String(), "not_after", w.notAfter, "reason", w.problem)
	}
}
