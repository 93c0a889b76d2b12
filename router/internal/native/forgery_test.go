package native_test

import (
	"twinkey/proto/esp"
	"twinkey/proto/l2tp"
	"twinkey/router/internal/calls"
)

// forgeries are the messages with which a stranger might hope to end a tunnel or a call.
func forgeries(*calls.Call) []func(tunnel, session uint16) []byte {
	forge := func(t l2tp.MessageType, inSession bool) func(tunnel, session uint16) []byte {
		return func(tunnel, session uint16) []byte {
			h := l2tp.ControlHeader{TunnelID: tunnel, Ns: 4, Nr: 4}
			if inSession {
				h.SessionID = session
			}
			return l2tp.AppendMessage(esp.AppendMarker(nil), h, 0, t, l2tp.Result{Code: 1}.AVP(), l2tp.Uint16(l2tp.AVPAssignedTunnelID, 9), l2tp.Uint16(l2tp.AVPAssignedSessionID, session))
		}
	}
	return []func(tunnel, session uint16) []byte{forge(l2tp.StopCCN, false), forge(l2tp.CDN, true)}
}
