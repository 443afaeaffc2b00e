package node

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/mqcluster/mqcluster/fsm/logpb"
)

// publishSys writes $SYS: Mosquitto's names for what this node does, and
// $SYS/cluster for the cluster.
func (n *Node) publishSys(context.Context) {
	st := n.broker.Stats()
	counts := n.store.Counts()
	n.counts.Store(&counts)
	set := func(topic string, v any) { n.broker.SetSys("$SYS/"+topic, fmt.Append(nil, v)) }
	in, out := sum(st.MessagesIn), sum(st.MessagesOut)
	stored, storedBytes, _ := n.store.Stored()
	gone := int64(counts.Sessions - counts.Connected)
	for topic, v := range map[string]int64{
		"broker/clients/connected":          st.Connected,
		"broker/clients/active":             st.Connected,
		"broker/clients/maximum":            st.ConnectedMax,
		"broker/clients/total":              st.Connected + gone,
		"broker/clients/disconnected":       gone,
		"broker/clients/inactive":           gone,
		"broker/messages/received":          in,
		"broker/messages/sent":              out,
		"broker/publish/messages/received":  in,
		"broker/publish/messages/sent":      out,
		"broker/publish/messages/dropped":   st.Dropped + n.queues.total.Load(),
		"broker/store/messages/count":       stored,
		"broker/store/messages/bytes":       storedBytes,
		"broker/bytes/received":             st.BytesIn,
		"broker/bytes/sent":                 st.BytesOut,
		"broker/subscriptions/count":        st.Subscriptions,
		"broker/shared_subscriptions/count": st.SharedSubscriptions,
		"broker/connections/refused":        st.Refused,
		"cluster/sessions":                  int64(counts.Sessions),
		"cluster/sessions/connected":        int64(counts.Connected),
		"cluster/subscriptions":             int64(counts.Subscriptions),
		"cluster/applied":                   int64(n.store.AppliedIndex()),
	} {
		set(topic, v)
	}
	set("broker/version", "mqcluster version "+n.deps.Version)
	set("broker/uptime", strconv.Itoa(int(time.Since(n.started).Seconds()))+" seconds")
	leader, _ := n.consensus.Leader()
	set("cluster/leader", leader)
	set("cluster/id", n.identity.ClusterID())
	for _, m := range n.store.Members() {
		set("cluster/nodes/"+m.Node+"/state", stateOf(m))
	}
}

func stateOf(m *logpb.Member) string {
	if m.Incarnation == 0 {
		return "down"
	}
	return "up"
}

func sum(byQoS [3]int64) int64 { return byQoS[0] + byQoS[1] + byQoS[2] }
