// Peers measures the data planes of VPNs side by side between two private LANs: none, twinkey with each
// suite, and the peers that are installed.
//
//	hosta ── ra ══ WAN ══ rb ── hostb        all on this machine, in network namespaces
//
// In every round each candidate is set up, measured and taken down again before the next one, in an order that
// rotates, so that the drift of a machine meets all alike. What comes out is the median over the rounds, with
// the least and the most:
//
//	tcp1 tcp4        Gbit/s that arrive of one stream and of four (iperf3), from hosta to hostb
//	rev1 rev4        the same, from hostb to hosta
//	udp1300 udp64    what arrives of a sender that does not pace itself, Mbit/s of payload and 1,000 packets/s:
//	                 the receiver's bytes over the receiver's time, whatever the sender believes
//	astray           datagrams of 1300 bytes at 0.8 of udp1300, from hostb to hosta: how many of a million are lost or
//	                 overtaken on the way
//	rtt rtt99        median and 99th percentile of 1000 pings, 2 ms apart, two seconds after the first packet crossed, us; "added" is what remains without that of none
//	use              TCP of one stream through the shaped WAN, in per cent of its rate, without the first second
//	cpu              CPU seconds of both routers' processes, all threads, per GB that arrived in tcp1. Work that the
//	                 kernel does for them in interrupts is nobody's, for all candidates alike
//	rss              the larger router's peak memory, MiB, after all that was sent
//
// Scenarios:
//
//	on     the WAN's segmentation offloads as they are
//	off    switched off, on the routers' WAN interfaces, before the candidate starts
//	100M   both ends of the WAN shaped to 100 Mbit/s by a token bucket, which counts Ethernet frames
//
// The LAN's offloads are left alone: what a router wants there it does itself. The MTUs are what each project's own
// tools choose, but for nebula's, whose 1300 would cut the UDP packets in two.
//
//	peers -out docs/bench -json docs/bench/peers.json     the whole of it: more than an hour
//	peers -quick                                          four candidates, one round, for a first look
//	peers -only twinkey-aes256,wireguard -figures tcp1    some of it
//	peers -point tcp1 -only twinkey-aes256 -rounds 10     one figure again and again on one set-up, with what it
//	                                                      cost each router: for tuning
//	peers -point tcp1 -only twinkey-aes256 -flame x.svg   and a picture of where their time goes
//	peers -from docs/bench/peers.json -out docs/bench     the report anew, without measuring
package main
