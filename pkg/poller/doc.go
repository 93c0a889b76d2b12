// Package poller waits until one of a few descriptors has something to do, on the
// calling thread and by epoll_wait(2) of its own, outside of the poller of Go's runtime.
//
// A goroutine that the runtime's poller wakes is woken twice: epoll wakes one thread, which
// makes the goroutine ready and wakes another to run it. On a virtual machine each costs some
// 10 us, and a router does nothing else between packets. Whoever waits here holds a thread:
// it is for the few loops that carry all packets.
package poller
