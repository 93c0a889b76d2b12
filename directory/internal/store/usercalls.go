package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"

	"twinkey/directory/client"
	"twinkey/pkg/twincert"
)

const (
	metaUserCalls = "user-calls/" // and the source's name
	// maxUserCalls is how many records of a source wait for the CA: two days of a thousand users, with one each every few
	// minutes. Of a CA that is away for longer the oldest are lost.
	maxUserCalls = 300_000
)

// userCallKey orders the records of a source behind one another; no name has a 0 in it.
func userCallKey(source string, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(append([]byte(source), 0), seq)
}

// tellSource queues for the CA what a router told of the call of somebody who logged in there, if that is a user of a
// source whom the router may have. The end of a call passes even so: the user may have come into another group meanwhile.
func (w *Writer) tellSource(router *twincert.Certificate, run string, c client.CallRecord) error {
	if c.User == "" || !c.Initiator {
		return nil
	}
	u, ok, err := w.User(c.User)
	if err != nil || !ok || u.Source == "" {
		return err
	}
	if c.Event != client.CallDown && !twincert.InScope(router.Scope, c.User, u.Group) {
		return nil
	}
	newest, err := number(w.tx, metaUserCalls+u.Source)
	if err != nil {
		return err
	}
	newest++
	c.Reason = client.CutReason(c.Reason)
	b, err := json.Marshal(client.UserCall{Seq: newest, Router: router.Name, Run: run, Record: c})
	if err != nil {
		return fmt.Errorf("encoding a record of a call: %w", err)
	}
	if err := w.tx.Put(UserCalls, userCallKey(u.Source, newest), b); err != nil {
		return err
	}
	if newest > maxUserCalls {
		if err := w.dropUserCalls(u.Source, newest-maxUserCalls); err != nil {
			return err
		}
	}
	return putNumber(w.tx, metaUserCalls+u.Source, newest)
}

// dropUserCalls forgets the records of a source up to and including one.
func (w *Writer) dropUserCalls(source string, upTo uint64) error {
	var old [][]byte
	last := userCallKey(source, upTo)
	for k := range w.tx.Range(UserCalls, userCallKey(source, 0)) {
		if bytes.Compare(k, last) > 0 {
			break
		}
		old = append(old, bytes.Clone(k))
	}
	for _, k := range old {
		if err := w.tx.Delete(UserCalls, k); err != nil {
			return err
		}
	}
	return nil
}

// userCalls returns the records of a source after one, client.MaxCalls at the most, and whether there are any up to that
// one.
func (r *Reader) userCalls(source string, after uint64) (out client.UserCalls, old bool, err error) {
	if out.Newest, err = number(r.tx, metaUserCalls+source); err != nil {
		return out, false, err
	}
	out.Calls = []client.UserCall{}
	if after > out.Newest { // dealt with are records of a future that this copy has not seen
		return out, false, nil
	}
	prefix := userCallKey(source, 0)[:len(source)+1]
	for k := range r.tx.Range(UserCalls, prefix) {
		old = bytes.HasPrefix(k, prefix) && bytes.Compare(k, userCallKey(source, after)) <= 0
		break
	}
	for k, v := range r.tx.Range(UserCalls, userCallKey(source, after+1)) {
		if !bytes.HasPrefix(k, prefix) || len(out.Calls) == client.MaxCalls {
			break
		}
		c, err := decode[client.UserCall](UserCalls, k, v)
		if err != nil {
			return out, false, err
		}
		out.Calls = append(out.Calls, c)
	}
	return out, old, nil
}

// UserCalls returns what routers told of calls of a source's users after record number after, client.MaxCalls at the most,
// and forgets what came up to there. If that is more than there ever were, nothing is forgotten and nothing returned: the
// answer's Newest tells.
func (r *Register) UserCalls(ctx context.Context, actor, source string, after uint64) (out client.UserCalls, err error) {
	if err := twincert.CheckName(source); err != nil {
		return out, invalid("source %q: %w", source, err)
	}
	var old bool
	err = r.Read(ctx, func(rd *Reader) (err error) {
		out, old, err = rd.userCalls(source, after)
		return err
	})
	if err != nil || !old {
		return out, err
	}
	return out, r.Write(ctx, actor, func(w *Writer) error { return w.dropUserCalls(source, after) })
}
