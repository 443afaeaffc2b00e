package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/mqcluster/mqcluster/bench"
	"github.com/mqcluster/mqcluster/demo"
	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/node"
	"github.com/spf13/cobra"
)

// wire plugs package node and the other commands of the house into app.
func wire(app *App) {
	app.Build.Level = fsm.Level
	quiet := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	app.Init = func(ctx context.Context, config node.Config) (node.InitResult, error) {
		return node.Init(ctx, config, quiet)
	}
	app.Join = func(ctx context.Context, config node.Config, options node.JoinOptions) (node.JoinResult, error) {
		return node.Join(ctx, config, options, quiet)
	}
	app.Inspect = node.InspectSurvivor
	app.Recover = func(ctx context.Context, config node.Config) (*node.Survivor, error) {
		return node.Recover(ctx, config, quiet)
	}
	app.Restore = func(ctx context.Context, config node.Config, in io.Reader, options node.RestoreOptions) (node.RestoreResult, error) {
		return node.Restore(ctx, config, in, options, quiet)
	}
	app.Open = func(ctx context.Context, config node.Config, logger *slog.Logger) (Node, error) {
		return node.Open(ctx, config, node.Deps{
			Logger: logger, Version: app.Build.Version,
			Fatal: func(err error) {
				logger.Error("the process ends to keep what it has acknowledged", "err", err)
				fmt.Fprintln(os.Stderr, "mqcluster:", err)
				os.Exit(1)
			},
		})
	}
	app.Extra = append(app.Extra, func() *cobra.Command { return bench.Command() }, demo.Command)
}
