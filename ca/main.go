package main

import (
	"os"

	"twinkey/ca/internal/cmd"
	"twinkey/pkg/cli"
)

func main() { os.Exit(cli.Main(cmd.Root())) }
