// Package station is the router on a user's own machine (voluntary mode): it logs in at the router in front, which then only
// forwards, and places the user's calls itself, with the same engine that routers run.
//
//	router in front ──watch──► station ──peers, rules, revocations──► engine ◄──► TUN, UDP
//	engine ──handshake hash──► station ──Sign──► router in front ──Voucher──► engine
//	user ──control.sock──► admin ──► station
//
// What it does, from login to logout:
//
//	root       the root certificate, by its fingerprint, once; kept in the home directory
//	proof      of the password: the key that opens the sealed keys is derived here and stays here
//	           How it is stretched the router says: not for less than the default, and as at the last login; where a source's user's keys were
//	           sealed anew since, the CA says it, and nothing is proved before
//	           Where the company has sources, the password goes along once, sealed to a login key that is the CA's under that root (package
//	           sealedlogin); not that of a user whom the directory alone has let in before
//	           Keys of the user's own lie in the home directory: the password opens them here, and they are proved themselves
//	interface  a TUN interface, the address that the router saw on it if the machine has it nowhere else, and routes to what
//	           other sites are certified for, with that address as their source
//	clear      of those routes stay this machine's own networks, and the addresses of the router in front and of those that are called;
//	           where the machine moves they are looked at anew
//	withheld   what a site is certified for and no call carries goes into the interface all the same, by routes that give way to any other to
//	           the same destination, and goes no further: whoever sends it is told (ICMP). No call carries it where it is in conflict with
//	           another site's or with what has to stay clear, where the router cannot be dialled, is not one that the user named, or is
//	           believed no more, and where its calls have ended for good. The rest of such a prefix stays clear: this machine's own networks.
//	           All that was ever learnt of sites is withheld before there is a map, when everything begins anew
//	map        which sites there are, believed by the CRL that came with it; without one within half a minute the client ends
//	calls      one for each router that is wanted: when a packet asks, or at once where the user named it
//	ending     the end of the session, proved beforehand with the data key where the router asks for it (revoke-on-close): before calls are
//	           placed, and again for each newer certificate
//	follow     the watch: what changes is passed on; the end of the session is the end of everything
//	anew       calls are placed anew before what the router said for them runs out
//
// Where the router in front is lost, calls go on, and it is asked again after 1, 2, 4 ... 30 s. If it has forgotten the session, as one
// that was restarted has, the station logs in anew with the proof, which it keeps for that; a session that was ended it
// leaves ended. Another address or another certificate means another engine and other calls: everything begins anew. But the interface stays, with the routes into
// it, also below those whose source was the address of before: in between nothing leaves in the clear, however often a router in front has it so.
//
// A source wants the password at each login, and the password is not kept: whom one has let in, for them a forgotten session, or another address, is the end. The
// person is told to log in again.
//
// Nothing outlives the process: interface, address and routes go with it, however it ends, and then what is for sites goes where it went before. Keys and proof are wiped.
package station
