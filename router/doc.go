// Twinkey-router bridges private LANs over a public network: one binary for every box,
// whichever end of a tunnel it is, and the same one for its operator's commands.
package main
