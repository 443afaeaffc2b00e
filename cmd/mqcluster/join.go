package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mqcluster/mqcluster/node"
)

func (a *App) joinCommand() *cobra.Command {
	var (
		token, tokenFile, replace string
		run, serving              bool
		out                       output
	)
	cmd := &cobra.Command{
		Use:   "join ADDRESS",
		Short: "Make this machine a node of a cluster",
		Long: `Makes a key on this machine, checks the cluster's certificate authority against
the token before it sends anything secret, and is admitted by the member whose
mesh port is at ADDRESS. What is set by flags or variables is written to
mqcluster.yaml in the data directory. Running it again with the same data
directory is safe.

It votes as soon as it has caught up and a vote is open: as many nodes vote as the
setting cluster.voters says (5), always an odd number. Further ones serve clients all
the same, and one of them votes when a voter is removed. With --serving-only it never
does.

The token is what mqcluster init or mqcluster token create printed; --token - and
--token-file keep it out of the list of processes.` + keysHint,
		Example: `  mqcluster join 10.0.0.1:7883 --token MQ1.… --node b
  mqcluster join 10.0.0.1:7883 --token-file token --node c --run
  mqcluster join 10.0.0.1:7883 --token - --node d --replace b < token
  mqcluster join 10.0.0.1:7883 --token-file token --node e --serving-only`,
		Args: argCount(1, 1),
	}
	s := a.configFlags(cmd, mainKeys)
	out.flag(a, cmd)
	cmd.Flags().StringVar(&token, "token", "", "the join token; - reads it from standard input")
	cmd.Flags().StringVar(&tokenFile, "token-file", "", "file with the join token")
	cmd.Flags().StringVar(&replace, "replace", "", "member whose vote this node takes over; it must be down for good")
	cmd.Flags().BoolVar(&serving, "serving-only", false, "serve clients and never vote")
	cmd.Flags().BoolVar(&run, "run", false, "go on as mqcluster run")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if a.Join == nil {
			return errors.New("this build has no node in it")
		}
		if _, _, err := net.SplitHostPort(args[0]); err != nil {
			return usagef("address %q is not host:port: write the mesh address of a member, such as 10.0.0.1:7883", args[0])
		}
		secret, err := a.readToken(token, tokenFile)
		if err != nil {
			return err
		}
		config, err := s.loadNode()
		if err != nil {
			return err
		}
		options := node.JoinOptions{Address: args[0], Token: secret, Replace: replace, ServingOnly: serving}
		result, err := a.Join(cmd.Context(), config.Config, options)
		if err != nil {
			return err
		}
		if err := a.keep(config); err != nil {
			return err
		}
		if err := a.printJoined(&out, config, result, run); err != nil || !run {
			return err
		}
		return a.run(cmd.Context(), config)
	}
	return cmd
}

func (a *App) printJoined(out *output, config *node.Loaded, result node.JoinResult, run bool) error {
	if out.json() {
		return out.value(result)
	}
	if result.Already {
		fmt.Fprintf(a.Out, "node %s is already in cluster %s\n", result.Node, result.ClusterID)
	} else {
		fmt.Fprintf(a.Out, "node %s has joined cluster %s\n", result.Node, result.ClusterID)
	}
	if !run {
		fmt.Fprintf(a.Out, "\nStart it:\n  mqcluster run --data-dir %s\n", quoted(config.DataDir))
	}
	return nil
}

// readToken takes the token from where the flags say.
func (a *App) readToken(token, file string) (string, error) {
	switch {
	case token != "" && file != "":
		return "", usagef("--token and --token-file exclude each other: give one")
	case token == "-":
		text, err := readSecret(a.In)
		return string(text), err
	case token != "":
		return token, nil
	case file == "":
		return "", usagef("a token is missing: make one with mqcluster token create on a member and give it with --token or --token-file")
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("the token file cannot be read: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}
