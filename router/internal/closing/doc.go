// Package closing has the CA revoke a user's certificate when the user's last call from this router has ended, or the last session of a
// machine of their own in front of which this router is, where the policy says revoke-on-close (the paper, section 2 step 6).
//
//	engine ── Add: certificate, data key
//	            |   proof = MAC under X25519(data key, the CA's key), over router and certificate (ca/client CloseProof)
//	            |   the engine wipes the data key
//	            v
//	          queue ──► closing.json in the state directory
//	            |
//	            └─ batches, oldest first, over mutual TLS ──► CA: is the user in this router's scope? is the proof right?
//	                 again and again until told, 1 s to 1 min apart
//
// For a user's own machine, whose keys are not here, the proof comes from there when the session begins, and waits in the engine (package
// voluntary, Close); it is the same over the same:
//
//	client ── proof ──► voluntary ──► engine ── AddProved: certificate, proof, when the session is over ──► queue
//
// It is the only way in which a router can have anything revoked. Why a proof by the key, and not the directory's note
// that it released the key: the note would let a router that was broken into revoke everybody who was ever logged in at
// it; with the proof it can revoke those whose keys it has now.
//
// The proof is made against a key of the CA that stays the same, so that nothing has to be asked when the session ends.
// That key is fetched once in a run and kept in the same file. Only as long as it has never been had does a data key wait here,
// in memory. What waits outlives a stop of the router, in good order or not, except in the moment between the end of a
// session and the write that follows at once.
//
// What the CA refuses is counted and not asked again.
package closing
