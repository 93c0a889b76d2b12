// Command twinkey-directory keeps certificates, sealed private keys and the site map, and
// answers who may ask for what. See directory/client for what it speaks,
// directory/internal/store for what it keeps.
package main
