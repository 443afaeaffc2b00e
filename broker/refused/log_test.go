package refused

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// TestOncePerPeriod: however often something is refused, it is told once in a
// period, and the next line says how many there were.
func TestOncePerPeriod(t *testing.T) {
	var out bytes.Buffer
	l := New(slog.New(slog.NewTextHandler(&out, nil)))
	now := time.Unix(1000, 0)
	l.now = func() time.Time { return now }
	for range 1000 {
		l.Note("credentials", "192.0.2.1", "user", "x")
		l.Note("credentials", "192.0.2.2")
	}
	if n := strings.Count(out.String(), "\n"); n != 2 {
		t.Fatalf("%d lines for 2,000 refusals of two sources:\n%s", n, out.String())
	}
	out.Reset()
	now = now.Add(Period)
	l.Note("credentials", "192.0.2.1")
	if !strings.Contains(out.String(), "more_before=999") {
		t.Errorf("the line after a period is %q", out.String())
	}
	l.Note("other", "192.0.2.1")
	if n := strings.Count(out.String(), "\n"); n != 2 {
		t.Errorf("another reason is not told apart:\n%s", out.String())
	}
}

// TestSourcesAreBounded: a flood of sources takes no more memory than is allowed,
// and is forgotten.
func TestSourcesAreBounded(t *testing.T) {
	l := New(slog.New(slog.DiscardHandler))
	now := time.Unix(1000, 0)
	l.now = func() time.Time { return now }
	for i := range 3 * maxSources {
		l.Note("r", fmt.Sprint(i))
	}
	if len(l.seen) != maxSources {
		t.Errorf("%d sources are remembered", len(l.seen))
	}
	now = now.Add(Period)
	l.Note("r", "new")
	if len(l.seen) != 1 {
		t.Errorf("%d sources are remembered after a period", len(l.seen))
	}
	(*Log)(nil).Note("r", "s")
}

func TestSource(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "::ffff:192.0.2.1": "192.0.2.1",
		"2001:db8:1:2:3:4:5:6": "2001:db8:1:2::", "2001:db8:1:2::9": "2001:db8:1:2::", "fe80::1%eth0": "fe80::",
	} {
		if got := Source(netip.MustParseAddr(in)); got.String() != want {
			t.Errorf("Source(%s) = %v, want %s", in, got, want)
		}
	}
}
