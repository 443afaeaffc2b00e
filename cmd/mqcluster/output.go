package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"
)

// output prints results as the operator asked.
type output struct {
	app    *App
	format string
}

// flag gives cmd and what is below it the flag -o.
func (o *output) flag(app *App, cmd *cobra.Command) {
	o.app = app
	cmd.PersistentFlags().VarP((*outputFormat)(&o.format), "output", "o", "table or json")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp))
}

// outputFormat is the value of -o.
type outputFormat string

// String returns the format.
func (f *outputFormat) String() string {
	if *f == "" {
		return "table"
	}
	return string(*f)
}

// Type names the value in the help.
func (f *outputFormat) Type() string { return "format" }

// Set refuses unknown formats.
func (f *outputFormat) Set(text string) error {
	if text != "table" && text != "json" {
		return fmt.Errorf("write table or json")
	}
	*f = outputFormat(text)
	return nil
}

func (o *output) json() bool { return o.format == "json" }

// value prints v as JSON.
func (o *output) value(v any) error {
	encoder := json.NewEncoder(o.app.Out)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return fmt.Errorf("the result cannot be printed: %w", err)
	}
	return nil
}

// list prints items as JSON, or as a table whose rows row makes.
func list[T any](o *output, items []T, header string, row func(T) []any) error {
	if o.json() {
		if items == nil {
			items = []T{}
		}
		return o.value(items)
	}
	t := newTable(o.app.Out, header)
	for _, item := range items {
		t.row(row(item)...)
	}
	return t.flush()
}

// table aligns columns.
type table struct{ w *tabwriter.Writer }

// newTable begins a table; header has its columns separated by blanks.
func newTable(w io.Writer, header string) table {
	t := table{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	fmt.Fprintln(t.w, strings.Join(strings.Fields(header), "\t"))
	return t
}

func (t table) row(cells ...any) {
	texts := make([]string, len(cells))
	for i, cell := range cells {
		texts[i] = printable(fmt.Sprint(cell))
		if texts[i] == "" {
			texts[i] = "-"
		}
	}
	fmt.Fprintln(t.w, strings.Join(texts, "\t"))
}

func (t table) flush() error {
	if err := t.w.Flush(); err != nil {
		return fmt.Errorf("the result cannot be printed: %w", err)
	}
	return nil
}

// printable replaces what would move a terminal's cursor: names come from
// clients.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '\uFFFD'
	}, text)
}

// stamp prints a time for people.
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}

// durationValue is a duration flag that also takes days.
type durationValue struct {
	d     *time.Duration
	parse func(string) (time.Duration, error)
	text  func(time.Duration) string
}

// String returns the value.
func (v durationValue) String() string {
	if v.d == nil {
		return ""
	}
	return v.text(*v.d)
}

// Type names the value in the help.
func (v durationValue) Type() string { return "duration" }

// Set reads a duration.
func (v durationValue) Set(text string) error {
	d, err := v.parse(text)
	if err == nil {
		*v.d = d
	}
	return err
}
