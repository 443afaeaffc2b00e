//go:build linux

package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// network is a proxy before every node's mesh port, by which links between nodes
// can be cut without root. Which node dials it finds in /proc, by the process
// that has the other end, so that each direction of each pair is a link of its
// own; what is no node (mqcluster join) is never cut.
//
// A cut link loses no connection: like a cable that is out, it carries nothing,
// until it is healed or one side gives up. New connections are accepted, as by a
// kernel whose process hangs, and carry nothing either.
type network struct {
	t         *testing.T
	listeners []net.Listener
	nodes     []*Node

	mu      sync.Mutex
	cut     map[link]bool
	carried map[link]int64 // bytes
	changed chan struct{}  // closed and replaced when cut changes
	conns   map[net.Conn]bool
	closed  bool
	wg      sync.WaitGroup
}

// link is one direction between two nodes.
type link struct{ from, to string }

func newNetwork(t *testing.T) *network {
	w := &network{t: t, cut: map[link]bool{}, carried: map[link]int64{}, changed: make(chan struct{}), conns: map[net.Conn]bool{}}
	t.Cleanup(w.close)
	return w
}

// before starts the proxy of a node and returns its address.
func (w *network) before(n *Node) string {
	w.t.Helper()
	l := freeListener(w.t)
	w.listeners, w.nodes = append(w.listeners, l), append(w.nodes, n)
	w.wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if !w.own(conn) {
				return
			}
			w.wg.Go(func() { w.serve(conn, n) })
		}
	})
	return l.Addr().String()
}

// Isolate cuts a node from all others, both ways.
func (w *network) Isolate(n *Node) {
	w.set(true, func(l link) bool { return l.from == n.ID || l.to == n.ID })
}

// Cut cuts the link between two nodes, both ways.
func (w *network) Cut(a, b *Node) {
	w.set(true, func(l link) bool { return l == link{a.ID, b.ID} || l == link{b.ID, a.ID} })
}

// Mute cuts the link between two nodes one way: nothing that a says reaches b.
func (w *network) Mute(a, b *Node) {
	w.set(true, func(l link) bool { return l == link{a.ID, b.ID} })
}

// Heal makes every link whole.
func (w *network) Heal() { w.set(false, func(link) bool { return true }) }

func (w *network) set(cut bool, which func(link) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range w.nodes {
		for _, b := range w.nodes {
			if l := (link{a.ID, b.ID}); a != b && which(l) {
				w.cut[l] = cut
			}
		}
	}
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *network) count(l link, bytes int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.carried[l] += int64(bytes)
}

// Carried is how many bytes went over each link so far, and which are cut.
func (w *network) Carried() (bytes map[link]int64, cut map[link]bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.carried), maps.Clone(w.cut)
}

// open waits until a link is whole; false means that the test is over.
func (w *network) open(l link) bool {
	for {
		w.mu.Lock()
		cut, changed, closed := w.cut[l], w.changed, w.closed
		w.mu.Unlock()
		if closed || !cut {
			return !closed
		}
		<-changed
	}
}

// own notes a connection, to be closed with the network.
func (w *network) own(c net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		c.Close()
		return false
	}
	w.conns[c] = true
	return true
}

func (w *network) drop(c net.Conn) {
	c.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.conns, c)
}

// serve carries what is said between a dialling node and n.
func (w *network) serve(in net.Conn, n *Node) {
	defer w.drop(in)
	from := w.dialler(in)
	if !w.open(link{from, n.ID}) {
		return
	}
	out, err := net.Dial("tcp", n.Mesh)
	if err != nil || !w.own(out) {
		return
	}
	defer w.drop(out)
	var both sync.WaitGroup
	both.Go(func() { w.carry(out, in, link{from, n.ID}) })
	both.Go(func() { w.carry(in, out, link{n.ID, from}) })
	both.Wait()
}

// carry copies one direction, as long as and whenever the link is whole. The end
// of the connection travels the link as well.
func (w *network) carry(to, from net.Conn, l link) {
	buf := make([]byte, 64<<10)
	for {
		k, err := from.Read(buf)
		if !w.open(l) {
			return
		}
		if k > 0 {
			w.count(l, k)
			if _, werr := to.Write(buf[:k]); werr != nil {
				err = errors.Join(err, werr)
			}
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				_ = to.(*net.TCPConn).CloseWrite() // the other direction may go on
				return
			}
			to.Close()
			from.Close()
			return
		}
	}
}

// dialler is the id of the node whose process has the other end, "" if none has.
func (w *network) dialler(conn net.Conn) string {
	inode := socketInode(conn.RemoteAddr().(*net.TCPAddr), conn.LocalAddr().(*net.TCPAddr))
	if inode == "" {
		return ""
	}
	for _, n := range w.nodes {
		pid := n.PID()
		if pid == 0 {
			continue
		}
		fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		if err != nil {
			continue
		}
		for _, fd := range fds {
			if target, err := os.Readlink(fd); err == nil && target == "socket:["+inode+"]" {
				return n.ID
			}
		}
	}
	return ""
}

// socketInode finds the connection from local to remote in the kernel's table.
func socketInode(local, remote *net.TCPAddr) string {
	text, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return ""
	}
	want := procAddress(local) + " " + procAddress(remote) + " "
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); strings.Contains(line, want) && len(f) > 9 {
			return f[9]
		}
	}
	return ""
}

// procAddress writes an address as /proc/net/tcp does: in the byte order of the
// machine, of which all that this runs on are little endian.
func procAddress(a *net.TCPAddr) string {
	return fmt.Sprintf("%08X:%04X", binary.LittleEndian.Uint32(a.IP.To4()), a.Port)
}

func (w *network) close() {
	for _, l := range w.listeners {
		l.Close()
	}
	w.mu.Lock()
	w.closed = true
	for c := range w.conns {
		c.Close()
	}
	close(w.changed)
	w.changed = make(chan struct{})
	w.mu.Unlock()
	w.wg.Wait()
}
