package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/mqcluster/mqcluster/admin"
)

// importBatch is how many users go to the node at once: a node that hashes one
// password after the other takes some seconds for them.
const importBatch = 100

// hashPrefix tells the hash of a password from a password.
const hashPrefix = "$argon2id$"

func (a *App) userImportCommand(r *remote) *cobra.Command {
	var roles []string
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Add or change many users from a file",
		Long: `Adds the users of a file, or gives them the password that it says where they exist
already. A line is NAME:PASSWORD or NAME:HASH with a hash of the form $argon2id$...;
a name has no colon, a password may have some. Empty lines and lines that begin with
# are skipped. Passwords are hashed by the node, 30 ms of a core each; a user who has
the password already is left alone, and so the same import may be run again. FILE -
is standard input.`,
		Example: `  mqcluster user import devices.txt --role device
  sed 's/,/:/' devices.csv | mqcluster user import - --timeout 1m`,
		Args: argCount(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			users, err := a.readImport(args[0])
			if err != nil {
				return err
			}
			var set *[]string
			if cmd.Flags().Changed("role") {
				set = &roles
			}
			return a.importUsers(cmd, r, users, set)
		},
	}
	cmd.Flags().StringSliceVar(&roles, "role", nil, "role of the users, in place of those that they have (repeatable)")
	return cmd
}

// importUsers sends the users in batches and prints what came of all.
func (a *App) importUsers(cmd *cobra.Command, r *remote, users []admin.UserEntry, roles *[]string) error {
	total := admin.UserImportResult{Change: admin.Change{NotApplied: []string{}}}
	for done := 0; done < len(users); {
		batch := users[done:min(done+importBatch, len(users))]
		err := r.call(cmd, func(ctx context.Context, c *admin.Client) error {
			result, err := c.ImportUsers(ctx, admin.UserImport{Users: batch, Roles: roles})
			if err != nil {
				return err
			}
			total.Added += result.Added
			total.Changed += result.Changed
			total.Unchanged += result.Unchanged
			if result.Index > 0 { // nothing was to be changed without
				total.Change = result.Change
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("%d of %d users are imported: %w", done, len(users), err)
		}
		for _, e := range batch {
			clear(e.Password)
		}
		done += len(batch)
	}
	if !r.out.json() {
		fmt.Fprintf(a.Out, "%d users added, %d changed, %d unchanged\n", total.Added, total.Changed, total.Unchanged)
	} else if err := r.out.value(total); err != nil {
		return err
	}
	return notApplied(total.Change)
}

func (a *App) readImport(path string) ([]admin.UserEntry, error) {
	from := a.In
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("the file of users cannot be read: %w", err)
		}
		defer file.Close()
		from = file
	}
	return parseImport(from)
}

// parseImport reads the lines of an import. Errors name the line and never what
// may be a password.
func parseImport(r io.Reader) ([]admin.UserEntry, error) {
	var users []admin.UserEntry
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 2*maxSecret)
	for n := 1; lines.Scan(); n++ {
		line := lines.Bytes()
		if len(bytes.TrimSpace(line)) == 0 || line[0] == '#' {
			continue
		}
		name, secret, found := bytes.Cut(line, []byte(":"))
		switch {
		case !found:
			return nil, fmt.Errorf("line %d of the users has no colon: write NAME:PASSWORD", n)
		case len(name) == 0:
			return nil, fmt.Errorf("line %d of the users has no name before its colon: write NAME:PASSWORD", n)
		case len(secret) == 0:
			return nil, fmt.Errorf("line %d of the users has no password behind its colon: add users without one with mqcluster user add --no-password", n)
		case len(secret) > maxSecret:
			return nil, fmt.Errorf("line %d of the users has a password longer than the %d bytes that MQTT carries: shorten it", n, maxSecret)
		}
		e := admin.UserEntry{Name: string(name)}
		if bytes.HasPrefix(secret, []byte(hashPrefix)) {
			e.Hash = string(secret)
		} else {
			e.Password = bytes.Clone(secret)
		}
		users = append(users, e)
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		return nil, fmt.Errorf("a line of the users is longer than a name and the %d bytes of a password: write one user on each line", maxSecret)
	} else if err != nil {
		return nil, fmt.Errorf("the users cannot be read: %w", err)
	}
	if len(users) == 0 {
		return nil, errors.New("there are no users to import: write NAME:PASSWORD on each line")
	}
	return users, nil
}
