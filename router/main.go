package main

import (
	"os"

	"twinkey/pkg/cli"
	"twinkey/router/internal/cmd"
)

func main() { os.Exit(cli.Main(cmd.Root())) }
