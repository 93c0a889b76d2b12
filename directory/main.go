package main

import (
	"os"

	"twinkey/directory/internal/cmd"
)

func main() { os.Exit(cmd.Main()) }
