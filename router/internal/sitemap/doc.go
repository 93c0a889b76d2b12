// Package sitemap keeps a router's picture of the others in step with the directory:
// who there is, what each is certified for and announces, and what was revoked.
//
//	Sites, Revoked, CRL ──► whole picture ──► Sink
//	Watch (stream)      ──► revocations at once, a changed site ──► Sink
//	stream ends         ──► back off, begin again; the picture stays what it was,
//	                        but for what the CA's own CRL revokes, which is fetched meanwhile
//
// What the directory says of a site is taken only as far as the site's own certificate,
// verified here, bears it out: a prefix that no certificate covers is refused.
package sitemap
