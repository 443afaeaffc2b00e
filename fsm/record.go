package fsm

import (
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/routing"
	"github.com/mqcluster/mqcluster/session"
	"google.golang.org/protobuf/proto"
)

// Part is what one record of a Copy is, where that can be put into a cluster by
// itself: exactly one field is set, or none.
type Part struct {
	User     *logpb.User
	ACL      *logpb.Acl
	Retained *session.Message
}

// ReadPart reads a record of a Copy. It keeps neither k nor v.
func ReadPart(k, v []byte) (p Part, err error) {
	if len(k) == 0 {
		return p, nil
	}
	switch k[0] {
	case keyUser:
		p.User = new(logpb.User)
		err = proto.Unmarshal(v, p.User)
	case keyACL:
		p.ACL = new(logpb.Acl)
		err = proto.Unmarshal(v, p.ACL)
	case keyRetained:
		if _, p.Retained, err = parseRetained(v); err == nil {
			p.Retained.Topic, err = routing.TopicFromKey(k[1:])
		}
	}
	return p, err
}
