// Command twinkey-ca is the company's certificate authority; see ca/internal/cmd for its
// commands and ca/client for what boxes ask of it.
package main
