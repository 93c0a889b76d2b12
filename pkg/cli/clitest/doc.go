// Package clitest holds a command line to what the house promises of each command: examples under --help that work, --json where there is
// something for scripts, and no failure without a word on what to do next.
//
// Examples are read as a shell would, as far as they go: quotes, comments, pipes and redirections. What stands behind the
// program's name has to be a command of it, with flags that it has and as many arguments as it takes. Nothing is run.
//
// Left out: whether a hint helps.
package clitest
