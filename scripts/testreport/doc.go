// Testreport reads the events of "go test -json" and writes them for a person:
//
//	go test -json ./... | go run ./scripts/testreport
//
//	  12.3s  ok    twinkey/proto/esp  214 passed, 2 left out      as each package ends
//	--- FAIL: TestWindow (0.00s)                                  with all that a failed test has said
//	...
//	left out:                                                     what was skipped, and what would add it
//	    4  needs tshark (apt install tshark)
//	ok  	twinkey/proto/esp	12.3s                             the lines of go test itself, last
//
// It exits with 1 if anything failed, if nothing was tested, and, where the environment
// has TWINKEY_NO_SKIP=1, if anything was left out. The flag -left-out TEXT, which may come
// several times, adds what the caller has left out itself.
package main
