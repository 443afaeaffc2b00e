package fsm

import (
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/session"
)

func messageRecord(m *session.Message) *logpb.Message {
	return &logpb.Message{
		Topic: m.Topic, Payload: m.Payload, Properties: m.Properties, Qos: uint32(m.QoS),
		Retain: m.Retain, Publisher: m.Publisher, Stamp: m.Stamp, ExpiresAt: m.ExpiresAt,
	}
}

func messageOf(r *logpb.Message) *session.Message {
	if r == nil {
		return nil
	}
	return &session.Message{
		Topic: r.Topic, Payload: r.Payload, Properties: r.Properties, QoS: byte(r.Qos),
		Retain: r.Retain, Publisher: r.Publisher, Stamp: r.Stamp, ExpiresAt: r.ExpiresAt,
	}
}

func subscriptionOf(r *logpb.Subscription) session.Subscription {
	return session.Subscription{
		Filter: r.Filter, QoS: byte(r.Qos), NoLocal: r.NoLocal,
		RetainAsPublished: r.RetainAsPublished, RetainHandling: byte(r.RetainHandling), ID: r.Id,
	}
}

func outOf(r *logpb.Out) session.Out {
	return session.Out{
		Pos: session.Pos(r.Pos), PacketID: uint16(r.PacketId),
		State: session.OutState(r.State), Message: messageOf(r.Message),
	}
}
