package broker

import (
	"context"
	"crypto/x509"
	"net/netip"

	"github.com/mqcluster/mqcluster/auth"
	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/session"
)

// Log is the replicated log as the broker uses it.
type Log interface {
	// Submit proposes item. Items of one node are applied in the order of their
	// Submits. done runs once: on the goroutine that applies, in log order
	// relative to Broker.Apply, or, with ErrNotProposed or ErrUnknown, on any
	// other. done must not block. Submit itself does not wait for the log, but
	// blocks while the node's bounded queue of unproposed items is full. It keeps
	// nothing of item: what a publish has of a client's read buffer is valid until
	// Submit returns.
	Submit(item *logpb.Item, done func(fsm.Result))
	// Locked runs f between two entries of the log: nothing is applied while it
	// runs. f must not block. view, if f wants one, is at exactly that position.
	Locked(f func(at session.Pos, view func() fsm.View))
	// View returns the state as it is now.
	View() fsm.View
	// Leased tells whether this node may accept and acknowledge.
	Leased() bool
	// Shared returns the members that shared subscriptions choose now for a QoS 0
	// message of topic, one per matching group.
	Shared(topic string) []fsm.Pick
	// Queues tells whether a QoS 0 message of topic is to go through the log, because
	// a session that is away waits for it. It does not block.
	Queues(topic string) bool
}

// Routes is the road of QoS 0 messages between nodes.
type Routes interface {
	// Add and Remove tell the peers that this node wants, or no longer wants,
	// messages that match filter. The broker calls them on the first and after
	// the last subscription of a filter.
	Add(filter string)
	Remove(filter string)
	// Synced returns a channel that is closed when all connected peers know of
	// every Add that returned before, or after 300 ms.
	Synced() <-chan struct{}
	// Wants returns the set of peers that want messages of topic, as Forward takes
	// it; Version, which never falls, changes whenever an answer may be out of date.
	// Neither blocks.
	Wants(topic string) (peers uint64)
	Version() uint64
	// Forward sends each of the messages, in order, to its set of peers. index is the
	// log index that the receiver must have applied before it delivers them, asOf
	// what this node had applied when it began to deliver them here. It does not
	// block: a peer whose queue is full loses them, counted.
	// The messages alias memory that is used again when it returns.
	Forward(msgs []*session.Message, peers []uint64, index, asOf uint64)
	// ForwardTo sends m to one client on one node (a shared subscription).
	ForwardTo(node, client string, m *session.Message, sub session.Subscription)
}

// Credentials are what a client presented.
type Credentials struct {
	ClientID     string
	Username     string
	HasUsername  bool
	Password     []byte
	Certificates []*x509.Certificate // verified, leaf first; nil without
	Listener     string
	Address      netip.AddrPort
}

// Rights answers what one client may do. It is immutable and safe for
// concurrent use.
type Rights interface {
	MayPublish(topic string) bool
	MaySubscribe(filter string) bool
	// MayReceive is asked at delivery with the topic of the message.
	MayReceive(topic string) bool
}

// Bearer is what Rights may offer besides: what they depend on beside user and
// client id, for the will, which is judged when it fires. nil is nothing.
type Bearer interface {
	Bearer() *logpb.Bearer
}

// Authenticator decides who a client is.
type Authenticator interface {
	// Authenticate returns the user that the credentials prove. It may block on
	// a bounded pool. An error is one of auth's sentinels, which it may wrap.
	Authenticate(ctx context.Context, c Credentials) (user string, err error)
	// Rights returns what the client that presented c, without its password, and
	// proved to be the user may do under the policy of now; Quota what the user's
	// clients may use, beside the configured limits. Version changes whenever an
	// earlier answer may be out of date.
	Rights(c Credentials, user string) Rights
	Quota(user string) auth.Quota
	Version() uint64
}
