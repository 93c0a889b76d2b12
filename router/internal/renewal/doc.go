// Package renewal keeps a box's certificates alive: they are renewed long before they
// expire, a failure is repeated, and a line a day says how long each still lives, the
// CA's included. A box that slept past expiry renews when it wakes, as far as the CA's
// policy lets it.
package renewal
