// Package operator says who the operator is that speaks to a service through its own Unix socket, for the log and
// the audit records: the kernel knows under which user the process at the other end was started, and nobody can claim
// another. Who may open the socket at all its mode decides.
package operator
