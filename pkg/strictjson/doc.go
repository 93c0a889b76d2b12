// Package strictjson reads JSON that is to be exactly what we know (RFC 8259): one value, no field that the target does not
// have, since what we would overlook the sender means, and nothing behind it.
// What is read may be a secret: no copy of it stays in the reader's buffers.
package strictjson
