// Package tripledes is 3DES (EDE, FIPS 46-3) in CBC mode, several independent blocks at a time.
//
// A round of DES needs the result of the one before: eight table look-ups, then eleven cycles
// of waiting for them. So a processor that works on one block is idle most of the time, and the
// standard library's DES, which does, reaches some 45 MB/s. Here the rounds of four blocks are done side by
// side: when decrypting, four blocks of one packet; when encrypting, where a block needs the
// one before, the blocks of four packets.
//
//	packet 1   IV ─► block 1 ─► block 2 ─► block 3 ...
//	packet 2   IV ─► block 1 ─► block 2 ─► block 3 ...      one column at a time
//	packet 3   IV ─► block 1 ─► block 2 ─► block 3 ...
//	packet 4   IV ─► block 1 ─► block 2 ─► block 3 ...
//
// Like the standard library's it looks up tables by secret values, so its time depends on them: it is
// for peers that have nothing better.
package tripledes
