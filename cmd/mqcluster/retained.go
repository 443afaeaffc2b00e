package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/mqcluster/mqcluster/admin"
)

func (a *App) retainedCommand() *cobra.Command {
	cmd := group("retained", "Read, set and clear retained messages",
		"Reads and changes the retained messages of the cluster, without a user and without rights.",
		"  mqcluster retained get 'plant/#'\n  mqcluster retained set plant/mode auto\n  mqcluster retained clear 'plant/old/#'")
	r := a.remoteFlags(cmd)
	cmd.AddCommand(a.retainedGetCommand(r), a.retainedSetCommand(r), a.retainedClearCommand(r))
	return cmd
}

func (a *App) retainedGetCommand(r *remote) *cobra.Command {
	request := admin.RetainedRequest{Limit: 1000}
	raw := false
	cmd := &cobra.Command{
		Use:   "get FILTER",
		Short: "Print the retained messages that match a filter",
		Long: `Prints the retained messages whose topics match FILTER, in the order of the topics. A
payload that is no text is printed as hexadecimal digits; in JSON it is base64. --raw
prints the payload of one topic as it is and nothing else.`,
		Example: `  mqcluster retained get 'plant/+/state'
  mqcluster retained get plant/image --raw > image.png`,
		Args: argCount(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			request.Filter = args[0]
			return r.call(cmd, func(ctx context.Context, c *admin.Client) error {
				found, err := c.ListRetained(ctx, request)
				if err != nil {
					return err
				}
				if raw {
					if len(found) != 1 {
						return fmt.Errorf("--raw prints one message, and %d match %s: name one topic", len(found), args[0])
					}
					_, err := a.Out.Write(found[0].Payload)
					return err
				}
				err = list(&r.out, found, "TOPIC QOS BYTES AT PUBLISHER PAYLOAD", func(m admin.RetainedMessage) []any {
					return []any{m.Topic, m.QoS, len(m.Payload), stamp(time.UnixMilli(m.Stamp)), m.Publisher, payloadText(m.Payload)}
				})
				if err == nil && len(found) == request.Limit {
					fmt.Fprintf(a.Err, "There may be more: --limit, or --after '%s'.\n", printable(found[len(found)-1].Topic))
				}
				return err
			})
		},
	}
	cmd.Flags().IntVar(&request.Limit, "limit", 1000, "print no more than this")
	cmd.Flags().StringVar(&request.After, "after", "", "leave out the topics up to this one")
	cmd.Flags().BoolVar(&raw, "raw", false, "print the payload of one topic as it is")
	return cmd
}

// payloadText is a payload for people, cut off where it is long.
func payloadText(p []byte) string {
	const most = 60
	if !utf8.Valid(p) {
		if len(p) > most/2 {
			return fmt.Sprintf("%x…", p[:most/2])
		}
		return fmt.Sprintf("%x", p)
	}
	text := []rune(string(p))
	if len(text) > most {
		return string(text[:most]) + "…"
	}
	return string(text)
}

func (a *App) retainedSetCommand(r *remote) *cobra.Command {
	var set admin.RetainedSet
	var file, qos string
	expiry := time.Duration(0)
	cmd := &cobra.Command{
		Use:   "set TOPIC [PAYLOAD]",
		Short: "Set the retained message of a topic",
		Long: `Publishes a message with the retain flag: it is kept, and whoever subscribes to TOPIC
gets it now. The payload is an argument, or in a file; - is standard input.`,
		Example: `  mqcluster retained set plant/mode auto
  mqcluster retained set plant/image --file image.png --expiry 24h`,
		Args: argCount(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			set.Topic = args[0]
			n, err := strconv.ParseUint(qos, 10, 2)
			if err != nil || n > 2 {
				return usagef("--qos must be 0, 1 or 2")
			}
			set.QoS = byte(n)
			switch {
			case (len(args) == 2) == (file != ""):
				return usagef("one payload is needed: give it as an argument, or --file")
			case len(args) == 2:
				set.Payload = []byte(args[1])
			case file == "-":
				set.Payload, err = io.ReadAll(a.In)
			default:
				set.Payload, err = os.ReadFile(file)
			}
			if err != nil {
				return fmt.Errorf("the payload cannot be read: %w", err)
			}
			if len(set.Payload) == 0 {
				return usagef("an empty payload would clear the topic: mqcluster retained clear does that")
			}
			if expiry < 0 || expiry%time.Second != 0 || expiry > 1<<31*time.Second {
				return usagef("--expiry must be whole seconds")
			}
			set.Expiry = uint32(expiry / time.Second)
			return r.call(cmd, func(ctx context.Context, c *admin.Client) error {
				change, err := c.SetRetained(ctx, set)
				if err != nil {
					return err
				}
				return r.changed(change, "topic "+args[0]+" is set")
			})
		},
	}
	cmd.Flags().StringVar(&file, "file", "", "file with the payload; - is standard input")
	cmd.Flags().StringVar(&qos, "qos", "1", "quality of service")
	cmd.Flags().Var(durationFlag(&expiry), "expiry", "time after which the message expires (default: never)")
	_ = cmd.MarkFlagFilename("file")
	return cmd
}

func (a *App) retainedClearCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:   "clear FILTER",
		Short: "Clear the retained messages that match a filter",
		Long: `Clears every topic that matches FILTER and has a retained message. Whoever subscribes
to one gets an empty message, as from any client that clears it.`,
		Example: "  mqcluster retained clear 'plant/old/#'",
		Args:    argCount(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return r.call(cmd, func(ctx context.Context, c *admin.Client) error {
				cleared, err := c.ClearRetained(ctx, args[0])
				if err != nil {
					return err
				}
				if r.out.json() {
					if err := r.out.value(cleared); err != nil {
						return err
					}
					return notApplied(cleared.Change)
				}
				return r.changed(cleared.Change, fmt.Sprintf("%d topics are cleared", cleared.Cleared))
			})
		},
	}
}
