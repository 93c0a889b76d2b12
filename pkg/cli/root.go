package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the linker: -X twinkey/pkg/cli.version=v1.2.3.
var version string

// Program is what differs between the binaries.
type Program struct {
	Name    string // "twinkey-router"
	Short   string // one line
	Long    string
	Example string
}

// state is what a run learns before its command starts.
type state struct {
	log     *slog.Logger
	started bool // flags and arguments were right
}

type stateKey struct{}

// New returns a root command with version, completion, the topic exit-codes, and the
// flags --log-level and --log-format. Commands below it must not set PersistentPreRun or
// PersistentPreRunE: the root's makes the logger.
func New(p Program) *cobra.Command {
	root := &cobra.Command{Use: p.Name, Short: p.Short, Long: p.Long, Example: p.Example,
		SilenceErrors: true, SilenceUsage: true, DisableAutoGenTag: true}
	level := root.PersistentFlags().String("log-level", "info", "least level that is logged: debug, info, warn or error")
	format := root.PersistentFlags().String("log-format", "text", "text or json, one line an event, to standard error")
	for flag, values := range map[string][]string{"log-level": {"debug", "info", "warn", "error"}, "log-format": {"text", "json"}} {
		// It fails only for a flag that does not exist.
		_ = root.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
	root.PersistentPreRunE = func(c *cobra.Command, _ []string) error {
		log, err := newLogger(c.ErrOrStderr(), *level, *format)
		if err == nil {
			err = c.ValidateRequiredFlags() // cobra asks too late for wrong usage
		}
		if err == nil {
			err = c.ValidateFlagGroups()
		}
		if err != nil {
			return err
		}
		if s, ok := c.Context().Value(stateKey{}).(*state); ok {
			s.log, s.started = log, true
		}
		return nil
	}
	root.AddCommand(versionCommand(p.Name), &cobra.Command{Use: "exit-codes", Short: "What the exit codes mean", Long: exitTable})
	return root
}

func newLogger(w io.Writer, level, format string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("--log-level: %q is none of debug, info, warn, error", level)
	}
	o := &slog.HandlerOptions{Level: l}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, o)), nil
	default:
		return nil, fmt.Errorf("--log-format: %q is neither text nor json", format)
	}
}

// Logger is the logger that the flags ask for; one that discards outside Main and Run.
func Logger(ctx context.Context) *slog.Logger {
	if s, ok := ctx.Value(stateKey{}).(*state); ok && s.log != nil {
		return s.log
	}
	return slog.New(slog.DiscardHandler)
}

// Main runs root with the process's arguments until it is done. SIGINT and SIGTERM end
// its context; the second one ends the process. It returns the exit code for os.Exit.
func Main(root *cobra.Command) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	defer context.AfterFunc(ctx, stop)()
	return Run(ctx, root)
}

// Run is Main with the caller's context and whatever arguments and streams root has.
func Run(ctx context.Context, root *cobra.Command) int {
	s := &state{}
	err := root.ExecuteContext(context.WithValue(ctx, stateKey{}, s))
	if err == nil {
		return ExitOK
	}
	code := Code(err)
	if _, ok := errors.AsType[*Error](err); !ok && !s.started {
		code = ExitUsage
		err = &Error{Code: code, What: "wrong usage", Why: err, Hint: "see: " + root.Name() + " help"}
	}
	if err := WriteError(root.ErrOrStderr(), root.Name(), err); err != nil {
		return ExitFailure // there is nowhere to say so
	}
	return code
}

// Version describes the running binary.
type Version struct {
	Program string `json:"program"`
	Version string `json:"version"`          // tag, or "devel"
	Commit  string `json:"commit,omitempty"` // of the tree that it was built from
	Dirty   bool   `json:"dirty,omitempty"`  // that tree had changes
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

// ReadVersion collects what linker and build have left in the binary.
func ReadVersion(program string) Version {
	v := Version{Program: program, Version: version, Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	if v.Version == "" {
		v.Version = "devel"
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Commit = s.Value
		case "vcs.modified":
			v.Dirty = s.Value == "true"
		}
	}
	return v
}

func (v Version) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", v.Program, v.Version)
	if v.Commit != "" {
		fmt.Fprintf(&b, " (%.12s", v.Commit)
		if v.Dirty {
			b.WriteString(", changed")
		}
		b.WriteString(")")
	}
	fmt.Fprintf(&b, " %s %s/%s", v.Go, v.OS, v.Arch)
	return b.String()
}

func versionCommand(program string) *cobra.Command {
	c := &cobra.Command{Use: "version", Short: "Print the version", Args: cobra.NoArgs, Example: "  " + program + " version\n  " + program + " version --json", RunE: func(c *cobra.Command, _ []string) error {
		v := ReadVersion(program)
		if wantsJSON(c) {
			return writeJSON(c.OutOrStdout(), v)
		}
		_, err := fmt.Fprintln(c.OutOrStdout(), v)
		return err
	}}
	AddJSON(c)
	return c
}
