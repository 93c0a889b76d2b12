// Package identity keeps the keys and certificates of one box: CA, directory or router.
//
//	DIR/                  0700
//	  current -> gen-N    what counts; one rename swaps it
//	  gen-N/              0700, every file 0600
//	    root.pem            trust anchors
//	    intermediates.pem
//	    tls.pem, tls.key    ECDSA P-256, chain leaf first; one URI name twinkey://...
//	    twin.pem            routers: twin certificate
//	    control.key, data.key   its X25519 private keys
//
// An identity is old or new, never half of each: what was written before the process
// died is not looked at until the link names it. A file that others may read is refused.
package identity
