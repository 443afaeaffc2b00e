package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/mqcluster/mqcluster/admin"
	"github.com/mqcluster/mqcluster/auth"
	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/routing"
	"github.com/mqcluster/mqcluster/session"
)

// everyoneAt says in one sentence why something may not be proposed yet: a member
// that does not know it would come to another state, or decide otherwise.
func (n *Node) everyoneAt(level uint32, what string) error {
	for _, m := range n.store.Members() {
		if m.Level == 0 {
			return &admin.Error{Kind: admin.Conflict, Msg: fmt.Sprintf("%s needs feature level %d, and node %s has joined and not told its level yet: start that one, then try again", what, level, m.Node)}
		}
		if m.Level < level {
			return &admin.Error{Kind: admin.Conflict, Msg: fmt.Sprintf("%s needs feature level %d and node %s is at %d: update every node first", what, level, m.Node, m.Level)}
		}
	}
	return nil
}

// Import implements admin.Importer.
func (b backend) Import(ctx context.Context, batch admin.ImportBatch) (r admin.ImportResult, err error) {
	if err := b.n.everyoneAt(fsm.LevelImport, "an import"); err != nil {
		return r, err
	}
	i := importer{n: b.n, ctx: ctx, overwrite: batch.Overwrite}
	r.Users = i.users(batch.Users)
	r.Acls = i.acls(batch.Acls)
	if r.Retained, err = i.retained(batch.Retained); err != nil {
		return r, adminError(err)
	}
	r.Sessions = i.sessions(batch.Sessions)
	r.Change = admin.Change{Index: i.last.Index(), NotApplied: []string{}}
	if i.last == 0 {
		return r, nil
	}
	missing, err := askLeader(ctx, b.n, pathApplied, r.Index, b.n.waitApplied)
	if err != nil {
		return r, adminError(fmt.Errorf("the import is made, but whether every node has it is not known: %w", err))
	}
	r.NotApplied = append(r.NotApplied, missing...)
	return r, nil
}

// importer proposes what is not here yet, many at a time.
type importer struct {
	n    *Node
	ctx  context.Context //nolint:containedctx // it lives for one call
	last session.Pos     // of what was taken
	// overwrite: what is here otherwise is changed.
	overwrite bool
}

// wave are proposals under way, and whose outcomes they decide.
type wave struct {
	outcomes []admin.ImportOutcome
	results  chan waveResult
	under    int
}

type waveResult struct {
	at    int
	state string // if it was taken
	r     fsm.Result
}

func newWave(n int) *wave {
	return &wave{outcomes: make([]admin.ImportOutcome, n), results: make(chan waveResult, n)}
}

func (w *wave) say(at int, state, why string) {
	w.outcomes[at] = admin.ImportOutcome{State: state, Why: why}
}

func (i *importer) submit(w *wave, at int, item *logpb.Item) {
	i.submitAs(w, at, admin.ImportNew, item)
}

// submitAs proposes an item whose outcome is state if it is taken.
func (i *importer) submitAs(w *wave, at int, state string, item *logpb.Item) {
	w.under++
	i.n.consensus.Submit(item, func(r fsm.Result) { w.results <- waveResult{at, state, r} })
}

// wait returns the outcomes. The log answers every Submit, at the latest when the
// node closes; ctx ends the wait before.
func (i *importer) wait(w *wave) []admin.ImportOutcome {
	for ; w.under > 0; w.under-- {
		select {
		case x := <-w.results:
			switch {
			case x.r.Err == nil:
				w.say(x.at, x.state, "")
				i.last = max(i.last, x.r.Pos)
			case errors.Is(x.r.Err, fsm.ErrRefused):
				w.say(x.at, admin.ImportKept, trimRefused(x.r.Err))
			default:
				w.say(x.at, admin.ImportFailed, x.r.Err.Error()+": import again")
			}
		case <-i.ctx.Done():
			w.under = 1
		}
	}
	for at := range w.outcomes {
		if w.outcomes[at].State == "" {
			w.say(at, admin.ImportFailed, "its outcome is not known: import again")
		}
	}
	return w.outcomes
}

func (i *importer) users(users []admin.ImportUser) []admin.ImportOutcome {
	w := newWave(len(users))
	policy := i.n.store.Policy()
	for at, u := range users {
		err := auth.ValidUser(u.Name)
		for _, role := range u.Roles {
			err = errors.Join(err, auth.ValidRole(role))
		}
		if u.Hash != "" {
			err = errors.Join(err, auth.ValidHash(u.Hash))
		}
		if err != nil {
			w.say(at, admin.ImportFailed, err.Error())
			continue
		}
		if old, ok := policy.User(u.Name); ok {
			switch {
			case old.Hash == u.Hash && slices.Equal(old.Roles, u.Roles) && old.Disabled == u.Disabled:
				w.say(at, admin.ImportSame, "")
			case i.overwrite:
				i.submitAs(w, at, admin.ImportChanged, &logpb.Item{Kind: &logpb.Item_UserPut{UserPut: &logpb.UserPut{
					Name: u.Name, Hash: &u.Hash, Disabled: &u.Disabled, Roles: u.Roles, SetRoles: true,
				}}})
			default:
				w.say(at, admin.ImportKept, "there is such a user, with a password that was changed or hashed anew, or with other roles, and it stays as it is")
			}
			continue
		}
		put := &logpb.UserPut{Name: u.Name, Roles: u.Roles, SetRoles: true, Create: true}
		if u.Hash != "" {
			put.Hash = &u.Hash
		}
		if u.Disabled {
			put.Disabled = &u.Disabled
		}
		i.submit(w, at, &logpb.Item{Kind: &logpb.Item_UserPut{UserPut: put}})
	}
	return i.wait(w)
}

func (i *importer) acls(acls []admin.Acl) []admin.ImportOutcome {
	w := newWave(len(acls))
	policy := i.n.store.Policy()
	for at, a := range acls {
		want := auth.ACL{Subject: a.Subject}
		var err error
		for _, text := range a.Rules {
			rule, bad := auth.ParseRule(text)
			err = errors.Join(err, bad)
			want.Rules = append(want.Rules, rule)
		}
		if err = errors.Join(err, auth.ValidSubject(a.Subject)); err != nil {
			w.say(at, admin.ImportFailed, err.Error())
			continue
		}
		state := admin.ImportNew
		if old, ok := policy.ACL(a.Subject); ok {
			if slices.Equal(old.Rules, want.Rules) {
				w.say(at, admin.ImportSame, "")
				continue
			}
			if !i.overwrite {
				w.say(at, admin.ImportKept, "the subject has other rules, which stay: compare with mqcluster acl get "+a.Subject)
				continue
			}
			state = admin.ImportChanged
		}
		put := &logpb.AclPut{Subject: a.Subject}
		for _, rule := range want.Rules {
			put.Rules = append(put.Rules, &logpb.Rule{Allow: rule.Allow, Action: uint32(rule.Action), Filter: rule.Filter})
		}
		i.submitAs(w, at, state, &logpb.Item{Kind: &logpb.Item_AclPut{AclPut: put}})
	}
	return i.wait(w)
}

// retained publishes as a client of its own, as every retained message came.
func (i *importer) retained(messages []admin.ImportMessage) ([]admin.ImportOutcome, error) {
	w := newWave(len(messages))
	if len(messages) == 0 {
		return w.outcomes, nil
	}
	id := "$import/" + i.n.cfg.Node.ID
	r, err := i.n.proposeResult(i.ctx, &logpb.Item{Kind: &logpb.Item_Claim{Claim: &logpb.Claim{Client: id, CleanStart: true, Protocol: 5}}})
	if err != nil {
		return nil, err
	}
	epoch := uint64(r.Claim.Epoch)
	view := i.n.store.View()
	for at, m := range messages {
		if err := routing.ValidTopic(m.Topic); err != nil || m.QoS > 2 || len(m.Payload) == 0 {
			w.say(at, admin.ImportFailed, fmt.Sprintf("it cannot be retained: %v", err))
			continue
		}
		old, err := retainedAt(view, m.Topic)
		state := admin.ImportNew
		if old != nil {
			state = admin.ImportChanged
		}
		same := old != nil && bytes.Equal(old.Payload, m.Payload) && bytes.Equal(old.Properties, m.Properties) && old.QoS == m.QoS
		switch {
		case err != nil:
			w.say(at, admin.ImportFailed, err.Error())
		case old == nil, i.overwrite && !same:
			i.submitAs(w, at, state, &logpb.Item{Kind: &logpb.Item_Publish{Publish: &logpb.Publish{
				Client: id, Epoch: epoch, Topic: m.Topic, Payload: m.Payload, Properties: m.Properties,
				Qos: uint32(m.QoS), PacketId: uint32(at%65535 + 1), Retain: true, Expiry: m.Expiry,
			}}})
		case same:
			w.say(at, admin.ImportSame, "")
		default:
			w.say(at, admin.ImportKept, "the topic has another message by now, which stays")
		}
	}
	outcomes := i.wait(w)
	err = i.n.propose(i.ctx, &logpb.Item{Kind: &logpb.Item_Release{Release: &logpb.Release{Client: id, Epoch: epoch}}})
	if errors.Is(err, fsm.ErrStale) {
		err = nil // it was released as one without a connection
	}
	return outcomes, errors.Join(err, view.Close())
}

func retainedAt(v fsm.View, topic string) (found *session.Message, err error) {
	err = v.Retained(topic, nil, v.Pos(), func(_ session.Pos, m *session.Message) bool {
		found = m
		return false
	})
	return found, err
}

func (i *importer) sessions(sessions []admin.ImportSession) []admin.ImportOutcome {
	w := newWave(len(sessions))
	for at, s := range sessions {
		if why := badSession(&s); why != "" {
			w.say(at, admin.ImportFailed, why)
			continue
		}
		old := i.n.store.Session(s.Client)
		end := uint32(s.From + len(s.Queue))
		switch {
		case old == nil || s.From > 0 && old.Epoch == 0 && old.Deposits == uint32(s.From):
			i.submit(w, at, &logpb.Item{Kind: &logpb.Item_SessionPut{SessionPut: sessionPut(&s)}})
		case old.Epoch == 0 && old.Deposits >= end && old.Deposits <= uint32(s.Total) && old.User == s.User:
			w.say(at, admin.ImportSame, "")
		default:
			w.say(at, admin.ImportKept, "there is a session of this client, to which one has connected already, and it stays as it is")
		}
	}
	return i.wait(w)
}

// badSession says what is wrong with a session, or "".
func badSession(s *admin.ImportSession) string {
	if s.Client == "" || len(s.Client) > 65535 || s.From < 0 || s.Expiry == 0 {
		return "the session has no client id or does not outlive a connection"
	}
	for _, sub := range s.Subscriptions {
		if err := routing.ValidFilter(sub.Filter); err != nil || sub.QoS > 2 {
			return fmt.Sprintf("its subscription to %.40q is not valid: the %v", sub.Filter, err)
		}
	}
	for _, m := range slices.Concat(s.Queue, s.Incoming) {
		if err := routing.ValidTopic(m.Topic); err != nil || m.QoS < 1 || m.QoS > 2 || m.State > 2 {
			return fmt.Sprintf("its message of topic %.40q is not valid: %v", m.Topic, err)
		}
	}
	return ""
}

func sessionPut(s *admin.ImportSession) *logpb.SessionPut {
	put := &logpb.SessionPut{
		Client: s.Client, User: s.User, Expiry: s.Expiry, Remaining: s.Remaining, Protocol: 4, From: uint32(s.From),
		Deposits: deposits(s.Queue), Incoming: deposits(s.Incoming),
	}
	if s.From > 0 {
		return put
	}
	for _, sub := range s.Subscriptions {
		put.Subscriptions = append(put.Subscriptions, &logpb.Subscription{
			Filter: sub.Filter, Qos: uint32(sub.QoS), Id: sub.ID, NoLocal: sub.NoLocal, RetainAsPublished: sub.RetainAsPublished,
		})
	}
	return put
}

func deposits(messages []admin.ImportMessage) (out []*logpb.Deposit) {
	for _, m := range messages {
		out = append(out, &logpb.Deposit{
			Topic: m.Topic, Payload: m.Payload, Properties: m.Properties, Qos: uint32(m.QoS), Retain: m.Retain,
			Publisher: m.Publisher, Expiry: m.Expiry, Subscription: m.SubscriptionID, PacketId: uint32(m.PacketID), State: uint32(m.State),
		})
	}
	return out
}
