package accounting

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"twinkey/directory/client"
)

const (
	// maxQueue is how many records wait at the most: a working day of a thousand users.
	maxQueue = 10_000
	// gather is how long the first record waits for others, so that a thousand logins are a few requests.
	gather     = 500 * time.Millisecond
	firstRetry = time.Second
	lastRetry  = time.Minute
	// sendTime bounds one attempt, farewell the one when the router stops.
	sendTime = 10 * time.Second
	farewell = 2 * time.Second
)

// Send hands records to the directory: client.Client.ReportCalls.
type Send func(ctx context.Context, run string, records []client.CallRecord) error

// Reporter queues records and delivers them. Its methods are safe for concurrent use.
type Reporter struct {
	send Send
	run  string
	log  *slog.Logger
	wake chan struct{}

	mu    sync.Mutex
	queue []client.CallRecord
	seq   uint64
	lost  uint64
}

// New returns a Reporter; run names this run of the router and no other.
func New(send Send, run string, log *slog.Logger) *Reporter {
	return &Reporter{send: send, run: run, log: log, wake: make(chan struct{}, 1)}
}

// Add queues a record and gives it its number.
func (r *Reporter) Add(c client.CallRecord) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.queue) >= maxQueue {
		r.lost++
		return
	}
	r.push(c)
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *Reporter) push(c client.CallRecord) {
	r.seq++
	c.Seq = r.seq
	r.queue = append(r.queue, c)
}

// Waiting is how many records are not delivered yet.
func (r *Reporter) Waiting() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.queue)
}

// Run delivers until ctx ends, and then tries once more.
func (r *Reporter) Run(ctx context.Context) {
	pause := gather
	failing := false
	for {
		select {
		case <-ctx.Done():
			last, stop := context.WithTimeout(context.WithoutCancel(ctx), farewell)
			defer stop()
			if err := r.deliver(last); err != nil {
				r.log.Warn("calls not accounted for", "records", r.Waiting(), "error", err)
			}
			return
		case <-r.wake:
		}
		for more := true; more; {
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				more = false
				continue
			}
			err := r.deliver(ctx)
			more = err != nil
			switch {
			case err == nil:
				if failing {
					r.log.Info("calls are accounted for again")
				}
				pause, failing = gather, false
			case ctx.Err() == nil:
				if !failing {
					r.log.Warn("calls not accounted for yet", "records", r.Waiting(), "error", err)
				}
				pause, failing = max(firstRetry, min(2*pause, lastRetry)), true
			}
		}
	}
}

// deliver sends all records, oldest first. After an error those that are left have to be sent again.
func (r *Reporter) deliver(ctx context.Context) error {
	for {
		r.mu.Lock()
		batch := append([]client.CallRecord(nil), r.queue[:min(len(r.queue), client.MaxCalls)]...)
		r.mu.Unlock()
		if len(batch) == 0 {
			return nil
		}
		err := r.attempt(ctx, batch)
		if never(err) && len(batch) > 1 { // one of them: the others must not go with it
			batch = batch[:1]
			err = r.attempt(ctx, batch)
		}
		refused := never(err)
		if err != nil && !refused {
			return err
		}
		if refused {
			r.log.Error("the directory does not take a record of a call", "call", batch[0].Call, "user", batch[0].User, "error", err)
		}
		r.mu.Lock()
		if refused && batch[0].Event != client.CallsLost {
			r.lost++
		}
		r.queue = r.queue[len(batch):]
		if len(r.queue) == 0 {
			r.queue = nil
		}
		r.tellLost(time.Now())
		r.mu.Unlock()
	}
}

func (r *Reporter) attempt(ctx context.Context, batch []client.CallRecord) error {
	ctx, stop := context.WithTimeout(ctx, sendTime)
	defer stop()
	return r.send(ctx, r.run, batch)
}

// never says that the directory will not take it later either: it is an older one, or we should not have said it.
func never(err error) bool {
	return errors.Is(err, client.ErrInvalid) || errors.Is(err, client.ErrNotFound)
}

// tellLost queues how many records were lost, if there is room.
func (r *Reporter) tellLost(now time.Time) {
	if r.lost > 0 && len(r.queue) < maxQueue {
		lost := r.lost
		r.lost = 0
		r.push(client.CallRecord{Time: now.UTC(), Event: client.CallsLost, Lost: lost})
	}
}
