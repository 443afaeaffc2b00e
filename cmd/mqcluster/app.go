package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/mqcluster/mqcluster/admin"
	"github.com/mqcluster/mqcluster/node"
)

// App is the command line with everything that it touches, so that tests run it
// without a process and without a node.
type App struct {
	In       io.Reader
	Out, Err io.Writer
	Env      []string
	Build    Build

	// Init makes the first node of a cluster in the data directory; where there
	// is one already, it returns its facts with Already set.
	Init func(ctx context.Context, config node.Config) (node.InitResult, error)
	// Join makes this machine a node of a cluster; where it is one already, it
	// returns its facts with Already set.
	Join func(ctx context.Context, config node.Config, options node.JoinOptions) (node.JoinResult, error)
	// Inspect reads what a stopped node knows of a cluster whose majority is lost;
	// Recover makes it the only member.
	Inspect func(ctx context.Context, config node.Config) (*node.Survivor, error)
	Recover func(ctx context.Context, config node.Config) (*node.Survivor, error)
	// Restore makes the first node of a new cluster from the stream of a backup.
	Restore func(ctx context.Context, config node.Config, in io.Reader, options node.RestoreOptions) (node.RestoreResult, error)
	// Open starts the node of the data directory. It returns when clients are
	// accepted.
	Open func(ctx context.Context, config node.Config, logger *slog.Logger) (Node, error)
	// Extra makes the verbs that live in other packages.
	Extra []func() *cobra.Command
}

// Node is a running node.
type Node interface {
	// Left is closed when the node was removed from the cluster and is to stop.
	Left() <-chan struct{}
	// Asked is closed when an operator has asked it to stop.
	Asked() <-chan struct{}
	// Ready is what /readyz answers. It does not block for long in a node that is
	// well.
	Ready() admin.Readiness
	// Close sends the clients away and ends the node. It is idempotent.
	Close() error
}

// usageError is a command line that makes no sense; its exit code is 2.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// Main runs one command line and returns the exit code.
func (a *App) Main(ctx context.Context, args []string) int {
	root := a.Root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintln(a.Err, "mqcluster:", explain(err))
	var usage usageError
	if errors.As(err, &usage) {
		return 2
	}
	return 1
}

// explain adds the remedy to errors whose place of origin does not know it.
func explain(err error) string {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "listen" && op.Addr != nil {
		switch {
		case errors.Is(err, syscall.EADDRINUSE):
			return fmt.Sprintf("address %s is in use: stop what listens there (ss -ltnp shows it) or configure another port", op.Addr)
		case errors.Is(err, syscall.EACCES):
			return fmt.Sprintf("address %s may not be opened by this user: use a port above 1023 or give the binary the capability CAP_NET_BIND_SERVICE", op.Addr)
		case errors.Is(err, syscall.EADDRNOTAVAIL):
			return fmt.Sprintf("address %s is not an address of this machine: configure one that is", op.Addr)
		}
	}
	return strings.TrimPrefix(err.Error(), "Error: ")
}

// Root builds the tree of commands.
func (a *App) Root() *cobra.Command {
	root := &cobra.Command{
		Use:   "mqcluster",
		Short: "A highly available MQTT broker",
		Long: `mqcluster runs a highly available MQTT 3.1, 3.1.1 and 5 broker: three or more
equal nodes, each of which serves every client.

Make the first node with init, add others with join, start each with run. The
other verbs talk to the node of this machine through its admin socket.`,
		Example: `  mqcluster init --data-dir /var/lib/mqcluster
  mqcluster run --data-dir /var/lib/mqcluster
  mqcluster status`,
		Args:          groupArgs,
		RunE:          showHelp,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetIn(a.In)
	root.SetOut(a.Out)
	root.SetErr(a.Err)
	root.SetGlobalNormalizationFunc(normalizeFlag)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		if errors.Is(err, errPasswordArgument) {
			return usageError{errPasswordArgument}
		}
		return usageError{fmt.Errorf("%w: see %s --help", err, cmd.CommandPath())}
	})
	root.AddCommand(
		a.initCommand(), a.joinCommand(), a.runCommand(), a.statusCommand(), a.leaveCommand(), a.drainCommand(), a.balanceCommand(), a.recoverCommand(), a.clockCommand(), a.verifyCommand(), a.traceCommand(), a.topCommand(),
		a.backupCommand(), a.restoreCommand(), a.upgradeCommand(),
		a.tokenCommand(), a.apiTokenCommand(), a.userCommand(), a.aclCommand(), a.banCommand(), a.auditCommand(), a.certCommand(), a.caCommand(), a.doctorCommand(), a.sessionCommand(), a.retainedCommand(), a.settingCommand(), a.importCommand(),
		a.pubCommand(), a.subCommand(), a.configCommand(), a.versionCommand(), a.manCommand(), a.docsCommand(),
	)
	for _, extra := range a.Extra {
		root.AddCommand(extra())
	}
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if c.Name() == "completion" {
			completionExamples(c)
		}
	}
	return root
}

// completionExamples adds what cobra's own command lacks.
func completionExamples(completion *cobra.Command) {
	completion.Example = "  mqcluster completion bash > /etc/bash_completion.d/mqcluster"
	completion.Args, completion.RunE = groupArgs, showHelp
	for _, shell := range completion.Commands() {
		shell.Example = "  mqcluster completion " + shell.Name()
	}
}

// normalizeFlag makes the spellings of a name one: underscores as in the file,
// and --node for --node.id.
func normalizeFlag(_ *pflag.FlagSet, name string) pflag.NormalizedName {
	if name == "node" {
		name = "node.id"
	}
	return pflag.NormalizedName(strings.ReplaceAll(name, "_", "-"))
}

func showHelp(cmd *cobra.Command, _ []string) error { return cmd.Help() }

// groupArgs refuses what follows a command that only groups others.
func groupArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := ""
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		hint = fmt.Sprintf(": did you mean %s?", near[0])
	} else {
		hint = fmt.Sprintf(": see %s --help", cmd.CommandPath())
	}
	return usagef("%s has no verb %q%s", cmd.CommandPath(), args[0], hint)
}

// argCount makes a validator for low to high arguments (high < 0: any number).
func argCount(low, high int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < low || high >= 0 && len(args) > high {
			return usagef("usage: %s (%d arguments were given)", cmd.UseLine(), len(args))
		}
		return nil
	}
}

// exclusive refuses more than one of the flags, and with must also none.
func exclusive(cmd *cobra.Command, must bool, names ...string) error {
	var given []string
	for _, name := range names {
		if cmd.Flags().Changed(name) {
			given = append(given, "--"+name)
		}
	}
	switch {
	case len(given) > 1:
		return usagef("%s exclude each other: give one", strings.Join(given, " and "))
	case len(given) == 0 && must:
		return usagef("one of --%s is needed: see %s --help", strings.Join(names, ", --"), cmd.CommandPath())
	}
	return nil
}

// group makes a command that only groups others.
func group(use, short, long, example string, verbs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Long: long, Example: example, Args: groupArgs, RunE: showHelp}
	cmd.AddCommand(verbs...)
	return cmd
}

// notFound tells whether the node said that something does not exist.
func notFound(err error) bool { return errors.Is(err, admin.ErrNotFound) }
