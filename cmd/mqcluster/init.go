package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

func (a *App) initCommand() *cobra.Command {
	var (
		tokenOut string
		out      output
	)
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make the first node of a new cluster",
		Long: `Makes the cluster's certificate authority and its first node in the data
directory, and prints the command with which another machine joins. What is set
here by flags or variables is written to mqcluster.yaml in the data directory, so
that run needs no more than --data-dir. Running it again changes nothing.

--token-out writes the join token to a file instead, for a machine that joins with
--token-file.` + keysHint,
		Example: `  mqcluster init --data-dir /var/lib/mqcluster --node a
  mqcluster init --data-dir ./a --node a --mesh.listen 127.0.0.1:7883 \
    --listener tls,address=127.0.0.1:8883,require_client_cert=true
  mqcluster init --node a --token-out join.token`,
		Args: argCount(0, 0),
	}
	s := a.configFlags(cmd, mainKeys)
	out.flag(a, cmd)
	cmd.Flags().StringVar(&tokenOut, "token-out", "", "file to write the join token to, which is then not printed")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if a.Init == nil {
			return errors.New("this build has no node in it")
		}
		config, err := s.loadNode()
		if err != nil {
			return err
		}
		result, err := a.Init(cmd.Context(), config.Config)
		if err != nil {
			return err
		}
		if err := a.keep(config); err != nil {
			return err
		}
		if tokenOut != "" && result.Token != "" {
			if err := writeAtomic(tokenOut, []byte(result.Token+"\n"), 0o600); err != nil {
				return fmt.Errorf("%w; the node is made, and mqcluster token create makes another token once it runs", err)
			}
			result.JoinCommand = strings.ReplaceAll(result.JoinCommand, "--token "+result.Token, "--token-file "+quoted(tokenOut))
		}
		if out.json() {
			return out.value(result)
		}
		if result.Already {
			fmt.Fprintf(a.Out, "%s is already initialised.\n", config.DataDir)
		}
		fmt.Fprintf(a.Out, "cluster  %s (%s)\nnode     %s\nmesh     %s\nca       %s\n",
			result.ClusterID, printable(result.ClusterName), result.Node, result.MeshAddress, result.CAFile)
		fmt.Fprintf(a.Out, "\nStart it:\n  mqcluster run --data-dir %s\n", quoted(config.DataDir))
		if result.JoinCommand != "" {
			until := ""
			if !result.TokenUntil.IsZero() {
				until = ", until " + stamp(result.TokenUntil)
			}
			fmt.Fprintf(a.Out, "\nAdd a node, on another machine%s:\n  %s\n", until, result.JoinCommand)
		} else {
			fmt.Fprintf(a.Out, "\nAdd a node: make a token with\n  mqcluster token create --data-dir %s\n", quoted(config.DataDir))
		}
		return nil
	}
	return cmd
}
