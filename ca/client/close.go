package client

import (
	"context"
	"crypto/ecdh"
	"errors"
	"fmt"
	"net/http"

	"twinkey/pkg/identity"
)

// FetchCloseKey asks for the key that CloseProof is made for. It does not change as long as the CA's group key does not.
func FetchCloseKey(ctx context.Context, caURL string, id *identity.Identity) (*ecdh.PublicKey, error) {
	const op = "asking for the CA's key for ends of sessions"
	s := newSession(caURL, id.ClientTLS(caURI))
	defer s.close()
	var t Trust
	if err := s.call(ctx, op, http.MethodGet, PathTrust, nil, &t); err != nil {
		return nil, err
	}
	if t.Close == nil {
		return nil, &Error{Op: op, Code: CodeUnavailable, Err: errors.New("it has none: the CA is of an older version")}
	}
	k, err := ecdh.X25519().NewPublicKey(t.Close)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", op, ErrAnswer, err)
	}
	return k, nil
}

// Close asks the CA to revoke certificates of users whose last call at the router that id is has ended. It returns the
// serials of those that the CA does not revoke for this router; trying again would not help. Of all others they are
// revoked when it returns nil: routers hear of it from the directory. Asking twice is asking once.
func Close(ctx context.Context, caURL string, id *identity.Identity, closed []Closed) (refused []string, err error) {
	s := newSession(caURL, id.ClientTLS(caURI))
	defer s.close()
	var a CloseAnswer
	err = s.call(ctx, "having certificates revoked at the end of sessions", http.MethodPost, PathClose, CloseRequest{closed}, &a)
	return a.Refused, err
}
