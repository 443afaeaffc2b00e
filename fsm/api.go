package fsm

import (
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/session"
)

// maxAPITokens bounds the tokens of the admin API.
const maxAPITokens = 1000

func (a *applier) apiTokenPut(c *logpb.ApiTokenPut) error {
	switch {
	case a.apiTokens[c.Id] != nil:
		return refused("there is an API token %q already", c.Id)
	case len(a.apiTokens) >= maxAPITokens:
		return refused("there are %d API tokens: remove some with mqcluster api-token rm", maxAPITokens)
	}
	t := &logpb.ApiToken{
		Id: c.Id, Hash: c.Hash, Name: c.Name, Role: c.Role, ExpiresAt: c.ExpiresAt, CreatedAt: a.stamp,
	}
	a.apiTokens[c.Id] = t
	a.table.api.Store(c.Id, t)
	a.setProto(appendString(keyAPIToken, c.Id), t)
	return nil
}

func (a *applier) apiTokenRemove(c *logpb.ApiTokenRemove) error {
	if a.apiTokens[c.Id] == nil {
		return refused("there is no API token %q", c.Id)
	}
	delete(a.apiTokens, c.Id)
	a.table.api.Delete(c.Id)
	a.del(appendString(keyAPIToken, c.Id))
	return nil
}

// adminPublish publishes an operator's message. Also one of QoS 0 comes this way:
// every node that applies it has it.
func (a *applier) adminPublish(c *logpb.AdminPublish, r *Result) {
	m := &session.Message{
		Topic: c.Topic, Payload: c.Payload, Properties: c.Properties,
		QoS: byte(c.Qos), Retain: c.Retain, Stamp: a.stamp,
	}
	if c.Expiry != nil {
		m.ExpiresAt = a.stamp + int64(*c.Expiry)*1000
	}
	r.Matched = a.publish(r.Pos, m)
}
