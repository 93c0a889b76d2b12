// Package limit bounds what strangers can make a server do, by the address that they come from:
// how many connections they have open (Listener), how often they may ask (Rates) and how often their guesses may fail (Failures).
package limit
