package l2tp

import (
	"crypto/md5" //nolint:gosec // RFC 2661 5.1.1 says MD5
	"crypto/subtle"

	"twinkey/proto/secret"
)

// ResponseLen is the length of a Challenge Response, in bytes.
const ResponseLen = md5.Size

// ChallengeResponse answers the Challenge of the peer's SCCRQ or SCCRP: CHAP's MD5 over the
// type of the message that carries the answer (SCCRP or SCCCN), the shared secret and the
// challenge (RFC 2661 4.4.3, 5.1.1).
func ChallengeResponse(in MessageType, s secret.Key, challenge []byte) [ResponseLen]byte {
	h := md5.New() //nolint:gosec // RFC 2661 5.1.1 says MD5
	h.Write([]byte{byte(in)})
	h.Write(s.Bytes())
	h.Write(challenge)
	var r [ResponseLen]byte
	h.Sum(r[:0])
	return r
}

// CheckResponse says, in constant time, whether m answers our challenge. No answer, and
// an empty secret, are wrong ones.
func (m *Message) CheckResponse(s secret.Key, challenge []byte) bool {
	got, ok := m.Get(AVPChallengeResponse)
	if !ok || s.Len() == 0 || len(challenge) == 0 {
		return false
	}
	want := ChallengeResponse(m.Type, s, challenge)
	return subtle.ConstantTimeCompare(got, want[:]) == 1
}
