package node

import (
	"context"
	"fmt"

	"github.com/mqcluster/mqcluster/auth"
	"github.com/mqcluster/mqcluster/broker"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/identity"
)

// secretScram names the secret that what is said to unknown users follows from.
const secretScram = "scram.mock"

// makeSecrets has the log keep the secrets that all nodes need to share; the leader
// asks for it until they are there.
func (n *Node) makeSecrets(ctx context.Context) {
	if n.store.Secret(secretScram) != nil || !n.identityLevel() {
		return
	}
	if err := n.propose(ctx, &logpb.Item{Kind: &logpb.Item_SecretPut{SecretPut: &logpb.SecretPut{Name: secretScram, Value: randomBytes(32)}}}); err != nil {
		n.log.Debug("a secret of the cluster was not kept; tried again", "err", err)
	}
}

// scramOn tells whether keys for SCRAM are kept, and clients may log in by them.
func (n *Node) scramOn() bool { return n.store.Limits().Scram }

// scramInto has a change of a password bring the keys for SCRAM along. A password
// that has none can only be used in a CONNECT.
func (n *Node) scramInto(put *logpb.UserPut, password []byte) {
	if !n.scramOn() {
		return
	}
	keys, err := identity.DeriveScram(password)
	if err != nil {
		n.log.Info("a user cannot log in by "+identity.SCRAM, "user", put.Name, "err", err)
		return
	}
	put.Scram = keys.String()
}

// keepScram has the keys of a password that was verified just now kept, if the user
// has none. It costs that login some milliseconds.
func (n *Node) keepScram(u auth.User, password []byte) {
	if !n.scramOn() || u.Scram != "" || u.Hash == "" || !n.renewals.begin(u.Name) {
		return
	}
	put := &logpb.UserPut{Name: u.Name, Hash: &u.Hash, Replaces: u.Hash, Update: true}
	if n.scramInto(put, password); put.Scram == "" {
		n.renewals.end(u.Name)
		return
	}
	n.putRenewed(put)
}

// scramMethod is enhanced authentication by SCRAM-SHA-256.
type scramMethod struct{ n *Node }

var _ broker.Enhanced = scramMethod{}

// Begin implements broker.Enhanced.
func (m scramMethod) Begin(c broker.Credentials) broker.Exchange {
	return &scramExchange{n: m.n, c: c}
}

// scramExchange is one run with one client.
type scramExchange struct {
	n       *Node
	c       broker.Credentials
	conv    *identity.Conversation
	version uint64 // of the user, when its keys were read
}

// Next implements broker.Exchange.
func (e *scramExchange) Next(_ context.Context, data []byte) (reply []byte, user string, done bool, err error) {
	reply, done, err = e.step(data)
	if e.conv != nil {
		user = e.conv.User()
	}
	if err != nil || done {
		err = e.n.guard.judged(e.c, user, err)
	}
	return reply, user, done && err == nil, err
}

func (e *scramExchange) step(data []byte) (reply []byte, done bool, err error) {
	n := e.n
	if e.conv == nil {
		mock := n.store.Secret(secretScram)
		if !n.scramOn() || mock == nil {
			return nil, false, auth.ErrMethod
		}
		server := identity.ScramServer{Mock: mock, Keys: func(user string) string {
			u, _ := n.store.Policy().User(user)
			e.version = u.Version
			return u.Scram
		}}
		if e.conv, err = server.Begin(); err != nil {
			return nil, false, err
		}
		reply, _, err = e.conv.Next(data)
		if err == nil {
			err = n.guard.admits(e.c, e.conv.User())
		}
		return reply, false, err
	}
	if reply, done, err = e.conv.Next(data); err != nil || !done {
		return nil, false, err
	}
	return reply, true, e.proved(e.conv.User())
}

// proved judges the user that the client has proved to be.
func (e *scramExchange) proved(user string) error {
	n := e.n
	if e.c.HasUsername && e.c.Username != "" && e.c.Username != user {
		return fmt.Errorf("%w: the exchange is of user %q and the CONNECT of user %q: use one name", auth.ErrProof, user, e.c.Username)
	}
	name, err := certificateUser(n.listenerConfig(e.c.Listener), e.c)
	if err != nil {
		return err
	}
	if name != "" && name != user {
		return fmt.Errorf("%w: the certificate is of user %q and the exchange of user %q: use one name", auth.ErrProof, name, user)
	}
	// Noted before the user is looked at again: what changed meanwhile is seen by one
	// or the other.
	n.proofs.shown(e.c, user, e.version)
	u, known := n.store.Policy().User(user)
	switch {
	case !known || u.Version != e.version:
		return fmt.Errorf("%w: user %q was changed meanwhile", auth.ErrProof, user)
	case u.Disabled:
		return auth.ErrDisabled
	}
	return nil
}
