package broker

import (
	"errors"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/mqcluster/mqcluster/auth"
	"github.com/mqcluster/mqcluster/broker/codec"
)

// bounds are what one client may use: the configured limits, and those of its user
// where they are less. 0 is no limit where a comment says so.
type bounds struct {
	subscriptions int
	packetSize    int
	inflight      int // messages towards us
	outgoing      int // messages towards the client; 0: none of the user's own
	levels        int // 0: none
	connections   int // of the user; 0: none
	// A second: of the client, and of all clients of its user here; 0: none.
	messages, bytes         int
	userMessages, userBytes int
}

func (c *Config) bounds(q auth.Quota) bounds {
	return bounds{
		subscriptions: less(c.MaxSubscriptions, q.Subscriptions), packetSize: less(c.MaxPacketSize, q.PacketSize),
		inflight: less(c.ReceiveMaximum, q.Inflight), outgoing: q.Inflight, levels: less(c.TopicLevels, q.TopicLevels), connections: q.Connections,
		messages: c.MessageRate, bytes: c.ByteRate, userMessages: q.MessageRate, userBytes: q.ByteRate,
	}
}

// less is the lower of two limits, of which 0 is none.
func less(a, b int) int {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// tooDeep tells whether a topic or filter has more levels than the client may use.
func (c *client) tooDeep(topic string) bool {
	levels := c.may().bounds.levels
	return levels > 0 && strings.Count(topic, "/") >= levels
}

// oversized notes a packet that is refused for its size.
func (c *client) oversized(err error) {
	if e, ok := errors.AsType[*codec.Error](err); ok && e.Reason == reasonTooLarge {
		c.refused(refusedSize)
	}
}

// speed is how fast a client may send. Only its reader uses it.
type speed struct {
	messages, bytes *rate.Limiter
}

// slow waits as long as the client has to, who has sent a PUBLISH of so many bytes.
// Meanwhile nothing is read of it, so that it is TCP that holds it up, and what it
// has sent is not lost.
func (c *client) slow(b *bounds, size int) {
	if b.messages == 0 && b.bytes == 0 && b.userMessages == 0 && b.userBytes == 0 {
		return
	}
	now := time.Now()
	wait, why := take(&c.speed.messages, b.messages, 1, now), refusedRate
	if w := take(&c.speed.bytes, b.bytes, size, now); w > wait {
		wait, why = w, refusedBytes
	}
	if b.userMessages != 0 || b.userBytes != 0 {
		if w, bytes := c.account.take(b, size, now); w > wait {
			wait, why = w, refusedRate
			if bytes {
				why = refusedBytes
			}
		}
	}
	if wait <= 0 {
		return
	}
	c.refused(why)
	c.flush()
	over := false
	timer := time.AfterFunc(wait, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		over = true
		c.cond.Broadcast()
	})
	defer timer.Stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waitFor(func() bool { return over })
}

// take takes n of a limiter, which it makes or changes to what it has to be, and
// returns how long to wait for them.
func take(l **rate.Limiter, limit, n int, now time.Time) time.Duration {
	if limit == 0 {
		return 0
	}
	if *l == nil {
		*l = rate.NewLimiter(rate.Limit(limit), limit)
	} else if (*l).Burst() != limit {
		(*l).SetLimitAt(now, rate.Limit(limit))
		(*l).SetBurstAt(now, limit)
	}
	// A packet larger than a second's worth takes a whole second's.
	return (*l).ReserveN(now, min(n, limit)).DelayFrom(now)
}

// account is what the clients of one user on this node use together.
type account struct {
	user  string
	conns int // under accounts.mu

	mu              sync.Mutex
	messages, bytes *rate.Limiter
}

func (a *account) take(b *bounds, size int, now time.Time) (wait time.Duration, bytes bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	wait = take(&a.messages, b.userMessages, 1, now)
	if w := take(&a.bytes, b.userBytes, size, now); w > wait {
		return w, true
	}
	return wait, false
}

// accounts are those of the users who have clients here.
type accounts struct {
	mu     sync.Mutex
	byUser map[string]*account
}

// open counts a connection of the user, unless it has as many as it may (0: any
// number).
func (s *accounts) open(user string, most int) (*account, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.byUser[user]
	if a == nil {
		a = &account{user: user}
	}
	if most > 0 && a.conns >= most {
		return nil, false
	}
	if s.byUser == nil {
		s.byUser = map[string]*account{}
	}
	s.byUser[user] = a
	a.conns++
	return a, true
}

func (s *accounts) close(a *account) {
	if a == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.conns--; a.conns == 0 {
		delete(s.byUser, a.user)
	}
}

// shown is a topic or filter as a log may have it.
func shown(topic string) string { return auth.Shorten(topic, 128) }
