package fsm

import (
	"cmp"
	"maps"
	"slices"

	"github.com/mqcluster/mqcluster/auth"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/session"
)

// A client that leaves one node with DISCONNECT and comes to another at once can be
// claimed there before its release is in the log. The claim then takes over a
// connection that has ended in order, and its will must not fire [MQTT-3.14.4-3].
// Only the node of the former connection knows how it ended, so a will that a
// takeover is to fire waits for that node's word: the late release of the former
// epoch. It fires without that word when the node is down, and after formerPatience.

// formerPatience is how long such a will waits, in milliseconds of log time. A node
// that is up answers within a round trip; one that is cut off is down soon after.
const formerPatience = 5000

// maxFormers bounds the wills that wait; those beyond it fire at once.
const maxFormers = 4096

// formerKey names a connection that was taken over.
type formerKey struct {
	client string
	epoch  uint64
}

// overtaken has the will of a connection that a claim has taken over wait, or fires
// it where not every member tells how a lost connection ended.
func (a *applier) overtaken(s *sess) {
	if a.level < levelFormer || len(a.formers) >= maxFormers {
		a.fireWill(s)
		return
	}
	f := &logpb.Former{
		Client: s.rec.Client, Epoch: s.rec.Epoch, Owner: s.rec.Owner, OwnerIncarnation: s.rec.OwnerIncarnation,
		User: s.rec.User, Will: s.rec.Will, At: a.stamp + formerPatience,
		Forgiven: s.rec.Will.Delay == 0 || s.rec.Expiry == 0, // as claim does after a drain
	}
	s.rec.Will, s.rec.WillAt = nil, 0
	a.addFormer(f)
	a.setProto(former(f).key(), f)
}

func (st *state) addFormer(f *logpb.Former) {
	st.formers[former(f)] = f
	st.timers.push(timer{at: f.At, client: f.Client, epoch: f.Epoch})
}

func former(f *logpb.Former) formerKey { return formerKey{f.Client, f.Epoch} }

func (k formerKey) key() []byte {
	return append(appendClient(keyFormer, k.client), uint64Value(k.epoch)...)
}

// toldOf settles a will by the late release of its connection.
func (a *applier) toldOf(c *logpb.Release) {
	k := formerKey{c.Client, c.Epoch}
	if f := a.formers[k]; f != nil {
		// With a grace the client was sent away and has come back in time.
		a.settleFormer(k, c.Will && (c.Grace == 0 || !f.Forgiven))
	}
}

// settleFormer decides about a will that waits, if it still does.
func (a *applier) settleFormer(k formerKey, fire bool) {
	f := a.formers[k]
	if f == nil {
		return
	}
	delete(a.formers, k)
	a.del(k.key())
	if fire {
		a.sendWill(f.Client, f.User, f.Will)
	}
}

// formersOf are those of an incarnation of a node, in an order that is the same on
// all nodes.
func (st *state) formersOf(node string, incarnation uint64) []formerKey {
	var of []formerKey
	for k, f := range maps.All(st.formers) {
		if f.Owner == node && f.OwnerIncarnation == incarnation {
			of = append(of, k)
		}
	}
	slices.SortFunc(of, func(x, y formerKey) int {
		return cmp.Or(cmp.Compare(x.client, y.client), cmp.Compare(x.epoch, y.epoch))
	})
	return of
}

// whoOf is a client as its rights depend on it.
func whoOf(user, client string, b *logpb.Bearer) auth.Who {
	w := auth.Who{User: user, ClientID: client}
	if b == nil {
		return w
	}
	w.Cert = auth.CertFields{CN: b.Cn, O: b.O, OU: b.Ou, DNS: b.Dns}
	if len(b.Roles)+len(b.Rules) > 0 {
		w.Grant = &auth.Grant{Roles: b.Roles, Rules: rulesOf(b.Rules)}
	}
	return w
}

// sendWill publishes a will, if its client may still publish to its topic.
func (a *applier) sendWill(client, user string, w *logpb.Will) {
	if !a.policy.RightsOf(whoOf(user, client, w.Bearer)).MayPublish(w.Topic) {
		return
	}
	m := &session.Message{
		Topic: w.Topic, Payload: w.Payload, Properties: w.Properties,
		QoS: byte(w.Qos), Retain: w.Retain, Publisher: client, Stamp: a.stamp,
	}
	if w.Expiry != nil {
		m.ExpiresAt = a.stamp + int64(*w.Expiry)*1000
	}
	a.publish(a.pos(), m)
	if planted == willTwice {
		a.publish(a.pos(), m)
	}
}
