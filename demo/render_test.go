package demo

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/mqcluster/mqcluster/admin"
)

func sampleView(nodes int) view {
	v := view{
		endpoint: "127.0.0.1:8883", elapsed: 83 * time.Second, phase: "n1 is dead",
		subscribers: []subscriberView{
			{"control room", "at n2", tally{acked: 1234567, delivered: 1234565, duplicates: 16, owed: 2, gap: 1051 * time.Millisecond}, true},
			{"laptop", "offline", tally{acked: 193, owed: 190, lost: 3}, false},
		},
		devices: 11, up: 9,
		try: []string{
			"mosquitto_sub -h 127.0.0.1 --cafile demo-data/ca.pem --cert demo-data/dev.pem --key demo-data/dev.key -u dev -P abcdefghijkl -v -t 'park/#'",
			"bin/mqcluster status --data-dir demo-data/n3",
		},
	}
	all := []nodeView{
		{name: "n1"},
		{name: "n2", pid: 26512, ready: true, answers: true, leader: true, role: admin.RoleLeader, lease: 4700 * time.Millisecond, applied: 1659, clients: 6, in: 78, out: 192},
		{name: "n3", pid: 26529, answers: true, role: admin.RoleVoter, applied: 1656, clients: 6, in: 113.6},
		{name: "n4", pid: 26600},
		{name: "n5", pid: 26601, ready: true, answers: true, role: admin.RoleNonVoter, lease: 5 * time.Second, applied: 1656},
	}
	v.nodes = all[:nodes]
	for i, e := range []string{"first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth, which is so long that it does not fit into a line of eighty columns"} {
		v.events = append(v.events, event{time.Duration(i) * 2500 * time.Millisecond, e, mark(i % 3)})
	}
	return v
}

func TestRenderGolden(t *testing.T) {
	for name, test := range map[string]struct {
		view          view
		width, height int
		colour        bool
	}{
		"three-80x24":  {sampleView(3), 79, 24, false},
		"three-colour": {sampleView(3), 79, 24, true},
		"five-80x24":   {sampleView(5), 79, 24, false},
		"wide-120x30":  {sampleView(3), 119, 30, false},
		"start":        {view{endpoint: "127.0.0.1:8883", phase: "starting the nodes", nodes: []nodeView{{name: "n1", pid: 7}, {name: "n2"}}}, 79, 24, false},
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			for _, l := range render(test.view, test.width, test.height) {
				b.WriteString(strings.TrimRight(l.ansi(test.colour), " ") + "\n")
			}
			golden(t, name, b.Bytes())
		})
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (UPDATE_GOLDEN=1 rewrites it):\n%s", path, diff)
	}
}

func TestRenderFitsEverySize(t *testing.T) {
	for _, width := range []int{1, 20, 79, 200} {
		for height := range 40 {
			lines := render(sampleView(5), width, height)
			if len(lines) > height {
				t.Fatalf("%d lines at height %d", len(lines), height)
			}
			for _, l := range lines {
				if n := utf8.RuneCountInString(l.ansi(false)); n > width {
					t.Fatalf("a line of %d at width %d: %q", n, width, l.ansi(false))
				}
			}
		}
	}
}

// TestFrameOverwrites: a frame starts at the top, erases the rest of each line
// and of the screen, and never scrolls.
func TestFrameOverwrites(t *testing.T) {
	got := frame([]line{text(noStyle, "one"), nil, text(bold, "two")}, true)
	if want := "\x1b[Hone\x1b[K\r\n\x1b[K\r\n\x1b[1mtwo\x1b[0m\x1b[K\x1b[J"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestFoldCanBeCopied(t *testing.T) {
	command := "mosquitto_sub -h 127.0.0.1 --cafile ca.pem -t 'park/#' -v"
	for width := 1; width < 80; width++ {
		parts := fold(command, width)
		joined := ""
		for i, p := range parts {
			if len(p) > width && strings.Count(strings.TrimSpace(p), " -") > 0 {
				t.Errorf("width %d: %q could have been broken", width, p)
			}
			if i < len(parts)-1 {
				rest, ok := strings.CutSuffix(p, `\`)
				if !ok {
					t.Fatalf("width %d: %q does not go on", width, p)
				}
				p = rest
			}
			joined += p
		}
		if got := strings.Join(strings.Fields(joined), " "); got != command {
			t.Errorf("width %d: a shell reads %q", width, got)
		}
	}
}

func TestThousands(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 12345: "12,345", 1002003: "1,002,003", -1500: "-1,500"} {
		if got := thousands(n); got != want {
			t.Errorf("%d is written %s", n, got)
		}
	}
}
