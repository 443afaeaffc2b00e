package broker

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/session"
)

// ConnInfo is what the listener knows of a connection.
type ConnInfo struct {
	Listener string
	Remote   netip.AddrPort
	// Certificates are the client's verified ones, leaf first.
	Certificates []*x509.Certificate
	// UserFromCert is the user name that the listener takes from the
	// certificate; empty if it does not.
	UserFromCert string
	// AllowAnonymous lets in clients that present nothing at all; they have no
	// user name, and the rights of everybody.
	AllowAnonymous bool
	// Greeted is called when a whole CONNECT came, Authenticated when it was
	// accepted; either may be nil.
	Greeted       func()
	Authenticated func()
}

// client is one connection. The fields before mu are set while it connects and
// not changed later, but where a comment says otherwise.
type client struct {
	b    *Broker
	conn net.Conn
	info ConnInfo
	done chan struct{} // closed when the connection is over
	// unhook undoes what closes the connection with the context of Serve.
	unhook func() bool

	id, user  string
	version   byte
	keepAlive int64 // ns with the half added; 0: none
	problem   bool  // problem information is wanted
	maxPacket int   // the client's; 0: no limit
	window    int   // outgoing QoS 1 and 2 that may be unacknowledged
	packetMax int   // ours, as CONNACK says
	incoming  int   // our Receive Maximum, as CONNACK says
	aliasMax  int   // outgoing topic aliases
	epoch     uint64
	logged    bool // all subscriptions belong into the log
	horizon   session.Pos
	left      uint64      // as in fsm.Claimed
	auth      *exchanging // nil without enhanced authentication; of the reader
	expiry    uint32      // session expiry interval in force
	will      bool        // CONNECT brought one
	account   *account    // of the user; nil before the client is in
	speed     speed       // of the reader

	in incoming // of the goroutine that reads

	ready      atomic.Bool  // connected: keepAlive counts
	lastIn     atomic.Int64 // tick of the last read
	large      atomic.Bool  // the reader holds a pooled buffer
	nudged     atomic.Bool  // its wait is cut short, so that it gives that back
	busy       atomic.Bool  // the reader is waiting for something else than the client
	unsure     atomic.Bool  // a shared message waits for the node's lease
	writeSince atomic.Int64 // tick at which a write began; 0: none
	closeBy    atomic.Int64 // tick at which the connection is to be cut; 0: none
	rights     atomic.Pointer[rightsAt]
	aborted    sync.Once

	// subs are the local subscriptions; under Broker.subMu.
	subs     []*subscription
	detached bool

	wg     sync.WaitGroup
	markMu sync.Mutex  // orders the marks of outgoing QoS 2 messages; before mu
	was    session.Pos // the cursor before the one last reported; under mu

	mu   sync.Mutex
	cond sync.Cond // what feeds and the reader wait on
	out  outgoing  // under mu
}

type rightsAt struct {
	version uint64
	Rights
	bounds bounds
}

// may returns the client's rights under the policy of now.
func (c *client) may() *rightsAt {
	v := c.b.deps.Auth.Version()
	if r := c.rights.Load(); r != nil && r.version == v {
		return r
	}
	r := &rightsAt{version: v, Rights: c.b.deps.Auth.Rights(c.credentials(), c.user)}
	r.bounds = c.b.cfg.bounds(c.b.deps.Auth.Quota(c.user))
	c.rights.Store(r)
	return r
}

// credentials are what the client presented, but for the password.
func (c *client) credentials() Credentials {
	return Credentials{ClientID: c.id, Certificates: c.info.Certificates, Listener: c.info.Listener, Address: c.info.Remote}
}

func newClient(b *Broker, conn net.Conn, info ConnInfo) *client {
	c := &client{b: b, conn: conn, info: info, done: make(chan struct{}), packetMax: b.cfg.MaxPacketSize, incoming: b.cfg.ReceiveMaximum}
	c.cond.L = &c.mu
	c.lastIn.Store(b.tick.Load())
	return c
}

// shutdown says how the server ends a connection.
type shutdown struct {
	reason byte
	// lost: the session is another's already; nothing is released but a will.
	lost bool
	// will and grace go into the Release.
	will  bool
	grace uint32
	text  string
}

// shut lets the connection end: a DISCONNECT is written to a version 5 client
// and the socket closed after it. It does not block. Only the first call
// counts, but that a session is lost is always noted.
func (c *client) shut(s shutdown) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.lost {
		c.out.lost = true
	}
	if c.out.closing || c.out.closed {
		return
	}
	c.out.closing = true
	c.out.end = s
	c.out.drop()
	if c.out.open && c.version == 5 { // before it is open, the version is being read
		c.out.control = appendDisconnect(c.out.control, c, s)
	}
	c.closeBy.Store(c.b.tick.Load() + int64(closeGrace))
	c.cond.Broadcast()
	c.wakeClosing()
}

// retire is shut with the session released first: a client that hears the goodbye
// may be at another node before the release is in the log, and its claim there
// would be a takeover, which fires the will. It may block while the node's queue
// of proposals is full.
func (c *client) retire(s shutdown) {
	c.mu.Lock()
	o := &c.out
	if o.closing || o.closed || !o.open {
		c.mu.Unlock()
		c.shut(s)
		return
	}
	o.closing, o.parting, o.freed, o.end = true, true, true, s
	o.drop()
	if c.version == 5 {
		o.control = appendDisconnect(o.control, c, s)
	}
	rel := &logpb.Release{Will: s.will, Grace: s.grace}
	c.complete(rel)
	c.closeBy.Store(c.b.tick.Load() + int64(closeGrace))
	c.cond.Broadcast()
	c.mu.Unlock()
	c.submitMarks()
	c.b.release(rel, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		o.parting = false
		c.wakeClosing()
	})
}

// complete says in rel whose session it is and how far the client has come. mu is
// held.
func (c *client) complete(rel *logpb.Release) {
	o := &c.out
	rel.Client, rel.Epoch = c.id, c.epoch
	rel.Cursor, rel.Inflight = uint64(o.position()), o.inflight()
	rel.Replayed = o.takeReplayed(true)
}

// abort cuts the connection at once. It may block for as long as closing a
// socket does.
// An error of closing says that it is closed already, here and below.
func (c *client) abort() { c.aborted.Do(func() { _ = c.conn.Close() }) }

// discard is abort without the end of the TLS stream, for a client that reads nothing.
func (c *client) discard() {
	c.aborted.Do(func() {
		if t, ok := c.conn.(*tls.Conn); ok {
			_ = t.NetConn().Close()
			return
		}
		_ = c.conn.Close()
	})
}

// blame notes that the client broke the protocol.
func (c *client) blame(text string) {
	c.refused(refusedProtocol, "err", text)
	if c.b.deps.Misbehaved != nil {
		c.b.deps.Misbehaved(c.info.Remote)
	}
}

// fail is shut for what the client did wrong.
func (c *client) fail(reason byte, text string) {
	c.b.m.protocolErrors.Inc()
	c.blame(text)
	c.shut(shutdown{reason: reason, text: text, will: true})
}
