// Package admin is the router's control socket: HTTP with JSON over a Unix socket in the
// state directory that only the owner may open, its typed client, and what status shows.
//
//	GET  /status              Status
//	GET  /portal              Portal
//	POST /login  Login        Call, once it is up
//	POST /hangup Hangup       what ended
//	POST /passwd Passwd       changes a user's password
//	POST /reload              re-reads the configuration
//
// Passwords are base64 in the JSON and bytes in the types, so that both ends can wipe what they have of them; neither
// keeps a copy. What net/http has in its buffers is overwritten by what comes next, or garbage.
//
// A failure is a JSON object {"error", "hint"} with a 4xx or 5xx status.
package admin
