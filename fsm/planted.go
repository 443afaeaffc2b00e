package fsm

// fault is one that a test build has planted, to show that the history checker
// finds it. planted says which: a constant, so that a build without a tag has
// nothing of it.
type fault int

const (
	sound fault = iota
	// loseFence lets what a connection that was taken over had under way land.
	loseFence
	// skipNumber applies a pack as often as it is in the log.
	skipNumber
	// skipReceived forgets the packet ids of QoS 2 messages that were received.
	skipReceived
	// willTwice fires every will twice.
	willTwice
	// localMember chooses a shared subscription's member where the entry is applied.
	localMember
)

// local is what localMember chooses: a member with a connection here, if there is
// one, and else whoever was chosen.
func local(members []groupMember, node string, chosen groupMember) groupMember {
	for _, m := range members {
		if o := m.sess.owner.Load(); o != nil && o.node == node {
			return m
		}
	}
	return chosen
}
