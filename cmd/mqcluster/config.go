package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/mqcluster/mqcluster/node"
)

func (a *App) configCommand() *cobra.Command {
	return group("config", "Check and show the configuration",
		`Flags, environment variables and one YAML file share the same names. A flag
beats a variable, a variable beats the file, the file beats the default.`,
		"  mqcluster config check /etc/mqcluster/mqcluster.yaml\n  mqcluster config show --data-dir /var/lib/mqcluster",
		a.configCheckCommand(), a.configShowCommand(), a.configKeysCommand(), a.configExampleCommand())
}

func (a *App) configCheckCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Tell everything that is wrong with a configuration",
		Long: `Reads a configuration as run would and checks it, the certificates and keys that
it names included. Without FILE it is the one that run would read.`,
		Example: `  mqcluster config check /etc/mqcluster/mqcluster.yaml
  mqcluster config check --data-dir /var/lib/mqcluster`,
		Args: argCount(0, 1),
	}
	s := a.configFlags(cmd, mainKeys)
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		if len(args) == 1 {
			if s.file != "" {
				return usagef("--config and FILE exclude each other: give one")
			}
			s.file = args[0]
		}
		config, err := s.load()
		if err != nil {
			return err
		}
		for _, warning := range config.Warnings {
			fmt.Fprintln(a.Err, "warning:", warning)
		}
		if err := config.CheckFiles(time.Now()); err != nil {
			return err
		}
		from := "the configuration"
		if config.File != "" {
			from = config.File
		}
		fmt.Fprintln(a.Out, from, "is valid")
		return nil
	}
	return cmd
}

func (a *App) configShowCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Print the effective configuration and where each value comes from",
		Long:  "Prints the configuration that run would use, as a file that it accepts; a comment tells the source of each value." + keysHint,
		Example: `  mqcluster config show --data-dir /var/lib/mqcluster
  MQCLUSTER_LOG_LEVEL=debug mqcluster config show`,
		Args: argCount(0, 0),
	}
	s := a.configFlags(cmd, mainKeys)
	cmd.RunE = func(*cobra.Command, []string) error {
		config, err := s.load()
		if err != nil {
			return err
		}
		for _, warning := range config.Warnings {
			fmt.Fprintln(a.Err, "warning:", warning)
		}
		text, err := config.YAML()
		if err != nil {
			return err
		}
		_, err = a.Out.Write(text)
		return err
	}
	return cmd
}

func (a *App) configKeysCommand() *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use:     "keys",
		Short:   "List every key with its flag, variable, default and meaning",
		Long:    "Lists every key of the configuration file with the flag and the variable that do the same.",
		Example: "  mqcluster config keys\n  mqcluster config keys -o json",
		Args:    argCount(0, 0),
		RunE: func(*cobra.Command, []string) error {
			type key struct {
				Name    string `json:"key"`
				Flag    string `json:"flag"`
				Env     string `json:"variable"`
				Default string `json:"default"`
				Help    string `json:"help"`
			}
			var keys []key
			for _, k := range node.Keys() {
				keys = append(keys, key{k.Name, "--" + k.Flag, k.Env, k.Default, k.Help})
			}
			return list(&out, keys, "KEY FLAG VARIABLE DEFAULT MEANING", func(k key) []any {
				return []any{k.Name, k.Flag, k.Env, k.Default, k.Help}
			})
		},
	}
	out.flag(a, cmd)
	return cmd
}

func (a *App) configExampleCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "example",
		Short: "Print a commented configuration file to begin with",
		Long: `Prints a configuration file that shows every key with its meaning and its default,
and sets none.`,
		Example: "  mqcluster config example > mqcluster.yaml",
		Args:    argCount(0, 0),
		RunE: func(*cobra.Command, []string) error {
			text, err := node.Example()
			if err != nil {
				return err
			}
			_, err = a.Out.Write(text)
			return err
		},
	}
}
