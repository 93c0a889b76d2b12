// Package watch follows the register on behalf of watchers.
//
//	          +--------+  too far behind, or since 0   +-------+
//	since --> | known? | ----------------------------> | reset |
//	          +--------+                               +-------+
//	              | sync                                   | sync, Reset
//	              v                                        v
//	          +--------+  revision committed           +-------+
//	          | replay | <---------------------------- | wait  | --> heartbeat
//	          +--------+ ----------------------------> +-------+
//	                       nothing more
//
// A watcher is a place in the register's event log, nothing else: no queue, so a slow one
// costs no memory, and events come in the order of their commits because the log is in
// that order. The writer of the stream cuts who does not read. Left out: sharing one read
// between watchers.
package watch
