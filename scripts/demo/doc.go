// Demo shows the product on one machine: a CA, a directory and two identical routers bridge two private LANs. It
// makes everything itself, proves what it claims on captured packets, and leaves nothing behind.
//
//	demo [-keep DIR]
//
// It ends with "demo: ok" and exit code 0, or says what failed, with exit code 1. With -keep the capture of the WAN and the
// logs stay in DIR.
package main
