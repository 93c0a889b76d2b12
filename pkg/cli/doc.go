// Package cli is what the command lines of the three binaries have in common: the root
// command with version, completion and logging flags, tables that are JSON on demand,
// errors of three parts, exit codes, and words for durations and sizes.
//
//	func main() { os.Exit(cmd.Main()) }              // the binary's main, thin
//	func Main() int { return cli.Main(root()) }      // its internal/cmd
//
//	root := cli.New(cli.Program{Name: "twinkey-ca", Short: "..."})
//	list := &cobra.Command{Use: "list", RunE: func(c *cobra.Command, _ []string) error {
//		users, err := ...
//		if err != nil {
//			return cli.Fail(cli.ExitUnavailable, "listing users", err, "is the CA running? start it with: twinkey-ca serve")
//		}
//		return cli.Print(c, users, func(t *cli.Table) {
//			for _, u := range users { t.Row(u.UID, u.Group, cli.Duration(u.Left)) }
//		}, "UID", "GROUP", "VALID FOR")
//	}}
//	cli.AddJSON(list)
//
// A failure is written to standard error in three parts:
//
//	twinkey-ca: listing users
//	  why:  dialling /var/lib/twinkey-ca/admin.sock: connection refused
//	  hint: is the CA running? start it with: twinkey-ca serve
//
// Exit codes, the same for all binaries and printed by their "help exit-codes":
//
//	0    done
//	1    failed for another reason than those below
//	2    wrong usage: unknown command or flag, missing argument
//	3    the configuration file is missing or wrong
//	4    a service or peer cannot be reached; trying again may help
//	5    refused: not allowed, wrong password, revoked or expired
//	6    the thing that was asked for does not exist
//	7    it exists already, or contradicts what is there
//	8    in use by another process
//	9    recorded, but not told to everybody yet; it will be, by itself
//	130  interrupted by a signal
package cli
