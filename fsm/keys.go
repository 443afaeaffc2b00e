package fsm

import (
	"encoding/binary"
	"fmt"

	"github.com/mqcluster/mqcluster/routing"
	"github.com/mqcluster/mqcluster/session"
)

// The first byte of a key says what it is. Client ids hold no NUL [MQTT-1.5.4-2],
// so NUL ends them.
const (
	keyMessage      = 'm' // pos                -> logpb.Message
	keyPosting      = 'i' // filter id, pos     -> running number and byte sum of the filter
	keySession      = 's' // client             -> logpb.Session
	keySubscription = 'b' // client, 0, filter  -> logpb.SessionSubscription
	keyCursor       = 'c' // client             -> pos
	keyOut          = 'o' // client, 0, pos     -> logpb.Out
	keyReceived     = 'q' // client, 0, id      -> nothing
	keyRetained     = 'r' // topic key          -> pos, logpb.Message
	keyFormer       = 'w' // client, 0, epoch   -> logpb.Former
	keyExpiry       = 'e' // ms, topic key      -> nothing
	keyUser         = 'u' // name               -> logpb.User
	keyACL          = 'a' // subject            -> logpb.Acl
	keyToken        = 't' // id                 -> logpb.Token
	keyAPIToken     = 'y' // id                 -> logpb.ApiToken
	keyMember       = 'n' // node               -> logpb.Member
	keyPack         = 'p' // node               -> next pack number
	keyCert         = 'k' // serial             -> logpb.Cert
	keySetting      = 'x' // key                -> value
	keyBan          = 'B' // kind, 0, value     -> logpb.Ban
	keyVersion      = 'H' // number             -> logpb.AclVersion
	keyAudit        = 'J' // pos                -> logpb.Audit
	keySecret       = 'Y' // name               -> value
	// 'M' begins the meta keys.
)

const (
	metaApplied = "Mapplied" // raft index
	metaStamp   = "Mstamp"   // log time, ms
	metaFilter  = "Mfilter"  // last filter id given out
	metaLevel   = "Mlevel"   // state.reached, from LevelIdentity on
)

func appendString(kind byte, s string) []byte {
	k := make([]byte, 0, 1+len(s)+11)
	return append(append(k, kind), s...)
}

func appendClient(kind byte, client string) []byte {
	return append(appendString(kind, client), 0)
}

func messageKey(p session.Pos) []byte {
	return binary.BigEndian.AppendUint64([]byte{keyMessage}, uint64(p))
}

func postingKey(filter uint64, p session.Pos) []byte {
	k := make([]byte, 17)
	putPostingKey(k, filter, p)
	return k
}

func putPostingKey(k []byte, filter uint64, p session.Pos) {
	k[0] = keyPosting
	binary.BigEndian.PutUint64(k[1:], filter)
	binary.BigEndian.PutUint64(k[9:], uint64(p))
}

func parsePosting(k []byte) (filter uint64, p session.Pos, err error) {
	if len(k) != 17 {
		return 0, 0, fmt.Errorf("a posting key of %d bytes", len(k))
	}
	return binary.BigEndian.Uint64(k[1:]), session.Pos(binary.BigEndian.Uint64(k[9:])), nil
}

func subscriptionKey(client, filter string) []byte {
	return append(appendClient(keySubscription, client), filter...)
}

func outKey(client string, p session.Pos) []byte {
	return binary.BigEndian.AppendUint64(appendClient(keyOut, client), uint64(p))
}

func receivedKey(client string, id uint16) []byte {
	return binary.BigEndian.AppendUint16(appendClient(keyReceived, client), id)
}

func retainedKey(topic string) []byte {
	return routing.AppendTopicKey([]byte{keyRetained}, topic)
}

func uint64Value(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }

func parseUint64(v []byte) (uint64, error) {
	if len(v) != 8 {
		return 0, fmt.Errorf("a number of %d bytes", len(v))
	}
	return binary.BigEndian.Uint64(v), nil
}

// upperBound is the first key after all that begin with prefix.
func upperBound(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i] != 0xff {
			end[i]++
			return end[:i+1]
		}
	}
	return nil
}
