package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/mqcluster/mqcluster/node"
)

// closeMargin is what a shutdown may take beyond the drain.
const closeMargin = 20 * time.Second

func (a *App) runCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the node of a data directory",
		Long: `Runs the node that init or join made until SIGTERM or SIGINT; a second signal
ends it at once. It tells systemd when it is ready, alive and stopping
(Type=notify).` + keysHint,
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
	for _, warning := range config.Warnings {
		own.Warn(warning)
	}
	manager := newNotifier(a.Env)
	running, err := a.Open(ctx, config.Config, logger)
	if err != nil {
		return err
	}
	a.tell(own, manager, "READY=1\nSTATUS=serving")
	a.wait(ctx, own, manager, running)
	a.tell(own, manager, "STOPPING=1\nSTATUS=sending clients away")
	return closeNode(running, config.Drain.Timeout+closeMargin)
}

// wait returns when the node is to stop. Until then it strokes systemd's
// watchdog.
func (a *App) wait(ctx context.Context, logger *slog.Logger, manager *notifier, running Node) {
	var tick <-chan time.Time
	if interval := watchdogInterval(a.Env); interval > 0 {
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		tick = ticker.C
	}
	for {
		select {
		case <-ctx.Done():
			logger.Info("stopping on a signal")
			return
		case <-running.Left():
			logger.Info("stopping: this node has left the cluster")
			return
		case <-running.Asked():
			logger.Info("stopping: an operator drained this node to stop it")
			return
		case <-tick:
			// A node that can tell must be well to be kept.
			if live, can := running.(interface{ Live() error }); can {
				if err := live.Live(); err != nil {
					logger.Error("the watchdog is not stroked", "err", err)
					continue
				}
			}
			a.tell(logger, manager, "WATCHDOG=1")
		}
	}
}

func (a *App) tell(logger *slog.Logger, manager *notifier, state string) {
	if err := manager.notify(state); err != nil {
		logger.Warn("systemd was not told", "err", err)
	}
}

// closeNode bounds Close: what has not ended by then is left to the end of the
// process, which loses nothing that was acknowledged.
func closeNode(running Node, limit time.Duration) error {
	closed := make(chan error, 1)
	go func() { closed <- running.Close() }()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case err := <-closed:
		return err
	case <-timer.C:
		return fmt.Errorf("the node did not stop within %s: it was ended; nothing acknowledged is lost", node.FormatDuration(limit))
	}
}
