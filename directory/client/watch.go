package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"time"
)

// SilenceLimit is how long a watch may say nothing: three heartbeats.
const SilenceLimit = 15 * time.Second

var errSilent = errors.New("nothing was heard for longer than three heartbeats")

// Watch yields what changed after revision since, in order, until ctx ends, the caller
// stops or the stream fails; then it yields one error and ends. Its first event is
// KindSync. Events of one revision are yielded together, once all have arrived: whoever
// stops after any number of whole revisions resumes from the last Event.Revision.
func (c *Client) Watch(ctx context.Context, since Revision) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		silence := time.AfterFunc(SilenceLimit, func() { cancel(errSilent) })
		defer silence.Stop()

		const op = "watching the directory"
		res, err := c.send(ctx, op, http.MethodGet, fmt.Sprintf("%s?since=%d", PathWatch, since), nil)
		if err != nil {
			yield(Event{}, because(ctx, err))
			return
		}
		defer func() { _ = res.Body.Close() }()

		var held []Event
		lines := bufio.NewScanner(res.Body)
		lines.Buffer(nil, MaxEvent)
		for lines.Scan() {
			silence.Reset(SilenceLimit)
			var e Event
			if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
				yield(Event{}, &Error{Op: op, Code: CodeUnavailable, Err: fmt.Errorf("decoding an event: %w", err)})
				return
			}
			if held = append(held, e); len(held) > MaxRevisionEvents {
				yield(Event{}, &Error{Op: op, Code: CodeUnavailable, Message: "a revision without end"})
				return
			}
			if e.More {
				continue
			}
			silence.Stop() // the caller's time is not the directory's silence
			for _, e := range held {
				if !yield(e, nil) {
					return
				}
			}
			held = held[:0]
			silence.Reset(SilenceLimit)
		}
		err = lines.Err()
		if err == nil {
			err = errors.New("the directory ended the stream")
		}
		yield(Event{}, because(ctx, &Error{Op: op, Code: CodeUnavailable, Err: err}))
	}
}

// because puts the reason why ctx ended before an error that only says that it did.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return &Error{Op: "watching the directory", Code: CodeUnavailable, Err: cause}
	}
	return err
}
