package main

import (
	"flag"
	"fmt"
	"os"
)

func main() {
	r := newReport(os.Stdout)
	flag.Func("left-out", "what the caller of go test has left out", func(s string) error {
		r.skips[s]++
		return nil
	})
	flag.Parse()
	if err := r.read(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "testreport:", err)
		os.Exit(1)
	}
	if !r.finish(os.Getenv("TWINKEY_NO_SKIP") == "1") {
		os.Exit(1)
	}
}
