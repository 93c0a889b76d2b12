// Package netlab builds laboratories of network namespaces for tests and for the demo, out of the
// program itself: no ip(8), no shell, and nothing that could be left behind.
//
// EnsurePrivileges, called first in main or TestMain, starts the program once more as the first process
// of new namespaces and waits for it:
//
//	caller            the program as started: passes signals on, ends with the child's exit code
//	  child  (pid 1)  the program again, EnsurePrivileges returned: namespaces of its own for processes,
//	    |             mounts and network, and for users where it is not root outside
//	    +- Host.Command ...    real processes, each in the network namespace of its host
//
// When pid 1 of a process namespace ends, by return, panic or SIGKILL, the kernel kills all others in it; pid 1
// itself is killed when its parent dies. Network namespaces live only in descriptors of these processes and in
// mounts that they alone see, so with them go the interfaces, routes and sysctls.
//
// A Lab is made of hosts and links:
//
//	lab, err := netlab.New(ctx)
//	defer lab.Close()
//	a, err := lab.Host("a")
//	wan, err := lab.Switch("wan")               // an Ethernet switch: a bridge in a namespace of its own
//	err = lab.Link(a, "eth0", addrA, b, "eth0", addrB)
//	err = lab.Attach(a, "wan0", addrWAN, wan)
//	err = a.Do(func() error { ... })            // sockets and netlink as that host
//	cmd := a.Command(ctx, "router", "up")       // an *exec.Cmd, to be started from anywhere
//
// It also has what a laboratory measures with, so that a machine with only Go can run it: Ping
// (ICMP echo), Transfer (a file over TCP), Capture (AF_PACKET to a pcap file), Shape (a rate limit).
package netlab
