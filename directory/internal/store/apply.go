package store

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"twinkey/directory/client"
	"twinkey/pkg/twincert"
)

// Apply commits c as one transaction and returns the revision that it made, now or when
// it was applied before. It fails with client.ErrInvalid if c can never be applied, with
// client.ErrConflict if it contradicts what is stored.
func (r *Register) Apply(ctx context.Context, actor string, c client.Change) (client.Revision, error) {
	k, err := check(c)
	if err != nil {
		return 0, err
	}
	var rev client.Revision
	err = r.Write(ctx, actor, func(w *Writer) error {
		old, ok, err := get[change](w.tx, Changes, c.ChangeID)
		if err != nil {
			return err
		}
		if ok {
			rev = old.Revision
			if !bytes.Equal(old.Digest, k.digest[:]) {
				return conflict("change %s was applied before with other content", c.ChangeID)
			}
			return errApplied
		}
		rev = w.revision + 1
		w.visible, w.behalf, w.changeID = true, c.Actor, c.ChangeID
		return w.apply(k)
	})
	if errors.Is(err, errApplied) {
		err = nil
	}
	if err != nil {
		return 0, fmt.Errorf("applying change %s: %w", c.ChangeID, err)
	}
	return rev, nil
}

// errApplied ends a transaction that has nothing to do.
var errApplied = errors.New("already applied")

// Applied says whether a change was applied and by which revision.
func (r *Register) Applied(ctx context.Context, changeID string) (rev client.Revision, ok bool, err error) {
	err = r.Read(ctx, func(rd *Reader) error {
		var c change
		c, ok, err = get[change](rd.tx, Changes, changeID)
		rev = c.Revision
		return err
	})
	return rev, ok, err
}

func (w *Writer) apply(k *checked) error {
	// Certificates and groups first, the rest refers to them; revocations last, so that
	// nothing of this change outlives them.
	for _, step := range []func(*checked) error{w.applyCertificates, w.applyGroups, w.applyUsers, w.applyBundles, w.applySuccessors, w.applyRouters, w.applyDisable, w.applyRevocations, w.applyCRL, w.applySources} {
		if err := step(k); err != nil {
			return err
		}
	}
	return put(w.tx, Changes, k.ChangeID, change{Digest: k.digest[:], Revision: w.revision + 1})
}

func (w *Writer) applyCertificates(k *checked) error {
	for i, r := range k.Certificates {
		row := k.certs[i]
		old, ok, err := w.Certificate(r.ID)
		if err != nil {
			return err
		}
		if ok {
			if !bytes.Equal(old.DER, row.DER) {
				return conflict("another certificate is known as %s", r.ID)
			}
			continue
		}
		if err := put(w.tx, Certificates, r.ID.String(), row); err != nil {
			return err
		}
		w.Audit(AuditCertificate, row.Name, fmt.Sprintf("%s %s, valid until %s", row.Kind, r.ID, row.NotAfter.UTC().Format("2006-01-02 15:04:05Z")))
		if row.Kind == client.KindTwin {
			w.publish(client.Event{Kind: client.KindCertificate, Certificate: &client.Notice{ID: r.ID, Role: row.Role, Name: row.Name, Group: row.Group}})
		}
	}
	return nil
}

func (w *Writer) applyGroups(k *checked) error {
	for _, g := range k.Groups {
		// The CA sends the group along with its users: a register that was restored from an older copy may lack its present key.
		if old, ok, err := w.Group(g.Name); err != nil {
			return err
		} else if ok && bytes.Equal(old.Control, g.Control) {
			continue
		}
		if err := put(w.tx, Groups, g.Name, g); err != nil {
			return err
		}
		w.Audit(AuditGroup, g.Name, fmt.Sprintf("control key %x", g.Control))
	}
	return nil
}

func (w *Writer) applyUsers(k *checked) error {
	for _, u := range k.Users {
		if u.Group != "" {
			_, ok, err := w.Group(u.Group)
			if err != nil {
				return err
			}
			if !ok {
				return conflict("user %s: tunnel group %s is not known", u.UID, u.Group)
			}
		}
		if err := put(w.tx, Users, u.UID, u); err != nil {
			return err
		}
		detail := "group " + u.Group
		if u.Own { // what may be left of a time when the keys were here
			if err := w.tx.Delete(Bundles, []byte(u.UID)); err != nil {
				return err
			}
			detail += ", keys of their own"
		}
		if u.Source != "" {
			detail += ", of source " + u.Source
		}
		if u.Disabled {
			detail += ", disabled"
		}
		w.Audit(AuditUser, u.UID, detail)
	}
	return nil
}

// applyDisable closes logins. Whoever is not known here, in a copy from before they were added, cannot log in
// anyway: a revocation is not refused for that.
func (w *Writer) applyDisable(k *checked) error {
	for _, uid := range k.Disable {
		u, ok, err := w.User(uid)
		if err != nil {
			return err
		}
		if !ok || u.Disabled {
			continue
		}
		u.Disabled = true
		if err := put(w.tx, Users, uid, u); err != nil {
			return err
		}
		w.Audit(AuditUser, uid, "group "+u.Group+", disabled")
	}
	return nil
}

func (w *Writer) applyBundles(k *checked) error {
	for _, b := range k.Bundles {
		u, ok, err := w.User(b.UID)
		if err != nil {
			return err
		}
		if !ok {
			return conflict("bundle of user %s: the user is not known", b.UID)
		}
		if u.Own {
			return conflict("bundle of user %s: the user has keys of their own", b.UID)
		}
		row, err := w.current(b.ID, twincert.User, b.UID)
		if err != nil {
			return err
		}
		if row.Group != u.Group {
			return conflict("bundle of user %s: the certificate says group %q, the user's record %q", b.UID, row.Group, u.Group)
		}
		if err := w.checkControl(row); err != nil {
			return err
		}
		if err := put(w.tx, Bundles, b.UID, BundleRow{BundleRecord: b}); err != nil {
			return err
		}
		w.Audit(AuditBundle, b.UID, "for certificate "+b.ID.String())
	}
	return nil
}

// applySuccessors puts beside bundles what goes on from them. The data key must be the bundle's: it is all that
// opens a successor. The group is the user's of now, which may be another than when the keys were sealed.
func (w *Writer) applySuccessors(k *checked) error {
	for _, s := range k.Successors {
		b, ok, err := w.Bundle(s.UID)
		if err != nil {
			return err
		}
		if !ok {
			return conflict("successor of user %s: there are no sealed keys", s.UID)
		}
		row, err := w.current(s.ID, twincert.User, s.UID)
		if err != nil {
			return err
		}
		if err := w.checkControl(row); err != nil {
			return err
		}
		same, err := w.sameData(row, b.ID)
		if err != nil {
			return err
		}
		if !same {
			return conflict("successor of user %s: certificate %s has not the data key of %s, for which the keys are sealed", s.UID, s.ID, b.ID)
		}
		u, ok, err := w.User(s.UID)
		if err != nil {
			return err
		}
		if !ok || row.Group != u.Group {
			return conflict("successor of user %s: the certificate says group %q, the user's record %q", s.UID, row.Group, u.Group)
		}
		b.Successor = &s
		if err := put(w.tx, Bundles, s.UID, b); err != nil {
			return err
		}
		w.Audit(AuditBundle, s.UID, "successor, certificate "+s.ID.String())
	}
	return nil
}

// sameData says whether a certificate has the data key of the one that a bundle is for.
func (w *Writer) sameData(row CertRow, bundle twincert.ID) (bool, error) {
	of, ok, err := w.Certificate(bundle)
	if err != nil {
		return false, err
	}
	if !ok {
		return false, fmt.Errorf("%w: user %s has keys without a certificate", ErrDamaged, row.Name)
	}
	c, err := twincert.Parse(row.DER)
	if err != nil {
		return false, fmt.Errorf("%w: certificate of %s: %w", ErrDamaged, row.Name, err)
	}
	o, err := twincert.Parse(of.DER)
	if err != nil {
		return false, fmt.Errorf("%w: certificate of %s: %w", ErrDamaged, row.Name, err)
	}
	return c.Keys.Data == o.Keys.Data, nil
}

// checkControl sees to it that the users of a tunnel group share its control key: that is
// what makes their calls share a tunnel.
func (w *Writer) checkControl(row CertRow) error {
	if row.Group == "" {
		return nil
	}
	g, ok, err := w.Group(row.Group)
	if err != nil {
		return err
	}
	c, err := twincert.Parse(row.DER)
	if err != nil {
		return fmt.Errorf("%w: certificate of %s: %w", ErrDamaged, row.Name, err)
	}
	if !ok || !bytes.Equal(c.Keys.Control[:], g.Control) {
		return conflict("certificate of user %s: its control key is not that of group %s", row.Name, row.Group)
	}
	return nil
}

// current returns the row of a certificate that is about to become somebody's current
// one.
func (w *Writer) current(id twincert.ID, role twincert.Role, name string) (CertRow, error) {
	row, ok, err := w.Certificate(id)
	switch {
	case err != nil:
		return CertRow{}, err
	case !ok:
		return CertRow{}, conflict("certificate %s of %s %s is not known", id, role, name)
	case row.Kind != client.KindTwin || row.Role != role || row.Name != name:
		return CertRow{}, conflict("certificate %s is no twin certificate of %s %s", id, role, name)
	case w.Revoked(id):
		return CertRow{}, conflict("certificate %s of %s %s is revoked", id, role, name)
	}
	return row, nil
}

func (w *Writer) applyRouters(k *checked) error {
	for _, r := range k.Routers {
		row, err := w.current(r.ID, twincert.Router, r.Name)
		if err != nil {
			return err
		}
		c, err := twincert.Parse(row.DER)
		if err != nil {
			return fmt.Errorf("%w: certificate of %s: %w", ErrDamaged, r.Name, err)
		}
		rr, _, err := w.Router(r.Name)
		if err != nil {
			return err
		}
		// What the new certificate no longer covers is withdrawn with it.
		rr.Prefixes = slices.DeleteFunc(rr.Prefixes, func(p netip.Prefix) bool { return !c.Covers(p) })
		rr.ID, rr.Updated = r.ID, w.now
		if err := w.putRouter(r.Name, rr, row); err != nil {
			return err
		}
		w.Audit(AuditRouter, r.Name, "current certificate "+r.ID.String())
	}
	return nil
}

func (w *Writer) putRouter(name string, rr RouterRow, row CertRow) error {
	if err := put(w.tx, Routers, name, rr); err != nil {
		return err
	}
	s := site(name, rr, row)
	w.publish(client.Event{Kind: client.KindSite, Site: &s})
	return nil
}

func site(name string, rr RouterRow, row CertRow) client.Site {
	return client.Site{Name: name, Endpoint: rr.Endpoint, Prefixes: rr.Prefixes, Certificate: row.DER, ID: rr.ID, Updated: rr.Updated}
}

func (w *Writer) applyRevocations(k *checked) error {
	for _, r := range k.Revocations {
		if err := w.revoke(r); err != nil {
			return err
		}
	}
	return nil
}

// revoke withdraws one certificate for good, and the sealed keys of the user whose present one it is. The keys
// that were sealed for an older one stay: its successor goes on from them.
func (w *Writer) revoke(r client.Revocation) error {
	if w.Revoked(r.ID) {
		return nil
	}
	row, ok, err := w.Certificate(r.ID)
	if err != nil {
		return err
	}
	if ok && r.Name == "" {
		r.Name, r.Role = row.Name, row.Role
	}
	if err := put(w.tx, Revoked, r.ID.String(), r); err != nil {
		return err
	}
	if ok && row.Role == twincert.User {
		b, found, err := w.Bundle(row.Name)
		if err != nil {
			return err
		}
		if found && b.Current() == r.ID {
			if err := w.tx.Delete(Bundles, []byte(row.Name)); err != nil {
				return err
			}
		}
	}
	w.Audit(AuditRevoked, r.Name, fmt.Sprintf("certificate %s: %s", r.ID, r.Reason))
	w.publish(client.Event{Kind: client.KindRevoked, Revoked: &r})
	return nil
}

// applyCRL stores a CRL unless a newer one is there, and revokes what it lists and the
// register has not heard of: so a register restored from an old copy learns what it had
// known with the next CRL.
func (w *Writer) applyCRL(k *checked) error {
	if k.crl == nil {
		return nil
	}
	for _, r := range crlRevocations(k.crl) {
		if err := w.revoke(r); err != nil {
			return err
		}
	}
	if old := w.tx.Get(CRL, []byte(crlKey)); old != nil {
		l, err := x509.ParseRevocationList(old)
		if err != nil {
			return fmt.Errorf("%w: stored CRL: %w", ErrDamaged, err)
		}
		if bytes.Equal(l.RawIssuer, k.crl.RawIssuer) && k.crl.Number.Cmp(l.Number) <= 0 {
			return nil
		}
	}
	if err := w.tx.Put(CRL, []byte(crlKey), k.CRL); err != nil {
		return err
	}
	w.Audit(AuditCRL, "number "+k.crl.Number.String(), fmt.Sprintf("%d entries, valid until %s", len(k.crl.RevokedCertificateEntries), k.crl.NextUpdate.UTC().Format("2006-01-02 15:04:05Z")))
	w.publish(client.Event{Kind: client.KindCRL})
	return nil
}

// applySources notes whether the CA has sources.
func (w *Writer) applySources(k *checked) error {
	if k.Sources == nil || *k.Sources == w.Sources() {
		return nil
	}
	if !*k.Sources {
		w.Audit(AuditVouch, everybody, "the CA has no sources any more")
		return w.tx.Delete(Meta, []byte(metaSources))
	}
	w.Audit(AuditVouch, everybody, "the CA has sources: about users who are not known here it is asked first")
	return w.tx.Put(Meta, []byte(metaSources), []byte{1})
}

// everybody is the subject of an audit record that concerns no one user.
const everybody = "*"
