// Package layering holds the house in order: its tests read every Go file of the tree and
// say which import, which statement or which missing comment breaks a rule, and why the
// rule is there.
//
//	mains -> own internal/cmd -> own internals -> other services' client
//	                                           -> pkg -> proto machines -> proto codecs -> wire, secret, replay
//
// The rules are tables. They are not to be changed to make a build pass: a row is a
// decision, and a new one gives its reason.
package layering
