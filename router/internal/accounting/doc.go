// Package accounting tells the directory which calls were up at this router, for whom, for how long, what they carried
// and why they ended: records for its audit trail.
//
//	engine ── Add ──► queue ── batches, oldest first ──► directory
//	                   |          again and again until it has them, 1 s to 1 min apart
//	                   +-- full: what comes is not taken, and counted; a record says how many
//
// Of the users who logged in here it also tells, every few minutes, what their calls have carried so far: the directory
// keeps that for the source that authenticates a user, if there is one, and forgets it otherwise.
//
// Adding never waits: calls come up and go whether or not the directory answers. What has not been delivered when the
// process is killed is lost; when it is stopped it tries once more.
//
// A record has a number within a run of the router. The directory notes the last one of each router, so that a batch whose
// answer was lost is taken once.
package accounting
