package demo

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// style is how a piece of text looks: an SGR parameter, or empty.
type style string

const (
	noStyle style = ""
	bold    style = "1"
	dim     style = "2"
	red     style = "1;31"
	green   style = "32"
	yellow  style = "33"
	bar     style = "7"
)

// span is a piece of a line in one style.
type span struct {
	text  string
	style style
}

// line is one line of the screen.
type line []span

func text(s style, format string, args ...any) line { return line{{fmt.Sprintf(format, args...), s}} }

// render lays v out for a screen of the size. It returns at most height lines,
// none longer than width.
func render(v view, width, height int) []line {
	head := append([]line{titleLine(v, width)}, nodeLines(v.nodes)...)
	head = append(head, nil)
	head = append(head, messageLines(v)...)
	head = append(head, nil, text(bold, "WHAT HAPPENED"))
	foot := append([]line{nil}, tryLines(v.try, width)...)
	foot = append(foot, phaseLine(v, width))

	// What is left between them is the timeline's: its latest events.
	room := max(0, height-len(head)-len(foot))
	events := eventLines(v.events)
	events = events[max(0, len(events)-room):]
	out := append(head, events...)
	for range room - len(events) {
		out = append(out, nil)
	}
	out = append(out, foot...)
	out = out[:min(len(out), max(0, height))]
	for i := range out {
		out[i] = out[i].fit(width)
	}
	return out
}

// titleLine says what this is; the time goes to the right edge.
func titleLine(v view, width int) line {
	left := fmt.Sprintf(" mqcluster demo: %d nodes, mutual TLS; endpoint %s", len(v.nodes), v.endpoint)
	return line{{apart(left, fmt.Sprintf("%d:%02d ", int(v.elapsed.Minutes()), int(v.elapsed.Seconds())%60), width), bar}}
}

// phaseLine says what is being done, and how the devices are.
func phaseLine(v view, width int) line {
	devices := ""
	if v.devices > 0 {
		devices = fmt.Sprintf("%d of %d devices online", v.up, v.devices)
	}
	return line{{apart(v.phase, devices, width), dim}}
}

// apart puts two texts at the edges.
func apart(left, right string, width int) string {
	gap := width - utf8.RuneCountInString(left) - utf8.RuneCountInString(right)
	return left + strings.Repeat(" ", max(1, gap)) + right
}

func nodeLines(nodes []nodeView) []line {
	out := []line{text(bold, "NODE  STATE     ROLE       LEASE    APPLIED  CLIENTS  MSG/S IN    OUT      PID")}
	for _, n := range nodes {
		state, look := nodeState(n)
		l := line{{fmt.Sprintf("%-6s", n.name), noStyle}, {fmt.Sprintf("%-10s", state), look}}
		if !n.answers {
			pid := "-"
			if n.pid != 0 {
				pid = fmt.Sprint(n.pid)
			}
			out = append(out, append(l, span{fmt.Sprintf("%-9s %6s %10s %8s %9s %6s %8s", "-", "-", "-", "-", "-", "-", pid), dim}))
			continue
		}
		role := span{fmt.Sprintf("%-9s ", n.role), noStyle}
		if n.leader {
			role.style = bold
		}
		lease := span{fmt.Sprintf("%5.1fs", n.lease.Seconds()), noStyle}
		if n.lease == 0 {
			lease = span{"  none", yellow}
		}
		out = append(out, append(l, role, lease, span{fmt.Sprintf(" %10s %8d %9.0f %6.0f %8d",
			thousands(int(n.applied)), n.clients, n.in, n.out, n.pid), noStyle}))
	}
	return out
}

func nodeState(n nodeView) (string, style) {
	switch {
	case n.pid == 0:
		return "down", red
	case n.ready:
		return "ready", green
	case n.answers:
		return "not ready", yellow
	}
	return "starting", yellow
}

func messageLines(v view) []line {
	out := []line{text(bold, "QOS 1 FOR        ACKED  DELIVERED  TWICE  UNDER WAY  LOST   MAX GAP  SESSION")}
	for _, s := range v.subscribers {
		gap, lost := "-", green
		if s.gaps {
			gap = milliseconds(s.tally.gap)
		}
		if s.tally.lost > 0 {
			lost = red
		}
		out = append(out, line{
			{fmt.Sprintf("%-12s %9s %10s %6d %10s ", s.name, thousands(s.tally.acked), thousands(s.tally.delivered),
				s.tally.duplicates, thousands(s.tally.owed)), noStyle},
			{fmt.Sprintf("%5d", s.tally.lost), lost},
			{fmt.Sprintf(" %9s  %s", gap, s.where), noStyle},
		})
	}
	return out
}

func eventLines(events []event) []line {
	var out []line
	for _, e := range events {
		out = append(out, line{{stamp(e.at) + "  ", dim}, {e.text, map[mark]style{goodMark: green, badMark: red}[e.mark]}})
	}
	return out
}

// stamp is when an event was, in seconds of the demo.
func stamp(at time.Duration) string { return fmt.Sprintf("%6.1f s", at.Seconds()) }

// tryLines shows the commands to try.
func tryLines(commands []string, width int) []line {
	var out []line
	for _, command := range commands {
		for _, part := range fold(command, width) {
			out = append(out, text(noStyle, "%s", part))
		}
	}
	return out
}

// fold breaks a command before options into lines no longer than width, if they
// allow. All but the last end with a backslash, so that the lines can be copied
// from the screen into a shell.
func fold(command string, width int) (out []string) {
	current := ""
	for i, word := range strings.Split(command, " -") {
		switch {
		case i == 0:
			current = word
		case utf8.RuneCountInString(current)+len(" -")+utf8.RuneCountInString(word)+len(` \`) > width:
			out = append(out, current+` \`)
			current = "  -" + word
		default:
			current += " -" + word
		}
	}
	return append(out, current)
}

// fit cuts the line to width.
func (l line) fit(width int) line {
	var out line
	for _, s := range l {
		if length := utf8.RuneCountInString(s.text); length > width {
			s.text = string([]rune(s.text)[:max(0, width)])
			return append(out, s)
		} else {
			width -= length
		}
		out = append(out, s)
	}
	return out
}

// ansi is the line with its styles; without colour it is the bare text.
func (l line) ansi(colour bool) string {
	var b strings.Builder
	for _, s := range l {
		if colour && s.style != noStyle {
			b.WriteString("\x1b[" + string(s.style) + "m" + s.text + "\x1b[0m")
		} else {
			b.WriteString(s.text)
		}
	}
	return b.String()
}
