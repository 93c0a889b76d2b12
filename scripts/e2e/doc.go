// Package e2e holds the end-to-end tests: the real binaries as real processes in network
// namespaces, with a real CA, a real directory, real TUN interfaces and real UDP. There
// is nothing in it but tests.
package e2e
