// Package board holds what routers answer ACME challenges with (RFC 8555 section 8.3). The CA cannot reach a portal on a LAN to
// ask it; so the router puts the answer here, over mutual TLS, and the CA's validation looks here instead of asking the network.
//
//	router  new order                        ─►  ACME       a token for each name and address
//	router  PUT identifier, token, answer    ─►  board      is it this router's? (issue.Desk)
//	router  challenge is ready               ─►  ACME ─► board: answer of (identifier, token)?
//
// What lies here is no secret. It is kept in memory, for ten minutes, and no more than so much of each router.
package board
