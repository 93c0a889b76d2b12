package store

import (
	"context"
	"fmt"

	"twinkey/directory/client"
)

// unknownGap is added to the revision of a restored copy when nobody can say how far the
// register that it replaces had come.
const unknownGap = 1 << 20

// Supersede makes r, an older copy, the successor of old: revisions go on from the higher
// of both, so that every watcher notices and fetches all anew; whatever old knew to be
// revoked stays revoked. old is nil if it cannot be read. It returns how many revocations
// were carried over.
func (r *Register) Supersede(ctx context.Context, actor string, old *Register) (carried int, err error) {
	var newest client.Revision
	var revoked []client.Revocation
	if old != nil {
		err := old.Read(ctx, func(rd *Reader) (err error) {
			if newest, err = rd.Revision(); err != nil {
				return err
			}
			revoked, err = rd.Revocations()
			return err
		})
		if err != nil {
			return 0, fmt.Errorf("reading what is to be replaced: %w", err)
		}
	}
	err = r.Write(ctx, actor, func(w *Writer) error {
		copied := w.revision
		for _, rev := range revoked {
			if w.Revoked(rev.ID) {
				continue
			}
			carried++
			if err := w.revoke(rev); err != nil {
				return err
			}
		}
		if w.revision = max(copied, newest); old == nil {
			w.revision += unknownGap
		}
		w.visible, w.reset = true, true
		w.Audit(AuditRestore, "register", fmt.Sprintf("copy of revision %d in place of revision %d, %d revocations carried over", copied, newest, carried))
		return nil
	})
	return carried, err
}
