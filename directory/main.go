package main

import (
	"os"

	"twinkey/directory/internal/cmd"
	"twinkey/pkg/cli"
)

func main() { os.Exit(cli.Main(cmd.Root())) }
