package main

import (
	"os"

	"twinkey/router/internal/cmd"
)

func main() { os.Exit(cmd.Main()) }
