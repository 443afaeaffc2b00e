package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/eclipse/paho.golang/paho"
	"github.com/spf13/cobra"
)

// publishFlags say what pub sends.
type publishFlags struct {
	topic, message, file string
	qos                  int
	retain, null, lines  bool
}

func (a *App) pubCommand() *cobra.Command {
	var connect mqttFlags
	var what publishFlags
	cmd := &cobra.Command{
		Use:   "pub -t TOPIC (-m MESSAGE | -f FILE | -l | -n)",
		Short: "Publish messages",
		Long: `Publishes to any MQTT 5 broker, over TLS. At QoS 1 and 2 it ends when the broker
has acknowledged: from a cluster that means that a majority has the message on
disk.`,
		Example: `  mqcluster pub -h mqtt.example.org --cafile ca.pem -u dev1 -t sensors/dev1/t -m 21.5 -q 1
  mqcluster pub --cafile ca.pem --cert dev1.pem --key dev1.key -t state/dev1 -m on -r -q 1
  seq 100 | mqcluster pub --cafile ca.pem -u dev1 --password-file secret -t n -l -q 1`,
		Args: argCount(0, 0),
	}
	connect.flags(cmd)
	f := cmd.Flags()
	f.StringVarP(&what.topic, "topic", "t", "", "topic")
	f.StringVarP(&what.message, "message", "m", "", "payload")
	f.StringVarP(&what.file, "file", "f", "", "file with the payload; - is standard input")
	f.BoolVarP(&what.lines, "stdin-line", "l", false, "each line of standard input is a message")
	f.BoolVarP(&what.null, "null-message", "n", false, "an empty payload")
	f.IntVarP(&what.qos, "qos", "q", 0, "quality of service: 0, 1 or 2")
	f.BoolVarP(&what.retain, "retain", "r", false, "the broker keeps the message for later subscribers")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := exclusive(cmd, true, "message", "file", "stdin-line", "null-message"); err != nil {
			return err
		}
		if what.topic == "" || strings.ContainsAny(what.topic, "+#") {
			return usagef("topic %q cannot be published to: give one with -t, without + and #", what.topic)
		}
		if what.qos < 0 || what.qos > 2 {
			return usagef("QoS %d does not exist: write 0, 1 or 2", what.qos)
		}
		dialer, err := connect.dialer(a)
		if err != nil {
			return err
		}
		defer clear(dialer.password)
		c, err := dialer.connect(cmd.Context(), sessionOptions{clean: true})
		if err != nil {
			return err
		}
		defer c.disconnect(func() {})
		return a.publish(cmd.Context(), c, &what)
	}
	return cmd
}

func (a *App) publish(ctx context.Context, c *connection, what *publishFlags) error {
	switch {
	case what.lines:
		lines := scanLines(a)
		for lines.Scan() {
			if err := publishOne(ctx, c, what, lines.Bytes()); err != nil {
				return err
			}
		}
		if err := lines.Err(); err != nil {
			return fmt.Errorf("standard input cannot be read: %w", err)
		}
		return nil
	case what.file != "":
		payload, err := a.readPayload(what.file)
		if err != nil {
			return err
		}
		return publishOne(ctx, c, what, payload)
	}
	return publishOne(ctx, c, what, []byte(what.message))
}

func (a *App) readPayload(path string) (payload []byte, err error) {
	if path == "-" {
		payload, err = io.ReadAll(a.In)
	} else {
		payload, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, fmt.Errorf("the payload cannot be read: %w", err)
	}
	return payload, nil
}

func publishOne(ctx context.Context, c *connection, what *publishFlags, payload []byte) error {
	response, err := c.Publish(ctx, &paho.Publish{Topic: what.topic, QoS: byte(what.qos), Retain: what.retain, Payload: payload})
	if response != nil && response.ReasonCode >= 0x80 {
		reason := ""
		if response.Properties != nil {
			reason = response.Properties.ReasonString
		}
		return reasonError("the broker refused the message", response.ReasonCode, reason)
	}
	if err == nil {
		return nil
	}
	if cause := c.cause.Load(); cause != nil {
		return fmt.Errorf("the message was not acknowledged and may be lost: %w", *cause)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return errors.New("the message was not acknowledged in time and may be lost: look at mqcluster status for the quorum, or raise --timeout")
	}
	return fmt.Errorf("the message was not acknowledged and may be lost: %w", err)
}
