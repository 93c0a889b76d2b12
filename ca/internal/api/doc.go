// Package api serves the CA: to everybody by TLS, to its operator by a Unix socket.
//
// The TLS port takes connections without a client certificate, and with one that has
// expired: a renewal within the grace needs that. So crypto/tls proves only that the
// client holds the certificate's key; chain, term and bearer are checked per request.
// A login needs one that has not. What ca/client documents is answered here, all else by smallstep's handlers.
//
// The Unix socket is the operator's: whoever may open it (0600) may issue and revoke. The
// kernel says who that is (SO_PEERCRED), and it stands in the audit record.
//
//	GET  /v1/status                  Status
//	GET  /v1/users  /v1/users/{uid}  User; of one with its certificates (UserDetail)
//	POST /v1/users                   AddUser     -> User
//	POST /v1/users/{uid}/revoke      Reason      -> Revoked
//	POST /v1/users/{uid}/allow       {}          -> User
//	POST /v1/users/{uid}/renew                   -> User, with the same keys
//	GET  /v1/groups  /v1/groups/{g}  Group
//	POST /v1/groups                  NewGroup    -> Group
//	POST /v1/groups/{g}/rotate       Rotate      -> Group; the rest goes on by itself
//	GET  /v1/routers  .../{name}     Router
//	POST /v1/routers/{name}/revoke   Reason      -> Revoked
//	GET  /v1/tokens                  []Token
//	POST /v1/tokens                  NewToken    -> Token, with its secret
//	POST /v1/sign-tokens             NewSignToken -> SignToken
//	GET  /v1/certs?role&name         []CertState
//	GET  /v1/certs/{serial}          Cert
//	GET  /v1/crl                     DER;  POST makes a new one first
//
// Limits: connections, requests per address, sizes and times are bounded by the constants
// of this package.
package api
