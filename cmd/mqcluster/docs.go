package main

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/node"
)

func (a *App) docsCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "docs DIR",
		Short:   "Write the references of commands and configuration",
		Long:    "Writes cli.md and configuration.md, as they are in docs, into a directory.",
		Example: "  mqcluster docs docs",
		Hidden:  true,
		Args:    argCount(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			for name, text := range map[string]string{"cli.md": cliReference(cmd.Root()), "configuration.md": configReference()} {
				if err := os.WriteFile(filepath.Join(args[0], name), []byte(text), 0o644); err != nil {
					return fmt.Errorf("the reference cannot be written: %w", err)
				}
			}
			return nil
		},
	}
}

const generated = "<!-- Written by make gen from the program itself. -->\n\n"

// cliReference is every verb with its flags, as Markdown.
func cliReference(root *cobra.Command) string {
	var b strings.Builder
	b.WriteString("# The commands\n\n" + generated)
	b.WriteString("The verbs that ask or change a cluster talk to the node of their machine through its\nadmin socket, which only its user and root may open. `-o json` prints what a program can\nread. The exit code is 0, 1 for what failed, 2 for a command line that makes no sense.\n\n")
	var depth func(c *cobra.Command) int
	depth = func(c *cobra.Command) int {
		if !c.HasParent() {
			return 1
		}
		return 1 + depth(c.Parent())
	}
	_ = walk(root, func(c *cobra.Command) error { // the visitor returns no error
		if c.HasParent() && !strings.HasPrefix(c.CommandPath(), "mqcluster completion ") {
			fmt.Fprintf(&b, "%s- [%s](#%s): %s\n", strings.Repeat("  ", depth(c)-2), c.CommandPath(), anchor(c), c.Short)
		}
		return nil
	})
	_ = walk(root, func(c *cobra.Command) error {
		if strings.HasPrefix(c.CommandPath(), "mqcluster completion ") {
			return nil // cobra's own words
		}
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n    %s\n", c.CommandPath(), markdown(c.Long), c.UseLine())
		if c.Example != "" {
			fmt.Fprintf(&b, "\nExamples:\n\n%s\n", indented(c.Example))
		}
		// Those of this verb; what a group gives to its verbs is told there, once.
		flagTable(&b, c.NonInheritedFlags())
		return nil
	})
	return b.String()
}

func anchor(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "-") }

// markdown keeps prose, and what angle brackets it may have, as it is.
func markdown(text string) string {
	return strings.NewReplacer("<", "&lt;", "*", `\*`, "|", `\|`, "_", `\_`).Replace(strings.TrimSpace(text))
}

func indented(example string) string {
	lines := strings.Split(strings.TrimRight(example, "\n"), "\n")
	for i, line := range lines {
		lines[i] = "    " + strings.TrimPrefix(line, "  ")
	}
	return strings.Join(lines, "\n")
}

func flagTable(b *strings.Builder, flags *pflag.FlagSet) {
	first := true
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		if first {
			b.WriteString("\n| flag | default | meaning |\n|---|---|---|\n")
			first = false
		}
		name := "`--" + f.Name + "`"
		if f.Shorthand != "" {
			name = "`-" + f.Shorthand + "`, " + name
		}
		fmt.Fprintf(b, "| %s | %s | %s |\n", name, code(f.DefValue), markdown(f.Usage))
	})
}

func code(text string) string {
	if text == "" || text == "[]" || text == "false" || text == "0s" {
		return ""
	}
	return "`" + strings.ReplaceAll(text, "|", `\|`) + "`"
}

// configReference is every key of a node, and every setting of the cluster.
func configReference() string {
	var b strings.Builder
	b.WriteString("# The configuration\n\n" + generated)
	b.WriteString(`A node is configured by flags, environment variables and one YAML file, in this order:
a flag beats a variable, and a variable beats the file. The file is mqcluster.yaml in the
data directory unless --config names another. All know the same keys; an unknown one is an
error, and mqcluster config check tells everything that is wrong.

What the whole cluster goes by is no key of a node but a [setting](#settings-of-the-cluster),
kept in the log.

## Keys of a node
`)
	section := ""
	keys := node.Keys()
	// Those without a section first, as one.
	slices.SortStableFunc(keys, func(a, b node.Key) int {
		return cmp.Compare(min(strings.Count(a.Name, "."), 1), min(strings.Count(b.Name, "."), 1))
	})
	for _, k := range keys {
		own, _, inside := strings.Cut(k.Name, ".")
		if !inside {
			own = "general"
		}
		if own != section {
			section = own
			fmt.Fprintf(&b, "\n### %s\n\n| key | flag, variable | default | meaning |\n|---|---|---|---|\n", section)
		}
		list := ""
		if k.List {
			list = " (a list)"
		}
		fmt.Fprintf(&b, "| `%s` | `--%s`, `%s` | %s | %s%s |\n", k.Name, k.Flag, k.Env, code(k.Default), markdown(k.Help), list)
	}
	b.WriteString("\n### Keys of a listener\n\nEach element of `listeners` may have these; as a flag they are written in one line:\n`--listener tls,address=0.0.0.0:8883,require_client_cert=true`.\n\n| key | meaning |\n|---|---|\n")
	for _, k := range node.ListenerKeys() {
		fmt.Fprintf(&b, "| `%s` | %s |\n", k.Name, markdown(k.Help))
	}
	b.WriteString("\n## Settings of the cluster\n\n`mqcluster setting list`, `set` and `unset`, on any node; all nodes go by a change when the\ncommand returns.\n\n| setting | default | meaning | feature level |\n|---|---|---|---:|\n")
	for _, k := range fsm.SettingKeys() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %d |\n", k.Key, "`"+k.Default+"`", markdown(k.Help), k.Level)
	}
	return b.String()
}
