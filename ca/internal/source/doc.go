// Package source asks somebody else whether a password is right.
package source
