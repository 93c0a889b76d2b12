// Package policy says what users may do in their calls: what is not allowed is refused.
//
// A policy is a list of rules in the router's configuration. Both ends of a call enforce their own:
//
//	policy:
//	  - groups: [staff]                        whose users; "*": everybody's
//	    to: [10.2.0.0/24]                      what they reach; nothing said: all that the far site bridges
//	    allow: [tcp/22, tcp/80-443, icmp]      how; nothing said: any protocol
//	    from: [10.1.1.0/24]                    addresses that they may log in from; nothing said: all that are certified
//	    calls: 1                               at a time for each user, to routers that differ; 0: as many as there are
//	    idle: 15m                              a call ends after this long without a packet; 0: never
//	    session: 12h                           ... and this long after it came up; 0: never
//	    revoke-on-close: true                  the certificate is revoked when the user's last call from here, or the session of their own machine, has ended
//
// A user whose group no rule names gets no call. What the rules of a group let through adds up; of calls, idle and
// session the first rule counts that says something. One rule with revoke-on-close is enough.
//
// A rule with neither to nor allow lets everything pass, both ways. Other rules make a Filter. It looks at each packet by itself and keeps no state:
//
//	from the user   destination in to, protocol allowed, destination port in range
//	to the user     source in to, protocol allowed, source port in range, no TCP connection that begins there
//	either way      fragments behind the first, whose ports went before or not at all; ICMP errors
package policy
