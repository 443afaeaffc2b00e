package node

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/mqcluster/mqcluster/admin"
	mtls "github.com/mqcluster/mqcluster/tls"
	"golang.org/x/sys/unix"
)

// tlsListener is a listener's TLS with what it is for.
type tlsListener struct {
	*mtls.Listener
	name, address string
}

// Checkup implements admin.Doctor.
func (b backend) Checkup(ctx context.Context) (admin.Checkup, error) {
	n := b.n
	out := admin.Checkup{Now: time.Now(), Clocks: []admin.PeerClock{}, Listeners: []admin.ListenerCheckup{}}
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
		out.FilesLimit = limit.Cur
	}
	if open, err := os.ReadDir("/proc/self/fd"); err == nil {
		out.FilesOpen = uint64(len(open))
	}
	if most := n.cfg.Limits.MaxConnections; most > 0 {
		out.FilesWanted = uint64(most + n.cfg.Limits.UnauthenticatedConnections + ownDescriptors)
	}
	out.Clocks = n.compareClocks(ctx)
	n.tlsMu.Lock()
	listeners := n.tls
	n.tlsMu.Unlock()
	for _, l := range listeners {
		out.Listeners = append(out.Listeners, l.checkup())
	}
	return out, nil
}

// compareClocks asks every peer what time it has. Half of the time that the answer
// took is what the difference may be off by.
func (n *Node) compareClocks(ctx context.Context) []admin.PeerClock {
	out := []admin.PeerClock{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, m := range n.store.Members() {
		if m.Node == n.cfg.Node.ID {
			continue
		}
		wg.Go(func() {
			c := n.compareClock(ctx, m.Node)
			mu.Lock()
			defer mu.Unlock()
			out = append(out, c)
		})
	}
	wg.Wait()
	return out
}

var errNoClock = errors.New("its version does not tell its clock")

func (n *Node) compareClock(ctx context.Context, peer string) admin.PeerClock {
	c := admin.PeerClock{Node: peer}
	// The first call may have to dial; the second one takes the time of a round trip.
	_, err := n.ask(ctx, peer)
	asked := time.Now()
	var s nodeStatus
	if err == nil {
		s, err = n.ask(ctx, peer)
	}
	if err == nil && s.Now == 0 {
		err = errNoClock
	}
	if err != nil {
		c.Error = err.Error()
		return c
	}
	c.Uncertain = time.Since(asked) / 2
	c.Ahead = time.UnixMicro(s.Now).Sub(asked.Add(c.Uncertain))
	return c
}

func (l tlsListener) checkup() admin.ListenerCheckup {
	out := admin.ListenerCheckup{Name: l.name, Address: l.address}
	if err := l.Reload(); err != nil {
		out.Problem = err.Error()
	}
	s := mtls.Summarize(l.Leaf())
	out.Names, out.NotAfter = append(s.DNSNames, s.Addresses...), s.NotAfter
	return out
}
