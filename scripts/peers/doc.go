// Peers measures the data planes of VPNs side by side between two private LANs: none, twinkey with each
// suite, and the peers that are installed.
//
//	hosta ── ra ══ WAN ══ rb ── hostb        all on this machine, in network namespaces
//
// In every round each candidate is set up, measured and taken down again, in an order that
// rotates, so that the drift of a machine meets all alike. Figures are medians over rounds:
//
//	tcp1 rev tcp4   Gbit/s of iperf3, one stream, one the other way, four
//	udp1300 udp64   what arrives of an unpaced sender, by the receiver's count, Mbit/s and 1,000 packets/s
//	rtt             median of 400 pings, 2 ms apart, us; "added" is what remains without that of none
//	cpu             CPU seconds of both routers' processes per GB of tcp1
//	rss             the larger router's peak memory, MiB
//
// Scenarios: on (the WAN's segmentation offloads as they are), off (switched off), 100M (the WAN shaped to
// 100 Mbit/s: utilization in per cent).
//
//	peers [-rounds 5] [-seconds 3] [-only none,wireguard-go] [-scenarios on,off,100M] [-out docs/bench]
package main
