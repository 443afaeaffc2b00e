package mosquitto

import (
	"fmt"
	"strings"
)

// Verdict says what becomes of a line.
type Verdict byte

// The verdicts.
const (
	// Taken: it has its counterpart, which Why names.
	Taken Verdict = iota
	// NotNeeded: nothing is lost without it; Why says why.
	NotNeeded
	// NotSupported: something is lost; Why says what to do instead.
	NotSupported
)

// String is the words of the report.
func (v Verdict) String() string {
	switch v {
	case Taken:
		return "taken"
	case NotNeeded:
		return "not needed"
	}
	return "not supported"
}

// MarshalText makes reports in JSON readable.
func (v Verdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// Note is one line of the report: what was read where, and what becomes of it.
type Note struct {
	File string `json:"file"`
	// Line counts from 1; 0 where the file has no lines.
	Line    int     `json:"line,omitempty"`
	Text    string  `json:"text"`
	Verdict Verdict `json:"verdict"`
	Why     string  `json:"why"`
}

// String is "file:line: verdict: text: why".
func (n Note) String() string {
	at := n.File
	if n.Line > 0 {
		at = fmt.Sprintf("%s:%d", n.File, n.Line)
	}
	return at + ": " + n.Verdict.String() + ": " + n.Text + ": " + n.Why
}

// maxText is how much of a line a note repeats, in bytes.
const maxText = 200

// noted returns a note; the text is made printable and cut.
func noted(file string, line int, text string, v Verdict, why string) Note {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "") + "…"
	}
	return Note{File: file, Line: line, Text: text, Verdict: v, Why: why}
}
