package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/mqcluster/mqcluster/admin"
	"github.com/mqcluster/mqcluster/backup"
)

func (a *App) backupCommand() *cobra.Command {
	var (
		request admin.BackupRequest
		to      sealing
	)
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Write the state of the cluster into an encrypted file",
		Long: `Writes the state of the cluster at one moment, while it runs, into FILE, or to
standard output for -: users, rights, settings, records of certificates, sessions
with their subscriptions, queues and QoS 2 states, and retained messages. Everything
that was acknowledged before the start is in it. The node goes on serving meanwhile.

The file is encrypted (age) for a recipient, whose secret key no node needs to know,
or by a pass phrase. It gets its name only when it is whole and on disk.

Not in it: the private key of the CA, unless --ca-key is given; the keys of the
nodes, TLS ticket keys and join tokens, ever; the configuration of the nodes. With
--ca-key a restored cluster is the same to its devices, and who can open the file
can make certificates: keep its key apart. Without it the restored cluster has a
new CA, and devices need its certificate.

A node makes backups by itself, on a schedule, with the configuration keys
backup.directory, backup.recipient, backup.interval and backup.keep.`,
		Example: `  mqcluster backup keygen backup.key
  mqcluster backup /mnt/backup/cluster.mqb --recipient age1…
  mqcluster backup - --passphrase-file phrase | ssh vault 'cat > cluster.mqb'`,
		Args: argCount(1, 1),
	}
	r := a.remoteFlags(cmd)
	to.flags(cmd)
	cmd.Flags().BoolVar(&request.CAKey, "ca-key", false, "put the private key of the cluster's CA into the file")
	cmd.Flags().BoolVar(&request.Stale, "stale", false, "take what this node has, also without a quorum")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := exclusive(cmd, true, "recipient", "passphrase-file"); err != nil {
			return err
		}
		start := time.Now()
		made, err := a.backUp(cmd, r, args[0], request, &to)
		if err != nil {
			return err
		}
		if r.out.json() && args[0] != "-" {
			return r.out.value(made)
		}
		report := a.Out
		if args[0] == "-" {
			report = a.Err
		}
		printBackup(report, made.Whole)
		fmt.Fprintf(report, "file         %s, %d bytes, after %s\n", printable(args[0]), made.Size, time.Since(start).Round(time.Millisecond))
		return nil
	}
	cmd.AddCommand(a.keygenCommand())
	return cmd
}

// madeBackup is what backup -o json prints.
type madeBackup struct {
	*backup.Whole
	File string `json:"file"`
	Size int64  `json:"size"`
}

// sealing says for whom a backup is encrypted.
type sealing struct{ recipient, passphrase string }

func (s *sealing) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.recipient, "recipient", "", "age recipient (age1…) whose secret key opens the file")
	cmd.Flags().StringVar(&s.passphrase, "passphrase-file", "", "file whose first line is the pass phrase that opens the file")
	_ = cmd.MarkFlagFilename("passphrase-file")
}

// seal encrypts what is written to it, into dst.
func (s *sealing) seal(a *App, dst io.Writer) (io.WriteCloser, error) {
	if s.recipient != "" {
		to, err := backup.Recipient(s.recipient)
		if err != nil {
			return nil, usagef("--recipient %w", err)
		}
		return backup.Seal(dst, to)
	}
	phrase, err := a.readSecretFile(s.passphrase)
	if err != nil {
		return nil, err
	}
	defer clear(phrase)
	to, err := backup.Passphrase(phrase)
	if err != nil {
		return nil, err
	}
	return backup.Seal(dst, to)
}

// backUp has the node write its state into a file, or standard output.
func (a *App) backUp(cmd *cobra.Command, r *remote, path string, request admin.BackupRequest, to *sealing) (made madeBackup, err error) {
	write := func(dst io.Writer) (err error) {
		counted := &counter{w: dst}
		sealed, err := to.seal(a, counted)
		if err != nil {
			return err
		}
		made.Whole, err = r.fetchBackup(cmd, request, sealed)
		if err = errors.Join(err, sealed.Close()); err != nil {
			return err
		}
		made.Size = counted.n
		return nil
	}
	if made.File = path; path == "-" {
		return made, write(a.Out)
	}
	made.Size, err = backup.WriteFile(path, write)
	return made, err
}

// fetchBackup copies the node's stream to w and checks that it is whole.
func (r *remote) fetchBackup(cmd *cobra.Command, request admin.BackupRequest, w io.Writer) (whole *backup.Whole, err error) {
	// A backup takes as long as it takes: --timeout is for answers. The node gives
	// up by itself where nobody reads.
	r.timeout = longest
	checked, check := io.Pipe()
	done := make(chan error, 1)
	go func() {
		var err error
		whole, err = backup.Read(checked, nil)
		// Whoever writes must not wait for a reader that has given up.
		done <- errors.Join(err, checked.CloseWithError(err))
	}()
	err = r.call(cmd, func(ctx context.Context, c *admin.Client) error {
		return c.Backup(ctx, request, io.MultiWriter(w, check))
	})
	check.CloseWithError(io.EOF)
	checkErr := <-done
	if err != nil {
		return nil, err
	}
	return whole, checkErr
}

// longest is more than anything takes that has no time of its own.
const longest = 24 * time.Hour

// counter counts what goes through it.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// printBackup says what a backup is of and holds.
func printBackup(w io.Writer, b *backup.Whole) {
	c := b.Contents
	ca := "not in it"
	if b.CA != nil {
		ca = "in it"
	}
	fmt.Fprintf(w, "cluster      %s (%s)\ntaken        %s on node %s, version %s\nlog          index %d, time %s\nCA key       %s\n",
		printable(b.ClusterID), printable(b.ClusterName), stamp(b.Taken), printable(b.Node), printable(b.Version), b.Index, stamp(b.LogTime), ca)
	fmt.Fprintf(w, "users        %d, ACLs %d, certificates %d, settings %d\n", c.Users, c.ACLs, c.Certs, c.Settings)
	fmt.Fprintf(w, "sessions     %d, of which %d were connected, with %d subscriptions and %d wills\n", c.Sessions, c.Connected, c.Subscriptions, c.Wills)
	fmt.Fprintf(w, "messages     %d retained, %d queued, QoS 2 under way %d to clients and %d from them\n", c.Retained, c.Messages, c.Sending, c.Receiving)
}

func (a *App) keygenCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "keygen FILE",
		Short: "Make a key pair for backups",
		Long: `Makes a key pair, writes the secret key to FILE, which must not exist, and prints the
recipient, which is public: nodes encrypt backups for it. Only the secret key opens
them: keep FILE away from the nodes, and a copy of it.`,
		Example: "  mqcluster backup keygen backup.key",
		Args:    argCount(1, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			secret, recipient, err := backup.NewKey()
			if err != nil {
				return err
			}
			defer clear(secret)
			f, err := os.OpenFile(args[0], os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
			if err != nil {
				return fmt.Errorf("the key file cannot be made: choose a name that is free: %w", err)
			}
			_, err = f.Write(secret)
			if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
				return fmt.Errorf("write the key file: %w", err)
			}
			fmt.Fprintln(a.Out, recipient)
			return nil
		},
	}
}

// readSecretFile returns the first line of a file, or of standard input for -.
func (a *App) readSecretFile(path string) ([]byte, error) {
	p := passwordFlags{file: path}
	return p.readGiven(a)
}
