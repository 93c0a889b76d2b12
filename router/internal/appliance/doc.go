// Package appliance puts a router together: identity, trust, interface, socket, engine,
// site map, renewal, control socket and portal. It holds no protocol; it starts parts, passes
// what one learns to the others, and stops them in the reverse order.
//
//	directory ──watch──► sitemap ──peers, revocations──► engine ◄──► TUN, UDP
//	directory ◄──successors── succession ──newer certificates of users──► engine
//	CA ◄──renew── renewal ──new keys──► engine, sitemap's connection
//	operator ──control.sock──► admin ──► appliance ──► engine
//	user ──HTTPS on the LAN──► portal ──► appliance ──► engine
//	CA ◄──ACME── webcert ──certificate──► portal
package appliance
