// Package limit bounds what strangers can make a server do, by the address that they come from:
// how many connections they have open (Listener) and how often they may ask (Rates).
package limit
