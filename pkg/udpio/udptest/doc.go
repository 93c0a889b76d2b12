// Package udptest is a network of udpio.Conns in memory, with the weather that a test orders.
//
// A script decides for each datagram how many copies arrive and when: none is a loss, two a
// duplicate, different delays reorder.
//
//	n := udptest.NewNetwork()
//	n.Script(func(d udptest.Datagram) []time.Duration {
//		if d.N == 3 { return nil }                // the third datagram this way is lost
//		return []time.Duration{20 * time.Millisecond}
//	})
//
// Weather makes such a script from probabilities and a seed, the same for the same seed.
// Blocking is on channels and timers only, so a network works inside a testing/synctest bubble,
// where delays cost no time. There is no kernel in it: no ICMP, no MTU, no address translation.
package udptest
