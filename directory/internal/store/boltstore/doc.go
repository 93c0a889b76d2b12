// Package boltstore keeps the directory in one bbolt file: a bucket for each table, every
// commit synced to disk before it is acknowledged.
//
// Beside directory.db lies directory.db.lock, held by flock for as long as the store is
// open; it says which process holds it. bbolt's own lock on the database is not enough: it
// is a lock on the file, so a restore that puts another file in its place would leave
// a server that had just opened the old one alone with it.
//
// Full disk: bbolt writes new pages first and points the meta page to them last, so a
// commit that runs out of space changes nothing; it is ErrWrite, and reading goes on.
package boltstore
