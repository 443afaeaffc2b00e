package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mqcluster/mqcluster/admin"
)

// upgradeLag is how many entries a member may be behind before another one is
// stopped: it must have caught up when its vote is needed.
const upgradeLag = 2000

func (a *App) upgradeCommand() *cobra.Command {
	var (
		check    bool
		node, to string
	)
	cmd := &cobra.Command{
		Use:   "upgrade --check",
		Short: "Say whether a node may be stopped and started with another program now",
		Long: `Says whether the next step of a rolling upgrade is safe: to stop one node, this one or
--of, and start it with another program. Every check has a line, with a remedy where it
failed; the exit code is 1 then. It changes nothing.

--to is the other program, or a file with what its version -o json prints. A program
that knows less than the cluster may have used already would halt on the log; one that
knows more goes by what all members know until the last one is replaced.

A rolling upgrade is, node by node: upgrade --check, drain --stop, install, start, and
wait for status --check.`,
		Example: `  mqcluster upgrade --check
  mqcluster upgrade --check --of b --to ./mqcluster-new
  mqcluster upgrade --check --to version.json -o json`,
		Args: argCount(0, 0),
	}
	r := a.remoteFlags(cmd)
	cmd.Flags().BoolVar(&check, "check", false, "check, and change nothing")
	cmd.Flags().StringVar(&node, "of", "", "the member that is to be stopped (default: the node that is asked)")
	cmd.Flags().StringVar(&to, "to", "", "the program it is to run then, or a file with its version as JSON")
	_ = cmd.MarkFlagFilename("to")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if !check {
			return usagef("an upgrade is made by installing the program: --check says whether the next step is safe")
		}
		var build *Build
		if to != "" {
			var err error
			if build, err = readBuildOf(cmd.Context(), to); err != nil {
				return err
			}
		}
		return r.call(cmd, func(ctx context.Context, c *admin.Client) error {
			status, err := c.Status(ctx)
			if err != nil {
				return err
			}
			if node == "" {
				node = status.Node
			}
			return a.reportUpgrade(r, node, upgradeChecks(status, node, build))
		})
	}
	return cmd
}

// upgradeCheck is one line of upgrade --check.
type upgradeCheck struct {
	Check  string `json:"check"`
	OK     bool   `json:"ok"`
	Found  string `json:"found"`
	Remedy string `json:"remedy,omitempty"`
}

// upgradeChecks tells whether a member may be stopped, and started with a build if
// one is given, by what a node knows of the cluster.
func upgradeChecks(s admin.Status, node string, to *Build) []upgradeCheck {
	out := []upgradeCheck{checkQuorum(s, node), checkUp(s), checkCaughtUp(s), checkLeases(s), checkDisks(s), checkLead(s, node)}
	if to != nil {
		out = append(out, checkLevel(s, *to))
	}
	return out
}

// failing names the members for which is holds.
func failing(s admin.Status, is func(admin.Member) bool) (out []string) {
	for _, m := range s.Members {
		if is(m) {
			out = append(out, m.Node)
		}
	}
	return out
}

// judged is a check that fails for the members in bad.
func judged(check string, bad []string, good, found, remedy string) upgradeCheck {
	if len(bad) == 0 {
		return upgradeCheck{Check: check, OK: true, Found: good}
	}
	return upgradeCheck{Check: check, Found: strings.Join(bad, ", ") + " " + found, Remedy: remedy}
}

func checkQuorum(s admin.Status, node string) upgradeCheck {
	c := upgradeCheck{Check: "quorum without it"}
	if !slices.ContainsFunc(s.Members, func(m admin.Member) bool { return m.Node == node }) {
		c.Found, c.Remedy = fmt.Sprintf("there is no member %s", node), "name one that mqcluster status shows"
		return c
	}
	up, all := 0, 0
	for _, m := range s.Members {
		if !m.Votes() {
			continue
		}
		all++
		if m.Up && m.Node != node {
			up++
		}
	}
	c.Found = fmt.Sprintf("%d of %d voters stay", up, all)
	switch c.OK = s.Leader != "" && up > all/2; {
	case s.Leader == "":
		c.Found, c.Remedy = "no leader is known", "bring back a majority of the voters"
	case !c.OK && all < 3:
		c.Remedy = "add nodes until three vote, or accept that the cluster is away while the node is"
	case !c.OK:
		c.Remedy = "start the voters that are down first"
	}
	return c
}

func checkUp(s admin.Status) upgradeCheck {
	return judged("members up", failing(s, func(m admin.Member) bool { return !m.Up }), fmt.Sprintf("all %d", len(s.Members)),
		"not answering", "start them, or take them out with mqcluster leave")
}

func checkCaughtUp(s admin.Status) upgradeCheck {
	last := s.CommitIndex
	for _, m := range s.Members {
		last = max(last, m.Applied)
	}
	return judged("caught up", failing(s, func(m admin.Member) bool { return m.Up && m.Applied+upgradeLag < last }),
		fmt.Sprintf("all within %d entries", upgradeLag), "behind the log", "wait, and look at their disks and CPU if it lasts")
}

func checkLeases(s admin.Status) upgradeCheck {
	return judged("leases", failing(s, func(m admin.Member) bool { return m.Up && m.Lease <= 0 }), "held by all that are up",
		"without a lease", "wait until mqcluster status shows one; check the links between the nodes if it lasts")
}

func checkDisks(s admin.Status) upgradeCheck {
	return judged("disks", failing(s, func(m admin.Member) bool { return m.Up && m.Disk != "" && m.Disk != "ok" }), "all have room",
		"low on disk", "make room: without it the others may not take what this node leaves to them")
}

// checkLead never fails: a drain moves the lead.
func checkLead(s admin.Status, node string) upgradeCheck {
	c := upgradeCheck{Check: "lead", OK: true, Found: "another node leads"}
	if s.Leader == node {
		c.Found = "it leads: mqcluster drain moves that first"
	}
	return c
}

func checkLevel(s admin.Status, to Build) upgradeCheck {
	// What all members know may have been used.
	low, high := ^uint32(0), uint32(0)
	for _, m := range s.Members {
		low, high = min(low, m.Level), max(high, m.Level)
	}
	c := upgradeCheck{Check: "feature level", OK: to.Level >= high, Found: fmt.Sprintf("%s knows %d, the members %d to %d", to.Version, to.Level, low, high)}
	if low == high {
		c.Found = fmt.Sprintf("%s knows %d, the members %d", to.Version, to.Level, high)
	}
	if !c.OK {
		c.Remedy = fmt.Sprintf("take a program of feature level %d or more: the log may hold what an older one does not know", high)
	}
	return c
}

func (a *App) reportUpgrade(r *remote, node string, checks []upgradeCheck) error {
	err := list(&r.out, checks, "CHECK OK FOUND REMEDY", func(c upgradeCheck) []any {
		ok := "yes"
		if !c.OK {
			ok = "NO"
		}
		return []any{c.Check, ok, c.Found, c.Remedy}
	})
	if err != nil {
		return err
	}
	var bad []string
	for _, c := range checks {
		if !c.OK {
			bad = append(bad, c.Check)
		}
	}
	if len(bad) > 0 {
		return fmt.Errorf("node %s must not be stopped now: %s", printable(node), strings.Join(bad, ", "))
	}
	if !r.out.json() {
		fmt.Fprintf(a.Out, "\nnode %s may be stopped\n", printable(node))
	}
	return nil
}

// versionTime bounds how long another program may take to tell its version.
const versionTime = 10 * time.Second

// readBuildOf asks a program for its version, or reads a file that has it.
func readBuildOf(ctx context.Context, path string) (*Build, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("the program of --to cannot be read: %w", err)
	}
	if !bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) {
		if path, err = filepath.Abs(path); err != nil { // a name without a slash is not looked for in the path
			return nil, err
		}
		ctx, cancel := context.WithTimeout(ctx, versionTime)
		defer cancel()
		if text, err = exec.CommandContext(ctx, path, "version", "-o", "json").Output(); err != nil {
			return nil, fmt.Errorf("%s does not tell its version: give a mqcluster program, or what its version -o json prints: %w", path, err)
		}
	}
	build := new(Build)
	if err := json.Unmarshal(text, build); err != nil || build.Level == 0 {
		return nil, errors.New("--to tells no feature level: give a mqcluster program, or what its version -o json prints")
	}
	return build, nil
}
