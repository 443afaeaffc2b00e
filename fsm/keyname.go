package fsm

import (
	"encoding/binary"
	"fmt"

	"github.com/mqcluster/mqcluster/routing"
	"github.com/mqcluster/mqcluster/session"
)

// DescribeKey says of what a record is, for people: its kind and its name.
func DescribeKey(k []byte) (kind, name string) {
	if len(k) == 0 {
		return "unknown record", "without a key"
	}
	kind = kindOf(k[0])
	rest := k[1:]
	switch k[0] {
	case keyMessage:
		if len(rest) == 8 {
			return kind, describePos(rest)
		}
	case keyPosting:
		if len(rest) == 16 {
			return kind, fmt.Sprintf("of filter %d, %s", binary.BigEndian.Uint64(rest), describePos(rest[8:]))
		}
	case keyRetained:
		if topic, err := routing.TopicFromKey(rest); err == nil {
			return kind, topic
		}
	case keyExpiry:
		if len(rest) > 8 {
			if topic, err := routing.TopicFromKey(rest[8:]); err == nil {
				return kind, topic
			}
		}
	case keySubscription:
		client, filter, _ := cutClient(string(rest))
		return kind, filter + " of client " + client
	case keyOut, keyFormer:
		client, at, _ := cutClient(string(rest))
		if len(at) == 8 {
			return kind, client + ", " + describePos([]byte(at))
		}
	case keyReceived:
		client, id, _ := cutClient(string(rest))
		if len(id) == 2 {
			return kind, fmt.Sprintf("%s, %d", client, binary.BigEndian.Uint16([]byte(id)))
		}
	default:
		if kind != "" {
			return kind, string(rest)
		}
	}
	return "unknown record", fmt.Sprintf("%q", k)
}

func describePos(b []byte) string {
	p := session.Pos(binary.BigEndian.Uint64(b)).Message()
	return fmt.Sprintf("log index %d item %d", p.Index(), p.Item())
}

// kindOf is what an operator calls the records whose keys begin so; "" if there are
// none.
func kindOf(first byte) string {
	switch first {
	case keyMessage:
		return "queued message"
	case keyPosting:
		return "queue entry"
	case keySession:
		return "session"
	case keySubscription:
		return "subscription"
	case keyCursor:
		return "cursor of session"
	case keyOut:
		return "QoS 2 state to client"
	case keyReceived:
		return "QoS 2 packet id from client"
	case keyRetained:
		return "retained message"
	case keyFormer:
		return "will of former connection"
	case keyExpiry:
		return "expiry of retained message"
	case keyUser:
		return "user"
	case keyACL:
		return "rules of"
	case keyToken:
		return "join token"
	case keyMember:
		return "node"
	case keyPack:
		return "pack number of node"
	case keyCert:
		return "certificate"
	case keySetting:
		return "setting"
	case metaApplied[0]:
		return "count"
	}
	return ""
}
