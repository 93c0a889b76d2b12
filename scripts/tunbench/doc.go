// Package tunbench moves the same traffic through our TUN interfaces (pkg/tun with proto/gso) and through those of
// golang.zx2c4.com/wireguard/tun, side by side in one run: own code where a library is kept must be worth it. It is
// a module of its own, so that the library does not become a requirement of the product, and has benchmarks
// only ("make bench-tun").
//
//	host a                          the benchmark                          host b
//	a process | kernel | TUN  -->  read, take apart        | -->  TUN | kernel | a process
//	                               put together, write     |
//
// The hosts are network namespaces, their processes copies of the program, so that the CPU time of the benchmark is
// that of the interfaces: our work, the system calls, and what the kernel does in them up to the far socket, which is
// the same for all. What a tunnel would do between, such as sealing, is left out. The devices:
//
//	own               a train is taken apart where it lies and put together by a Joiner, as the router does: its cipher
//	                  writes each packet to its place, here a copy does. Checksums are left to the far end
//	own-sums          the same, checksums completed and checked, as between the router and somebody else's
//	wireguard         as wireguard-go does: a goroutine a direction, Read into 128 buffers, Write of the same
//	                  (there the cipher works in place, so not even a copy stands for it)
//	whole             trains pass as they are: nobody can seal them so, but it tells what of all this is the kernel's
//
// Every device writes what one read brought before it reads again.
package tunbench
