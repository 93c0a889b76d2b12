// Package portal is the web page at which users log in, on the LAN side of the router. What it asks of the router is what the
// control socket's commands ask; whoever the password convinces there it convinces here.
//
//	GET  /            nobody here: the login form; somebody: the state of their session, made anew every few seconds; a machine that
//	                  encrypts by itself (package voluntary): that it does, whose it is, since when
//	GET  /login       the form in any case but the last, for one more site
//	POST /login       csrf, uid, password, peer      303 to /, or the form again with what went wrong; from a machine that encrypts by
//	                                                 itself no password is tried
//	POST /logout      csrf                           303 to /
//	GET  /password    somebody here: the form to change their password, or that it was changed; nobody: 303 to /
//	POST /password    csrf, password, new, again     303 to /password?changed, with another cookie, or the form again with what went wrong
//	GET  /captive     RFC 8908, if it is switched on
//	GET  /style.css
//	anything at the HTTP listener                    302 to the portal
//
// A user is the address that the TCP connection comes from: the one that the call is going to carry. Nothing that a browser says
// of itself counts (no X-Forwarded-For). Who may see and end a session is decided by three things together: the cookie, the address,
// and a login of that user that still stands in the engine; with the login the session ends.
//
//	cookie          __Host-twinkey       32 random bytes; here only their SHA-256
//	                __Host-twinkey-form  the same before there is a session, remembered nowhere
//	csrf            HMAC-SHA256(a key of this process, cookie and address): good for one browser at one address
//	Origin, Sec-Fetch-Site, Host         must be this page
//
// Whoever is logged in here changes their own password and nobody else's: the session says whose it is. The old one is proved as at a login, within the same
// limits, and a wrong one counts as there. Keys and certificate stay the same, so the calls go on, and so do the same user's sessions at other addresses, which
// stand on calls of their own. To a user whom a source authenticates the answer is that to a wrong password.
//
// No page needs JavaScript, and none is allowed (Content-Security-Policy). Nothing is loaded from elsewhere, nothing is to be kept by
// a browser. Before a password costs a key derivation a place in a short queue is needed, and before that a token of the address's
// bucket; what is derived beside each other leaves half of the cores to packets. Of wrong passwords there may be fewer than would have
// the directory lock the router.
package portal
