package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/mqcluster/mqcluster/node"
)

// closeMargin is what a shutdown may take beyond the drain: another node is to lead
// first, and what is in flight is finished after it.
const closeMargin = 20 * time.Second

func (a *App) runCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the node of a data directory",
		Long: `Runs the node that init or join made until SIGTERM or SIGINT; a second signal
ends it at once. It tells systemd when it is ready (as /readyz says), alive and
stopping (Type=notify).` + keysHint,
		Example: `  mqcluster run --data-dir /var/lib/mqcluster
  mqcluster run --config /etc/mqcluster/mqcluster.yaml --log.format json`,
		Args: argCount(0, 0),
	}
	s := a.configFlags(cmd, mainKeys)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		config, err := s.loadNode()
		if err != nil {
			return err
		}
		return a.run(cmd.Context(), config)
	}
	return cmd
}

// run opens the node and closes it when ctx ends or the node left the cluster.
func (a *App) run(ctx context.Context, config *node.Loaded) error {
	if a.Open == nil {
		return errors.New("this build has no node in it")
	}
	if err := config.CheckFiles(time.Now()); err != nil {
		return err
	}
	logger, closeLog, err := a.openLog(config.Log)
	if err != nil {
		return err
	}
	defer closeLog()
	own := logger.With("node", config.Node.ID) // the node names itself
	if warning := config.DescriptorWarning(); warning != "" {
		config.Warnings = append(config.Warnings, warning)
	}
	for _, warning := range config.Warnings {
		own.Warn(warning)
	}
	service := newService(a.Env, own)
	running, err := a.Open(ctx, config.Config, logger)
	if err != nil {
		return err
	}
	service.wait(ctx, running)
	return service.stop(running, config.Drain.Delay+config.Drain.Timeout+closeMargin)
}
