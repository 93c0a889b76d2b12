// Package lab is a company in a box: CA, directory, two routers and two LANs as real processes in
// network namespaces, for the demo and for the end-to-end tests.
//
//	hosta --------- ra ------------ wan ------------ rb --------- hostb
//	10.1.0.2   10.1.0.1 198.18.0.1   |   198.18.0.2 10.2.0.1   10.2.0.2
//	                                 |
//	                                hq 198.18.0.100: CA :8700, directory :8702
//
// Everything is done as an operator does it, by the command lines of the three binaries. The
// routers have no route to each other's LAN but what they make themselves, so what crosses has crossed the tunnel.
//
// Prepare comes first in main or TestMain: it builds the binaries where it still can, then moves the program
// into a laboratory (package netlab). All state lies on a file system that only the laboratory
// sees, so even a SIGKILL leaves nothing behind.
package lab
