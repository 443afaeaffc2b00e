package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/mqcluster/mqcluster/backup"
	"github.com/mqcluster/mqcluster/node"
)

// restoreGrace is how long wills of clients that were connected wait by default:
// long enough for an operator to start the cluster and point the balancer at it.
const restoreGrace = 10 * time.Minute

func (a *App) restoreCommand() *cobra.Command {
	var (
		out     output
		with    opening
		dry     bool
		options node.RestoreOptions
		part    partFlags
	)
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Make the first node of a new cluster from a backup, or put parts of it into one",
		Long: `Makes the first node of a new cluster in an empty data directory, as init does, with
the state of a backup, and prints the command with which other machines join. FILE is
what mqcluster backup wrote, - is standard input. Try it with --dry-run first: that
reads the whole file, says what it holds and changes nothing.

The new cluster has a CA and an id of its own, or those of the old one if the backup
brings its CA key. It has the users, rights, settings, sessions, queues and retained
messages of the backup, and no node, token or connection of the old cluster.

The cluster's clock goes on from where it was when the backup was made: nothing
expires for the time since. With the setting clock.after_outage at follow it counts.

Sessions whose client was connected are free. Their wills fire unless the client
comes back within --will-grace (by the cluster's clock, from the first start); the
old cluster may have fired a will already, or a client may have left in order after
the backup, which no backup can know. --drop-wills has none of them fire. Wills whose
delay was running go on.

Two clusters of one backup must not serve the same devices: stop the old one for
good, also its nodes that are out of reach.

With --only it makes no cluster: it puts the users, the rights or the retained
messages of the backup into the cluster whose node runs here, and leaves the rest of
it alone. What is there already stays as it is, and is named where it is otherwise
than in the backup; --overwrite changes it. What came to be after the backup stays.` + keysHint,
		Example: `  mqcluster restore cluster.mqb --key-file backup.key --dry-run
  mqcluster restore cluster.mqb --key-file backup.key --data-dir /var/lib/mqcluster --node a
  mqcluster run --data-dir /var/lib/mqcluster
  mqcluster restore cluster.mqb --key-file backup.key --only users,acls
  mqcluster restore cluster.mqb --key-file backup.key --only retained --filter 'plant/#' --overwrite`,
		Args: argCount(1, 1),
	}
	s := a.configFlags(cmd, mainKeys)
	out.flag(a, cmd)
	part.flags(cmd)
	with.flags(cmd)
	options.Grace = restoreGrace
	cmd.Flags().BoolVar(&dry, "dry-run", false, "check the whole file, say what it holds, change nothing")
	cmd.Flags().Var(durationFlag(&options.Grace), "will-grace", "time in which clients that were connected may come back before their wills fire")
	cmd.Flags().BoolVar(&options.DropWills, "drop-wills", false, "forget the wills of clients that were connected")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := exclusive(cmd, true, "key-file", "passphrase-file"); err != nil {
			return err
		}
		if err := part.read(); err != nil {
			return err
		}
		if len(part.only) > 0 && !dry {
			r := &remote{settings: s, timeout: partsTimeout, out: out}
			return a.restoreParts(cmd, r, args[0], &with, part.parts)
		}
		if options.Grace < 0 || options.Grace%time.Second != 0 {
			return usagef("--will-grace must be whole seconds")
		}
		if args[0] == "-" && with.passphrase == "-" {
			return usagef("the backup and the pass phrase cannot both come from standard input: give one as a file")
		}
		in, err := with.open(a, args[0])
		if err != nil {
			return err
		}
		defer in.Close()
		if dry {
			whole, err := backup.Read(in, nil)
			if err != nil {
				return err
			}
			if out.json() {
				return out.value(whole)
			}
			printBackup(a.Out, whole)
			fmt.Fprintln(a.Out, "\nThe file is whole. Nothing was changed.")
			return nil
		}
		return a.restore(cmd, s, &out, in, options)
	}
	return cmd
}

func (a *App) restore(cmd *cobra.Command, s *settings, out *output, in io.Reader, options node.RestoreOptions) error {
	if a.Restore == nil {
		return errors.New("this build has no node in it")
	}
	config, err := s.loadNode()
	if err != nil {
		return err
	}
	result, err := a.Restore(cmd.Context(), config.Config, in, options)
	if err != nil {
		return err
	}
	if config.File == "" {
		if _, err := config.WriteFile(); err != nil {
			return err
		}
	}
	if out.json() {
		return out.value(result)
	}
	printBackup(a.Out, result.Backup)
	fmt.Fprintf(a.Out, "\nnew cluster  %s (%s)\nnode         %s\nmesh         %s\nca           %s\n",
		result.ClusterID, printable(result.ClusterName), result.Node, result.MeshAddress, result.CAFile)
	fmt.Fprintf(a.Out, "\nStart it:\n  mqcluster run --data-dir %s\n", quoted(config.DataDir))
	fmt.Fprintf(a.Out, "\nAdd a node, on another machine, until %s by the cluster's clock:\n  %s\n", stamp(result.TokenUntil), result.JoinCommand)
	return nil
}

// opening says what opens a backup.
type opening struct{ key, passphrase string }

func (o *opening) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.key, "key-file", "", "file with the secret key of the recipient")
	cmd.Flags().StringVar(&o.passphrase, "passphrase-file", "", "file whose first line is the pass phrase")
	_ = cmd.MarkFlagFilename("key-file")
	_ = cmd.MarkFlagFilename("passphrase-file")
}

// open returns the stream in the file at path.
func (o *opening) open(a *App, path string) (io.ReadCloser, error) {
	key, err := o.read(a)
	if err != nil {
		return nil, err
	}
	file := io.NopCloser(a.In)
	if path != "-" {
		if file, err = os.Open(path); err != nil {
			return nil, fmt.Errorf("the backup cannot be read: %w", err)
		}
	}
	in, err := key.Open(file)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return struct {
		io.Reader
		io.Closer
	}{in, file}, nil
}

func (o *opening) read(a *App) (backup.Key, error) {
	if o.key != "" {
		text, err := os.ReadFile(o.key)
		if err != nil {
			return backup.Key{}, fmt.Errorf("the key file cannot be read: %w", err)
		}
		defer clear(text)
		return backup.SecretKey(text)
	}
	phrase, err := a.readSecretFile(o.passphrase)
	if err != nil {
		return backup.Key{}, err
	}
	defer clear(phrase)
	return backup.PassphraseKey(phrase)
}
