package main

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// notifier tells systemd the state of the service: one datagram to the socket
// that $NOTIFY_SOCKET names (sd_notify(3)).
type notifier struct{ address string }

// newNotifier returns a notifier that says nothing where there is no systemd.
func newNotifier(env []string) *notifier { return &notifier{variable(env, "NOTIFY_SOCKET")} }

func (n *notifier) notify(state string) error {
	if n.address == "" {
		return nil
	}
	// A leading @ stands for the zero byte of an abstract socket; package net
	// reads it the same way.
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.address, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(state)); err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	return nil
}

// watchdogInterval returns how often systemd wants to hear of us, halved for
// safety; 0 if never.
func watchdogInterval(env []string) time.Duration {
	if pid := variable(env, "WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0
	}
	micros, err := strconv.ParseInt(variable(env, "WATCHDOG_USEC"), 10, 64)
	if err != nil || micros <= 0 {
		return 0
	}
	return time.Duration(micros) * time.Microsecond / 2
}

// variable returns the value of an environment variable, the last one if there
// are several.
func variable(env []string, name string) string {
	value := ""
	for _, entry := range env {
		if text, found := strings.CutPrefix(entry, name+"="); found {
			value = text
		}
	}
	return value
}
