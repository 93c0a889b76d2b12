package main

import (
	"os"

	"twinkey/ca/internal/cmd"
)

func main() { os.Exit(cmd.Main()) }
