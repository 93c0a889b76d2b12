package appliance

import (
	"time"

	"golang.org/x/time/rate"

	"twinkey/pkg/limit"
)

// The directory locks a router from which a hundred logins fail in a quarter of an hour (pkg/lockout), and for ever longer; the CA does likewise. Strangers
// on the LAN must not be able to bring that about: what the portal and the clients' listener let fail in that time is less, together.
var triesThatFail = limit.FailureLimits{
	Each:     limit.Bucket{Rate: rate.Every(time.Minute), Burst: 10},
	Net:      limit.Bucket{Rate: rate.Every(time.Minute), Burst: 30}, // one host with many IPv6 addresses leaves some to users with IPv4
	All:      limit.Bucket{Rate: rate.Every(30 * time.Second), Burst: 50},
	Known:    limit.Bucket{Rate: rate.Every(3 * time.Minute), Burst: 5},
	Remember: 72 * time.Hour, // over a weekend
}

// newTries is the one count of a router's wrong passwords. What the operator tries on the box itself (twinkey-router login) is not among them.
func newTries() *limit.Failures { return limit.NewFailures(triesThatFail) }
