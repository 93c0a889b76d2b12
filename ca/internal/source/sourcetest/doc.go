// Package sourcetest runs the servers that sources are tested against: FreeRADIUS and
// OpenLDAP's slapd from Debian's packages, each as a process of its own with its files in a
// temporary directory and its ports on loopback, and a small authority for their
// certificates. Nothing of the machine's own configuration is read or changed.
package sourcetest
