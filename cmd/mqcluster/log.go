package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"log/syslog"
	"sync"

	"github.com/mqcluster/mqcluster/node"
)

// openLog returns the logger that the configuration asks for. Under systemd,
// stderr gets the priority prefix that journald understands.
func (a *App) openLog(config node.LogConfig) (*slog.Logger, func(), error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(config.Level)); err != nil {
		return nil, nil, fmt.Errorf("log.level: %w", err)
	}
	done := func() {}
	var sink func(slog.Level, []byte) error
	dated := true
	switch {
	case config.Output == "syslog":
		writer, err := syslog.New(syslog.LOG_DAEMON|syslog.LOG_INFO, "mqcluster")
		if err != nil {
			return nil, nil, fmt.Errorf("the system's log cannot be reached: start a syslog daemon or set log.output to stderr: %w", err)
		}
		done, dated = func() { _ = writer.Close() }, false
		sink = func(level slog.Level, line []byte) error { return writeSyslog(writer, level, string(line)) }
	case config.Output == "journald" || variable(a.Env, "JOURNAL_STREAM") != "":
		dated = false
		sink = func(level slog.Level, line []byte) error {
			_, err := fmt.Fprintf(a.Err, "<%d>%s", priority(level), line)
			return err
		}
	default:
		sink = func(_ slog.Level, line []byte) error {
			_, err := a.Err.Write(line)
			return err
		}
	}
	return slog.New(newLineHandler(sink, level, config.Format == "json", dated)), done, nil
}

func writeSyslog(w *syslog.Writer, level slog.Level, line string) error {
	switch priority(level) {
	case 3:
		return w.Err(line)
	case 4:
		return w.Warning(line)
	case 6:
		return w.Info(line)
	}
	return w.Debug(line)
}

// priority is the level as syslog(3) counts.
func priority(level slog.Level) int {
	switch {
	case level >= slog.LevelError:
		return 3
	case level >= slog.LevelWarn:
		return 4
	case level >= slog.LevelInfo:
		return 6
	}
	return 7
}

// lineHandler hands each formatted record to a sink together with its level,
// which the handlers of slog do not tell their writer.
type lineHandler struct {
	inner slog.Handler
	line  *lineBuffer
}

// lineBuffer is what the handlers that came of one newLineHandler share.
type lineBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
	sink func(slog.Level, []byte) error
}

// newLineHandler makes a handler; without dated it leaves out the time, which
// the receiver adds itself.
func newLineHandler(sink func(slog.Level, []byte) error, level slog.Level, asJSON, dated bool) *lineHandler {
	line := &lineBuffer{sink: sink}
	options := &slog.HandlerOptions{Level: level}
	if !dated {
		options.ReplaceAttr = func(groups []string, attribute slog.Attr) slog.Attr {
			if len(groups) == 0 && attribute.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return attribute
		}
	}
	var inner slog.Handler = slog.NewTextHandler(io.Writer(&line.text), options)
	if asJSON {
		inner = slog.NewJSONHandler(&line.text, options)
	}
	return &lineHandler{inner: inner, line: line}
}

// Enabled is slog.Handler's.
func (h *lineHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.inner.Enabled(ctx, level)
}

// Handle formats the record and hands it on as one line.
func (h *lineHandler) Handle(ctx context.Context, record slog.Record) error {
	h.line.mu.Lock()
	defer h.line.mu.Unlock()
	h.line.text.Reset()
	if err := h.inner.Handle(ctx, record); err != nil {
		return err
	}
	return h.line.sink(record.Level, h.line.text.Bytes())
}

// WithAttrs is slog.Handler's.
func (h *lineHandler) WithAttrs(attributes []slog.Attr) slog.Handler {
	return &lineHandler{inner: h.inner.WithAttrs(attributes), line: h.line}
}

// WithGroup is slog.Handler's.
func (h *lineHandler) WithGroup(name string) slog.Handler {
	return &lineHandler{inner: h.inner.WithGroup(name), line: h.line}
}
