package demo

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"

	"github.com/spf13/cobra"
)

// config is what the command line says.
type config struct {
	dir      string
	endpoint string // host:port of the balancer
	nodes    int
	once     bool
	plain    bool

	program string // the binary whose verbs are run
	out     io.Writer
}

// Command returns the verb demo.
func Command() *cobra.Command {
	c := &config{}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run a cluster on this machine, kill its leader and count what is lost",
		Long: `Runs three nodes on this machine, each a process of its own that joins with a
token over mutual TLS, and a balancer before them. Devices with a user name, a
password and a client certificate publish and subscribe through it. While their
messages flow the leader is killed with kill -9 and started again; every message
is counted, and the screen shows what each node does and what was lost.

It stays up until Ctrl-C, so that you can connect clients of your own: the lines
to type are on the screen. Nothing is left running. The directory keeps the logs
until the next run, which starts afresh.`,
		Example: `  mqcluster demo
  mqcluster demo --nodes 5 --endpoint 127.0.0.1:18883
  mqcluster demo --once && echo nothing was lost`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			program, err := os.Executable()
			if err != nil {
				return fmt.Errorf("the demo does not find its own program: %w", err)
			}
			c.program, c.out = program, cmd.OutOrStdout()
			if err := c.validate(); err != nil {
				return err
			}
			return run(cmd.Context(), *c)
		},
		SilenceUsage: true,
	}
	f := cmd.Flags()
	f.StringVar(&c.dir, "dir", "demo-data", "directory of the nodes; one of an earlier demo is emptied")
	f.StringVar(&c.endpoint, "endpoint", "127.0.0.1:8883", "address of the balancer, for clients")
	f.IntVar(&c.nodes, "nodes", 3, "how many nodes: 3 or 5")
	f.BoolVar(&c.once, "once", false, "end after the story, with exit code 1 if anything was lost")
	f.BoolVar(&c.plain, "plain", false, "print lines instead of the live screen, as when the output is no terminal")
	_ = cmd.MarkFlagDirname("dir")
	return cmd
}

func (c *config) validate() error {
	if c.nodes != 3 && c.nodes != 5 {
		return fmt.Errorf("--nodes %d makes no majority that survives a kill: write 3 or 5", c.nodes)
	}
	if c.dir == "" {
		return errors.New("--dir is empty: name a directory")
	}
	host, port, err := net.SplitHostPort(c.endpoint)
	if err != nil {
		return fmt.Errorf("--endpoint %q is not host:port: write it such as 127.0.0.1:8883", c.endpoint)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return fmt.Errorf("--endpoint %q has no port between 1 and 65535: write it such as 127.0.0.1:8883", c.endpoint)
	}
	// The nodes' certificates name this machine's loopback, and the demo's user
	// is nobody's business.
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("--endpoint %q is not on this machine's loopback: write it such as 127.0.0.1:8883", c.endpoint)
	}
	return nil
}
