package node

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/mqcluster/mqcluster/admin"
	"github.com/mqcluster/mqcluster/auth"
)

// syslogSink sends the audit to a syslog daemon, in the form of RFC 5424. A nil one
// sends nothing.
type syslogSink struct {
	network, address string
	host             string
	failed           func(error)
	lines            chan []byte
	stop             chan struct{}
	done             sync.WaitGroup
}

// Bounds of the sending: what does not get through in time is lost there, and told of
// in the log; the log of the cluster has it all the same.
const (
	syslogQueue   = 256
	syslogTimeout = 5 * time.Second
	syslogLine    = 2048 // bytes, which every receiver takes (RFC 5424, section 6.1)
)

// syslogAddress reads audit.syslog; network is "" for nowhere.
func syslogAddress(text string) (network, address string, err error) {
	scheme, rest, _ := strings.Cut(text, ":")
	switch scheme {
	case "":
		return "", "", nil
	case "local":
		return "unixgram", "/dev/log", nil
	case "unix":
		if rest == "" {
			return "", "", fmt.Errorf("is %q: write unix: and the path of the socket", text)
		}
		return "unixgram", rest, nil
	case "udp", "tcp":
		if _, _, err := net.SplitHostPort(rest); err != nil {
			return "", "", fmt.Errorf("is %q: write %s:HOST:PORT", text, scheme)
		}
		return scheme, rest, nil
	}
	return "", "", fmt.Errorf("is %q: write local, unix:PATH, udp:HOST:PORT or tcp:HOST:PORT", text)
}

func (n *Node) openSyslog(context.Context) error {
	network, address, err := syslogAddress(n.cfg.Audit.Syslog)
	if err != nil || network == "" {
		return err
	}
	host, err := os.Hostname()
	if err != nil {
		host = "-"
	}
	s := &syslogSink{network: network, address: address, host: host, lines: make(chan []byte, syslogQueue), stop: make(chan struct{})}
	s.failed = func(err error) { n.refusals.Note("syslog", address, "err", err) }
	s.done.Go(s.run)
	n.syslog = s
	n.push("syslog", func() error {
		close(s.stop)
		s.done.Wait()
		return nil
	})
	return nil
}

// send passes a change on, without waiting.
func (s *syslogSink) send(a *admin.Asked, outcome string) {
	if s == nil {
		return
	}
	select {
	case s.lines <- s.line(time.Now(), a, outcome):
	default:
		s.failed(fmt.Errorf("more than %d lines wait", syslogQueue))
	}
}

// line is one message: facility 13 (log audit), notice, or warning where it was
// refused.
func (s *syslogSink) line(now time.Time, a *admin.Asked, outcome string) []byte {
	severity, result := 5, "done"
	if outcome != "" {
		severity, result = 4, "refused: "+outcome
	}
	// The number is the one that RFC 5612 sets aside for who has none.
	data := fmt.Sprintf(`[audit@32473 actor="%s" operation="%s" subject="%s"]`,
		syslogParam(a.Actor), syslogParam(a.Operation), syslogParam(auth.Shorten(a.Subject, 256)))
	text := strings.Join(strings.Fields(fmt.Sprintf("%s %s by %s %s: %s", a.Operation, a.Subject, a.Actor, a.Detail, result)), " ")
	line := fmt.Sprintf("<%d>1 %s %s mqcluster %d audit %s \uFEFF%s",
		13*8+severity, now.UTC().Format("2006-01-02T15:04:05.000000Z"), s.host, os.Getpid(), data, text)
	return []byte(auth.Shorten(printableText(line), syslogLine))
}

// syslogParam escapes a value (RFC 5424, section 6.3.3).
func syslogParam(v string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, `]`, `\]`).Replace(v)
}

// printableText replaces control characters, which could begin another line.
func printableText(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// run sends until stop, and then what waits.
func (s *syslogSink) run() {
	var conn net.Conn
	defer func() {
		if conn != nil {
			_ = conn.Close() // everything was written
		}
	}()
	for {
		select {
		case line := <-s.lines:
			conn = s.write(conn, line)
			continue
		case <-s.stop:
		}
		for {
			select {
			case line := <-s.lines:
				conn = s.write(conn, line)
				continue
			default:
			}
			return
		}
	}
}

// write sends a line and returns the connection that is open then, nil if none is.
func (s *syslogSink) write(conn net.Conn, line []byte) net.Conn {
	if s.network == "tcp" {
		line = fmt.Appendf(nil, "%d %s", len(line), line) // octet counting (RFC 6587)
	}
	var err error
	// A connection that was closed shows at the next line: that one goes by a new one.
	for range 2 {
		if conn == nil {
			if conn, err = net.DialTimeout(s.network, s.address, syslogTimeout); err != nil {
				break
			}
		}
		_ = conn.SetWriteDeadline(time.Now().Add(syslogTimeout))
		if _, err = conn.Write(line); err == nil {
			return conn
		}
		_ = conn.Close()
		conn = nil
	}
	s.failed(err)
	return nil
}
