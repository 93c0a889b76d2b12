// Package keylog appends the keys of security associations to a file that tshark's
// esp_sa table reads, one line an association, as SSLKEYLOGFILE does for TLS.
//
// Whoever holds the file reads the traffic. It is off unless the operator asks for it
// by name, is made readable by its owner alone, and the router warns at each start.
package keylog
