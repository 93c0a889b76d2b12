// Package secret holds key bytes that can be wiped and that no printer, logger or
// encoder shows: every formatting verb, slog, JSON and text marshalling yield a
// redaction or an error.
//
// Wiping is best effort: the Go runtime may have copied a stack, never the heap
// array that a Key owns.
package secret
