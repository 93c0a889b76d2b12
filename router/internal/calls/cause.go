package calls

// Cause is why a call ended, as far as causes are told apart.
type Cause uint8

// The causes.
const (
	OtherCause Cause = iota
	Logout           // the user's, or the operator's word for it
	Lost             // the network or the peer went away
	Idle
	SessionOver // its time, or that of the certificate
	Revoked
	Shutdown // of this router
)
