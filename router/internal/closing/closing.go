package closing

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"twinkey/ca/client"
	"twinkey/pkg/twincert"
	"twinkey/proto/secret"
	"twinkey/router/internal/native"
)

const (
	// maxWaiting is how many certificates wait at the most: more sessions than end while a CA is away.
	maxWaiting = 10_000
	firstRetry = time.Second
	lastRetry  = time.Minute
	// attemptTime bounds one question to the CA, which may wait for the directory; farewell what is asked when the router stops.
	attemptTime = 45 * time.Second
	farewell    = 2 * time.Second
)

// Config of a Queue.
type Config struct {
	Path   string // of the file
	Router string // our name
	// Wanted says whether the policy of now has certificates revoked, so that the CA's key is had before it is needed.
	Wanted func() bool
	// Key is client.FetchCloseKey, Tell is client.Close.
	Key  func(ctx context.Context) (*ecdh.PublicKey, error)
	Tell func(ctx context.Context, closed []client.Closed) (refused []string, err error)
	Log  *slog.Logger
}

// Queue holds what the CA has not been told yet. Its methods are safe for concurrent use.
type Queue struct {
	c    Config
	wake chan struct{}

	mu      sync.Mutex
	key     *ecdh.PublicKey // the CA's; nil: not known yet
	asked   bool            // for it, in this run: a CA that was made anew has another
	waiting []waiting       // oldest first
	refused uint64
	lost    uint64 // there was no room
	problem error  // why the last attempt failed
	dirty   bool   // the file does not have all of it
}

// waiting is a certificate that is to be revoked.
type waiting struct {
	user, serial string
	since        time.Time
	proof        []byte
	// Until there is a proof: the data key, ours to wipe, and the certificate.
	data        secret.Key
	certificate []byte
}

// Status is what an operator may want to see.
type Status struct {
	Waiting int
	Since   time.Time // of the oldest
	Problem string
	Refused uint64 // by the CA, since the start
	Lost    uint64 // for want of room, since the start
}

// Open reads what a former run of the router left.
func Open(c Config) (*Queue, error) {
	q := &Queue{c: c, wake: make(chan struct{}, 1)}
	f, err := load(c.Path)
	if err != nil {
		return nil, err
	}
	q.key = f.key
	q.waiting = f.waiting
	return q, nil
}

// Add queues the certificate of a session that has ended. It does not wait for anything and keeps no key of c.
func (q *Queue) Add(c native.Credentials) {
	w := waitingFor(c.Certificate)
	w.data, w.certificate = secret.Copy(c.Data.Private.Bytes()), c.Certificate.Raw
	q.add(w)
}

// AddProved queues the certificate of a session whose end the user's own machine has proved beforehand, by ca/client CloseProof and Key. Whether the
// proof is right the CA alone can tell.
func (q *Queue) AddProved(c *twincert.Certificate, proof []byte) {
	w := waitingFor(c)
	w.proof = bytes.Clone(proof)
	q.add(w)
}

func waitingFor(c *twincert.Certificate) waiting {
	return waiting{user: c.Name, serial: c.Serial.String(), since: time.Now().UTC().Truncate(time.Second)}
}

func (q *Queue) add(w waiting) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if slices.ContainsFunc(q.waiting, func(o waiting) bool { return o.serial == w.serial }) {
		w.data.Wipe()
		return
	}
	if len(q.waiting) >= maxWaiting {
		q.lost++
		w.data.Wipe()
		return
	}
	if q.key != nil && w.proof == nil {
		q.prove(&w)
	}
	q.waiting, q.dirty = append(q.waiting, w), true
	q.Again()
}

// Key is the CA's, against which ends of sessions are proved; nil: it was never had.
func (q *Queue) Key() []byte {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.key == nil {
		return nil
	}
	return q.key.Bytes()
}

// Again has the queue looked at soon: something in it or in the policy has changed.
func (q *Queue) Again() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// prove replaces the data key by what proves it.
func (q *Queue) prove(w *waiting) {
	defer w.data.Wipe()
	own, err := ecdh.X25519().NewPrivateKey(w.data.Bytes())
	if err == nil {
		w.proof, err = client.CloseProof(own, q.key, q.c.Router, w.certificate)
	}
	if err != nil { // a key of the CA that is none: Key does not return such
		q.c.Log.Error("end of a session not proved", "user", w.user, "error", err)
		w.proof = make([]byte, proofLen)
	}
	w.data, w.certificate = secret.Key{}, nil
}

// Status takes a snapshot.
func (q *Queue) Status() Status {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := Status{Waiting: len(q.waiting), Refused: q.refused, Lost: q.lost}
	if len(q.waiting) > 0 {
		s.Since = q.waiting[0].since
	}
	if q.problem != nil {
		s.Problem = q.problem.Error()
	}
	return s
}

// Run tells the CA until ctx ends, and then tries once more. What is left then is in the file.
func (q *Queue) Run(ctx context.Context) {
	var pause time.Duration
	for {
		err := q.attempt(ctx, attemptTime)
		q.note(ctx, err)
		var again <-chan time.Time
		if err != nil {
			pause = max(firstRetry, min(2*pause, lastRetry))
			again = time.After(pause)
		} else {
			pause = 0
		}
		for waits := true; waits; {
			select {
			case <-ctx.Done():
				q.leave(ctx)
				return
			case <-again:
				waits = false
			case <-q.wake:
				if again == nil {
					waits = false
				} else if err := q.save(); err != nil { // told later, but written now
					q.c.Log.Error("ends of sessions not written", "error", err)
				}
			}
		}
	}
}

// leave is the last attempt.
func (q *Queue) leave(ctx context.Context) {
	last, stop := context.WithTimeout(context.WithoutCancel(ctx), farewell)
	defer stop()
	err := q.attempt(last, farewell)
	q.mu.Lock()
	defer q.mu.Unlock()
	unproved := 0
	for i := range q.waiting {
		if q.waiting[i].proof == nil {
			q.waiting[i].data.Wipe()
			unproved++
		}
	}
	if len(q.waiting) > unproved {
		q.c.Log.Warn("certificates not revoked yet: the next start goes on with it", "certificates", len(q.waiting)-unproved, "error", err)
	}
	if unproved > 0 {
		q.c.Log.Error("certificates of ended sessions are not revoked: the CA could not be reached since the router started", "certificates", unproved, "error", err)
	}
}

// note logs when trouble begins and when it is over.
func (q *Queue) note(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case err != nil && q.problem == nil:
		q.c.Log.Warn("the CA cannot be told of ended sessions", "certificates", len(q.waiting), "error", err)
	case err == nil && q.problem != nil:
		q.c.Log.Info("the CA is told of ended sessions again")
	}
	q.problem = err
}

// attempt writes the file, sees to the CA's key and tells the CA all that waits.
func (q *Queue) attempt(ctx context.Context, patience time.Duration) error {
	ctx, stop := context.WithTimeout(ctx, patience)
	defer stop()
	if err := errors.Join(q.save(), q.haveKey(ctx)); err != nil {
		return err
	}
	for {
		batch := q.batch()
		if len(batch) == 0 {
			return q.save()
		}
		refused, err := q.c.Tell(ctx, batch)
		if err != nil {
			return err
		}
		q.told(batch, refused)
		if err := q.save(); err != nil {
			return err
		}
	}
}

// haveKey fetches the CA's key if it is or will be needed, and proves what waits for it. The one of a former run will do
// where the CA does not answer.
func (q *Queue) haveKey(ctx context.Context) error {
	q.mu.Lock()
	have, need := q.key != nil, !q.asked && (len(q.waiting) > 0 || q.c.Wanted())
	q.mu.Unlock()
	if !need {
		return nil
	}
	k, err := q.c.Key(ctx)
	if err != nil {
		if have {
			return nil
		}
		return err
	}
	q.mu.Lock()
	q.dirty = q.dirty || !have || !k.Equal(q.key)
	q.key, q.asked = k, true
	for i := range q.waiting {
		if q.waiting[i].proof == nil {
			q.prove(&q.waiting[i])
		}
	}
	q.mu.Unlock()
	return q.save()
}

func (q *Queue) batch() (b []client.Closed) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, w := range q.waiting[:min(len(q.waiting), client.MaxClosed)] {
		b = append(b, client.Closed{Serial: w.serial, Proof: w.proof})
	}
	return b
}

// told takes a batch off the queue.
func (q *Queue) told(batch []client.Closed, refused []string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, w := range q.waiting[:len(batch)] {
		if slices.Contains(refused, w.serial) {
			q.refused++
			q.c.Log.Error("the CA does not revoke a certificate at the end of a session", "user", w.user, "serial", w.serial,
				"hint", "is the user in this router's scope? the CA's log has the reason")
			continue
		}
		q.c.Log.Info("certificate revoked at the end of the session", "user", w.user, "serial", w.serial)
	}
	q.waiting = slices.Clone(q.waiting[len(batch):])
	q.dirty = true
}

// save writes the file if it lacks something. Run alone calls it.
func (q *Queue) save() error {
	q.mu.Lock()
	if !q.dirty {
		q.mu.Unlock()
		return nil
	}
	c := contents{q.key, slices.Clone(q.waiting)}
	q.dirty = false
	q.mu.Unlock() // Add must not wait for the disk
	if err := store(q.c.Path, c); err != nil {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.dirty = true
		return fmt.Errorf("writing %s: %w", q.c.Path, err)
	}
	return nil
}
