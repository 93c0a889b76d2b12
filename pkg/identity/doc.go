// Package identity keeps the keys and certificates of one box: CA, directory, router or
// operator; and makes of them the TLS configurations that boxes talk with.
//
//	DIR/                  0700
//	  current -> gen-X    what counts; one rename swaps it
//	  gen-X/              0700, every file 0600
//	    root.pem            trust anchors
//	    intermediates.pem
//	    tls.pem, tls.key    ECDSA P-256, chain leaf first; one URI name twinkey://...
//	    twin.pem            routers: twin certificate
//	    control.key, data.key   its X25519 private keys
//
// An identity is old or new, never half of each: what was written before the process
// died is not looked at until the link names it. Processes that replace it wait for each
// other on a lock (flock(2)) on DIR. A file that others may read is refused, and so is
// what does not belong together: key and certificate, certificate and root.
//
// Left out: expiry. An expired identity is loaded, since it is what a box renews with;
// whoever it is shown to refuses it.
package identity
