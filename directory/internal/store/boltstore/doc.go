// Package boltstore keeps the directory in one bbolt file: a bucket for each table, every
// commit synced to disk before it is acknowledged.
//
// Updates that come at the same time share a commit (group.go): a sync of the disk takes milliseconds, and hundreds of
// logins a second are to be noted. Each works on a draft of its own (draft.go), so that one that fails leaves no trace in the
// transaction of the others.
//
// Beside directory.db lies directory.db.lock, held by flock for as long as the store is
// open; it says which process holds it. bbolt's own lock on the database is not enough: it
// is a lock on the file, so a restore that puts another file in its place would leave
// a server that had just opened the old one alone with it.
//
// Full disk: bbolt writes new pages first and points the meta page to them last, so a
// commit that runs out of space changes nothing; it is ErrWrite, and reading goes on.
package boltstore
