package consensus

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"
)

// A stream between two nodes begins with a line of the one that dials, the
// generation of its group and the store that it means, and a line of the other:
// empty, or why it does not listen. The certificate proves the node; this keeps
// out what a certificate cannot tell: a member of the group as it was before
// Recover, and what was meant for the disk that a node had before. Raft would
// listen to both: a server without a configuration votes for everybody, and any
// server takes the entries of any leader of its term or a later one.

const (
	maxGreeting     = 1024
	greetingTimeout = 5 * time.Second
)

// ErrNotListened: the other node will not listen to this one until an operator
// acts.
var ErrNotListened = errors.New("the other node does not listen to this one")

// dialPeer dials a node and greets it. store names the disk that is meant, "" any.
func (c *Consensus) dialPeer(ctx context.Context, node, store, proto string) (net.Conn, error) {
	conn, err := c.deps.Network.Dial(ctx, node, proto)
	if err != nil {
		return nil, err
	}
	if err := greet(conn, c.cfg.Generation, store); err != nil {
		err = fmt.Errorf("node %s: %w", node, err)
		if errors.Is(err, ErrNotListened) && c.refusals.first(node, c.now()) {
			c.log.Warn("another node does not listen to this one", "member", node, "err", err)
		}
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

func greet(conn net.Conn, generation, store string) error {
	if err := conn.SetDeadline(time.Now().Add(greetingTimeout)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(conn, "%s %s\n", generation, store); err != nil {
		return certificateError(err)
	}
	answer, err := readLine(conn)
	if err != nil {
		return certificateError(err)
	}
	if answer != "" {
		return fmt.Errorf("%w: %s", ErrNotListened, answer)
	}
	return conn.SetDeadline(time.Time{})
}

// certificateError explains that the other side hung up on our certificate, which
// in TLS 1.3 shows at the first read or write after the handshake.
func certificateError(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" {
		return fmt.Errorf("%w: it refuses this node's certificate (%w): this node was removed, replaced, or left behind when the cluster was recovered; empty its data directory and join again", ErrNotListened, err)
	}
	return err
}

// welcome answers the greeting of a node that dialled. On error the connection is
// closed.
func (c *Consensus) welcome(peer string, conn net.Conn) error {
	err := c.hearGreeting(peer, conn)
	if err != nil {
		if errors.Is(err, ErrNotListened) && c.refusals.first(peer, c.now()) {
			c.log.Warn("not listened to", "member", peer, "err", err)
		}
		return errors.Join(err, conn.Close())
	}
	return nil
}

func (c *Consensus) hearGreeting(peer string, conn net.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(greetingTimeout)); err != nil {
		return err
	}
	line, err := readLine(conn)
	if err != nil {
		return err
	}
	generation, store, _ := strings.Cut(line, " ")
	why := ""
	switch {
	case generation != c.cfg.Generation:
		why = fmt.Sprintf("nodes %s and %s are of different generations of the cluster: it was recovered after a majority had been lost; empty the data directory of the one that was left behind and join it again", peer, c.cfg.Node)
	case store != "" && store != c.cfg.Store:
		why = fmt.Sprintf("node %s has another disk than node %s knows", c.cfg.Node, peer)
	}
	if _, err := fmt.Fprintf(conn, "%s\n", why); err != nil {
		return err
	}
	if why != "" {
		return fmt.Errorf("%w: %s", ErrNotListened, why)
	}
	return conn.SetDeadline(time.Time{})
}

// readLine reads to the end of a line and not a byte further: what follows is
// another's.
func readLine(conn net.Conn) (string, error) {
	line := make([]byte, 0, 64)
	for b := make([]byte, 1); len(line) < maxGreeting; {
		if _, err := conn.Read(b); err != nil {
			return "", err
		}
		if b[0] == '\n' {
			return string(line), nil
		}
		line = append(line, b[0])
	}
	return "", errors.New("the greeting is too long")
}

// seldom lets a line about a node into the log once a minute.
type seldom struct {
	mu   sync.Mutex
	last map[string]time.Duration
}

func (s *seldom) first(node string, now time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if last, ok := s.last[node]; ok && now-last < time.Minute {
		return false
	}
	if s.last == nil {
		s.last = map[string]time.Duration{}
	}
	s.last[node] = now
	return true
}
