// Package tuntest has a tun.Device without a kernel: packets travel through memory.
//
// New makes one device and the two ends that a test holds: Inject puts a packet where the
// kernel would have routed one to the interface, Delivered yields what the engine under
// test wrote into it. Pair crosses two devices, so that what is written to one is read
// from the other. Blocking is on channels only, so a device works inside a testing/synctest
// bubble, and its queue is bounded: Write blocks when a test does not drain it.
package tuntest
